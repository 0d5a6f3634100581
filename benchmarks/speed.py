"""Speed of the prior path, stage by stage, on a 1080p clip with one moving face, and the memory it takes. Needs no data folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from skimage.data import astronaut
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, apply_change, compute_change
from dynamicface.images import sample_crops
from dynamicface.prior.estimate import select_frames
from dynamicface.render import render_prior
from dynamicface.windows import windows

from .common import Figure, Options, Table, command
from .memory import peak_memory

HEIGHT, WIDTH = 1080, 1920
FRAMES = 40  # half of them are a clip for the tracker still, which takes a few pictures for unrelated photos
WINDOW = 4  # frames composed at once, as the pipeline does
REPEATS = 3
QUICK_REPEATS, QUICK_WINDOWS = 1, 1
_LIMITS = {
    "track": "the landmark net's and detector's convolutions",
    "fit": "small dense solves and the light's texture, one batch per clip",
    "both as shipped": "two z-buffers and the continuation of the fields beyond the head, many small steps over the crop; then the first "
    "touch of the result's memory and bicubic resampling at every changed pixel: memory bandwidth",
}
_PATH = tuple(_LIMITS)


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    repeats, count = (QUICK_REPEATS, QUICK_WINDOWS) if options.quick else (REPEATS, FRAMES // WINDOW)
    frames = FRAMES
    clip = moving_face(frames, options.device)
    warm = pipe.fit(clip[:WINDOW])
    pipe.render(pipe.edit(warm, smile=0.8))

    stages, once = {}, {}
    stages["track"], once["track"] = per_frame(pipe.track, clip, options.device, repeats)
    track = pipe.track(clip)
    half = select_track(track, frames // 2)
    stages["fit"], once["fit"] = per_frame(
        lambda part: pipe.fit(part, track if len(part) == frames else half), clip, options.device, repeats
    )
    edited = pipe.edit(pipe.fit(clip, track), smile=0.8)
    parts = [select_frames(edited, index) for index in windows(frames, WINDOW)][:count]
    stages["render 512²"] = by_window(lambda part: render_prior(part, pipe.head, 512), parts, options.device)
    stages["guides 512²"] = by_window(lambda part: pipe.guides(part, 512), parts, options.device)
    changes = []
    stages["composite"] = by_window(lambda part: changes.append(change_of(pipe, part)), parts, options.device)
    paired = [(part.background.plate, change) for part, change in zip(parts, changes, strict=True)]
    stages["paste into 1080p"] = by_window(lambda pair: torch.inference_mode()(apply_change)(*pair), paired, options.device)

    changes.clear(), paired.clear()
    stages["both as shipped"] = median([timed(pipe.render, edited, options.device) for _ in range(repeats)]) / frames

    whole = sum(stages[name] for name in _PATH)
    slowest = max(_PATH, key=lambda name: stages[name][0])
    first = sum(once.values())[0]
    rows = [(name, *map(float, value), float(once[name][0]) if name in once else "") for name, value in stages.items()]
    rows.append(("whole prior path: track, fit, both as shipped", *map(float, whole), float(first)))
    summary = [
        ("frames/s of the whole prior path, identity and texture known", 1e3 / float(whole[0])),
        ("frames/s with guides", 1e3 / float((whole + stages["guides 512²"])[0])),
        (f"frames/s of a clip of {frames} frames with everything found anew", 1e3 * frames / float(whole[0] * frames + first)),
        ("peak memory, MB", peak_memory(options.device)),
        ("... of it the clip and the result, MB", 2 * clip.nbytes / 1e6),
        ("slowest stage", slowest),
        ("what limits it", _LIMITS[slowest]),
    ]
    note = (
        f"Clip of {frames} frames, {WIDTH} x {HEIGHT}; smile 0.8. Processor: all cores together. Composite and paste alone: "
        f"one window of {WINDOW} frames at a time; as shipped, two windows at once on a CPU. "
        "Once per clip: identity, texture and the first detection."
    )
    data = f"{frames} frames of 1080p, one face"
    figures = [Figure(f"speed.{name.split()[0]}", float(value[0]), "ms", "lower", data) for name, value in stages.items()]
    figures += [
        Figure("speed.frames_per_second", 1e3 / float(whole[0]), "frames/s", "higher", data),
        Figure("speed.peak_memory", peak_memory(options.device), "MB", "lower", data),
    ]
    columns = ("stage", "ms per frame", "processor ms per frame", "ms once per clip")
    return [
        Table("Milliseconds per frame by stage, median", columns, rows, note),
        Table("Whole path", ("", "value"), summary, figures=tuple(figures)),
    ]


def moving_face(frames: int, device: str) -> Tensor:
    """A 1080p clip (F, H, W, 3): a portrait (NASA, public domain) that sways, nods and comes closer."""
    photo = torch.from_numpy(astronaut().copy()).to(device)[None] / 255
    clip = torch.empty(frames, HEIGHT, WIDTH, 3, device=device)
    for number, t in enumerate(torch.linspace(0, 2 * torch.pi, frames, device=device)):
        angle = 0.04 * torch.sin(2 * t)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2) * (2.0 + 0.05 * torch.sin(t))
        place = torch.stack([WIDTH / 2 + 60 * torch.sin(t), HEIGHT / 2 + 20 * torch.cos(t)])
        shift = place[:, None] - turn @ photo.new_tensor([[225.0], [180.0]])
        clip[number] = sample_crops(photo, torch.cat([turn, shift], -1)[None], (HEIGHT, WIDTH))[0].permute(1, 2, 0)
    return clip


def change_of(pipe: FacePipeline, part: FacePrior):
    """The fields of an edit, as :func:`dynamicface.pipeline.render_composite` computes them."""
    with torch.inference_mode():
        return compute_change(part, pipe.head, part.background.plate)


def select_track(track: FaceTrack, frames: int) -> FaceTrack:
    """The first frames of a track."""
    per_frame = ("boxes", "landmarks", "presence", "agreement", "cuts")
    return replace(track, **{name: value[:frames] for name in per_frame if (value := getattr(track, name)) is not None})


def per_frame(work: Callable[[Tensor], object], clip: Tensor, device: str, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds (wall, processor) per further frame and once per clip, from the clip and its first half."""
    half = len(clip) // 2
    short, long = (median([timed(work, part, device) for _ in range(repeats)]) for part in (clip[:half], clip))
    each = (long - short) / (len(clip) - half)
    return each, (long - each * len(clip)).clip(0)


def by_window(work: Callable, windows: list, device: str) -> np.ndarray:
    """Median milliseconds (wall, processor) per frame over windows of frames."""
    return median([timed(work, part, device) for part in windows]) / WINDOW


def median(times: list[np.ndarray]) -> np.ndarray:
    """Median of each clock."""
    return np.median(np.stack(times), axis=0)


def timed(work: Callable, part: object, device: str) -> np.ndarray:
    """Milliseconds one call takes: by the wall's clock, and of all processors together (which other programs disturb less)."""
    start = np.array([time.perf_counter(), time.process_time()])
    work(part)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1e3 * (np.array([time.perf_counter(), time.process_time()]) - start)


def main(argv: list[str] | None = None) -> None:
    command("Speed", measure, argv)


if __name__ == "__main__":
    main()
