"""Long shots: memory and speed of tracking, fitting and compositing from file to file, at two lengths of the same 1080p clip."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import av
import torch
import torch.nn.functional as F

from dynamicface import FacePipeline, edit_expression
from dynamicface.io.clips import WINDOW, Clip, ClipWriter
from dynamicface.prior.estimate import fit_prior
from dynamicface.shots import composite_windows
from dynamicface.track import track_faces

from .common import Figure, Options, Table, command
from .memory import peak_memory

FRAMES = (300, 3000)
COMPOSITED = 304  # frames of each that are composited: every window takes what the one before took
QUICK = (4,)
ROOT = Path(__file__).resolve().parents[1]
_SIZE = (1080, 1920)


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    source = options.data.clips(1)[0]
    short = options.quick or options.limit is not None
    lengths = QUICK if short else FRAMES
    rows, found = [], []
    with tempfile.TemporaryDirectory() as folder:
        for frames in lengths:
            path = Path(folder, f"{frames}.mp4")
            _loop(source, path, frames)
            run = subprocess.run(
                [sys.executable, "-m", __spec__.name, "--child", str(path)], capture_output=True, text=True, check=True, cwd=ROOT
            )
            found.append(json.loads(run.stdout))
            rows.append((frames, *(found[-1][key] for key in ("loaded", "tracked", "fitted", "done", "track", "fit", "composite"))))
    growth = None if short else 1000 * (found[1]["done"] - found[0]["done"]) / (lengths[1] - lengths[0])
    note = (
        f"{source.name}, looped and enlarged to 1920 x 1080. Peak memory of the process in MB so far: networks and head loaded, after "
        "tracking, after fit and light, after the smile is composited and encoded. Frames/s: fit with light, composite with encoding "
        f"(of at most {COMPOSITED} frames). "
        + ("So short, memory still grows." if short else f"Growth between the two: {growth:.0f} MB for 1,000 frames.")
    )
    columns = ("frames", "loaded, MB", "tracked", "fitted", "composited", "track, frames/s", "fit, frames/s", "composite, frames/s")
    data = f"1080p, {' and '.join(map(str, lengths))} frames"
    figures = (
        Figure("shot.memory_over_loaded", found[-1]["done"] - found[-1]["loaded"], "MB", "lower", data),
        *(() if short else (Figure("shot.memory_growth", growth, "MB per 1,000 frames", "lower", data),)),
    )
    return [Table("From file to file", columns, rows, note, figures)]


def _loop(source: Path, path: Path, frames: int) -> None:
    """A clip repeated and enlarged to 1080p, the face at about half of the height."""
    clip = Clip(source)
    plates = [
        F.interpolate(clip[f][None].permute(0, 3, 1, 2), _SIZE, mode="bilinear")[0].permute(1, 2, 0)
        for f in range(min(len(clip), frames, 40))
    ]
    pictures = [(plate * 255).byte().numpy() for plate in plates]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        stream.height, stream.width = _SIZE
        stream.pix_fmt = "yuv420p"
        for picture in islice(cycle([*pictures, *pictures[::-1]]), frames):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(stream.encode(None))


def _child(path: str) -> None:
    """The work itself, in a process of its own; prints its figures."""
    pipe = FacePipeline.load()
    figures = {"loaded": peak_memory("cpu")}
    clip = Clip(path)
    with torch.inference_mode():
        started = time.perf_counter()
        track = track_faces(clip, pipe.perception)
        figures |= {"tracked": peak_memory("cpu"), "track": len(clip) / (time.perf_counter() - started)}
        started = time.perf_counter()
        prior = fit_prior(clip, track, pipe.head)
        figures |= {"fitted": peak_memory("cpu"), "fit": len(clip) / (time.perf_counter() - started)}
    started = time.perf_counter()
    smiling = edit_expression(prior, {"smile": 0.7})
    with ClipWriter(Path(path).with_suffix(".out.mp4"), clip) as writer, torch.inference_mode():
        for picture, mask in islice(composite_windows(smiling, pipe.perception, pipe.head), COMPOSITED // WINDOW):
            writer.write(picture, mask)
            del picture, mask
    figures |= {"done": peak_memory("cpu"), "composite": writer.frames / (time.perf_counter() - started)}
    print(json.dumps(figures))


def main(argv: list[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--child"]:
        _child(arguments[1])
    else:
        command("Long shots", measure, arguments)


if __name__ == "__main__":
    main()
