"""One picture at a time: a cold start in a process of its own, warm frames at three resolutions, and the memory. Needs no data folder."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from dynamicface import FacePipeline, FacePrior
from dynamicface.io.pictures import write_image

from .common import Figure, Options, SkippedError, Table, command
from .speed import moving_face, timed

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
REPEATS = 7
STAGES = ("track", "fit", "composite")
_CHILD = """
import json, sys
from benchmarks.memory import peak_memory
from dynamicface import cli
code = cli.main(sys.argv[1:])
print(json.dumps({"code": code, "peak": peak_memory("cpu")}), file=sys.stderr)
"""


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    frame = moving_face(2, options.device)[:1]
    return [cold(frame, options), warm(pipe, frame, options)]


def cold(frame: Tensor, options: Options) -> Table:
    """`python -m dynamicface edit` on a 1080p picture, from nothing to the file."""
    runs = []
    for _ in range(1 if options.quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "frame.png")
            write_image(source, frame)
            arguments = [
                "edit",
                str(source),
                "--set",
                "smile=0.8",
                "--out",
                str(Path(folder, "out.png")),
                "--json",
                "--device",
                options.device,
            ]
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[1])
            total = time.perf_counter() - started
        if done.returncode or not done.stdout:
            raise SkippedError(f"The command line could not be run: {done.stderr.strip().splitlines()[-1]}")
        peak = json.loads(done.stderr.splitlines()[-1])["peak"]
        runs.append((total, json.loads(done.stdout)["seconds"], peak))
    total, seconds, peak = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
    rows = [(name, 1e3 * value) for name, value in seconds.items()]
    rows += [("interpreter, imports, writing", 1e3 * (total - sum(seconds.values()))), ("from nothing to the file", 1e3 * total)]
    data = f"1 picture of 1080p, {len(runs)} starts"
    figures = (
        Figure.repeated("latency.cold_start", [1e3 * run[0] for run in runs], "ms", "lower", data),
        Figure.repeated("latency.peak_memory", [run[2] for run in runs], "MB", "lower", data),
    )
    return Table(f"Cold start: a smile on one 1080p picture; peak memory {peak:.0f} MB", ("stage", "ms"), rows, figures=figures)


def warm(pipe: FacePipeline, frame: Tensor, options: Options) -> Table:
    """One frame after another, as a live picture would come: identity known, everything else anew."""
    rows, figures = [], []
    for name, size in SIZES.items():
        plate = F.interpolate(frame.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).contiguous()
        times = [_frame(pipe, plate, options.device) for _ in range((3 if options.quick else REPEATS) + 1)][1:]
        middle = [sorted(column)[len(times) // 2] for column in zip(*times, strict=True)]
        totals = [sum(each) for each in times]
        figure = Figure.repeated(
            f"latency.{name.lower()}", totals, "ms", "lower", f"one frame of {size[1]} x {size[0]}, {len(times)} repeats"
        )
        rows.append((name, *middle, figure.value, figure.spread))
        figures.append(figure)
    note = (
        "Median. The face is half as high as the picture. Detection, landmarks and fit with texture and light run for the frame alone; "
        "in a clip they are shared by its frames (see speed by stage)."
    )
    return Table(
        "Warm latency of a single frame, smile 0.8",
        ("", *(f"{s}, ms" for s in STAGES), "total, ms", "spread, ms"),
        rows,
        note,
        tuple(figures),
    )


def _frame(pipe: FacePipeline, plate: Tensor, device: str) -> tuple[float, ...]:
    """Milliseconds of each stage."""
    found: dict[str, object] = {}

    def fit(_: object) -> None:
        found["prior"] = pipe.fit(plate, found["track"], texture_size=256)

    def composite(_: object) -> None:
        prior: FacePrior = found["prior"]
        pipe.render(pipe.edit(prior, smile=0.8))

    def track(_: object) -> None:
        found["track"] = pipe.track(plate)

    return tuple(float(timed(work, None, device)[0]) for work in (track, fit, composite))


def main(argv: list[str] | None = None) -> None:
    command("Latency", measure, argv)


if __name__ == "__main__":
    main()
