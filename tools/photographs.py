"""The two pictures that the workflows name, cut from real photographs in .cache/media. An artist chooses their own in Load Image."""

from __future__ import annotations

from pathlib import Path

from comfy_server import CACHE
from PIL import Image

PHOTOGRAPHS = {"portrait_a.png": ("astronaut.png", (70, 0, 370, 300)), "portrait_b.png": ("single_face.jpg", (110, 80, 430, 400))}


def missing_media() -> list[str]:
    """Names of the photographs that `dev.py setup` could not fetch."""
    return [medium for medium, _ in PHOTOGRAPHS.values() if not (CACHE / "media" / medium).is_file()]


def write_photographs(folder: Path) -> None:
    """Write portrait_a.png and portrait_b.png into ComfyUI's input folder."""
    for name, (medium, box) in PHOTOGRAPHS.items():
        with Image.open(CACHE / "media" / medium) as image:
            image.convert("RGB").crop(box).save(folder / name)
