"""The two pictures and the clip that the workflows name, cut from real media in .cache/media. An artist chooses their own in Load Image."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from comfy_server import CACHE
from PIL import Image

PHOTOGRAPHS = {"portrait_a.png": ("astronaut.png", (70, 0, 370, 300)), "portrait_b.png": ("single_face.jpg", (110, 80, 430, 400))}

CLIP, CLIP_SOURCE, CLIP_FRAMES = "shot.mp4", "single_face.mp4", 10


def missing_media() -> list[str]:
    """Names of the photographs that `dev.py setup` could not fetch."""
    media = [CLIP_SOURCE, *(medium for medium, _ in PHOTOGRAPHS.values())]
    return [medium for medium in media if not (CACHE / "media" / medium).is_file()]


def write_photographs(folder: Path) -> None:
    """Write portrait_a.png, portrait_b.png and a short shot.mp4 into ComfyUI's input folder."""
    for name, (medium, box) in PHOTOGRAPHS.items():
        with Image.open(CACHE / "media" / medium) as image:
            image.convert("RGB").crop(box).save(folder / name)
    with av.open(str(CACHE / "media" / CLIP_SOURCE)) as source:
        rate = source.streams.video[0].average_rate
        frames = [frame.to_image() for _, frame in zip(range(CLIP_FRAMES), source.decode(video=0), strict=False)]
    write_clip(folder / CLIP, frames, rate)


def write_clip(path: Path, frames: Sequence[Image.Image], rate: Fraction | int = 25) -> None:
    """Pictures of one size as a clip."""
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            clip.mux(stream.encode(av.VideoFrame.from_image(frame)))
        clip.mux(stream.encode(None))
