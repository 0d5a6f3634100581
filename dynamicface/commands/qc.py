"""python -m dynamicface qc: measure a finished photo, folder of frames or clip."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DynamicFaceError, ImageError
from ..io.pictures import read_image, write_image
from ..metrics.fid import FILE as INCEPTION
from ..metrics.fid import InceptionFeatures
from ..metrics.lpips import FILE as LPIPS
from ..metrics.lpips import Lpips
from ..metrics.meter import WINDOW, QualityMeter
from ..metrics.picture import draw_report
from ..metrics.report import METRICS, QualityReport
from .common import Desk, command, number

_HELD = 64_000_000  # values of a window of frames; half of what is in memory at once for each of result and plate
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr", ".hdr"}


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = command(commands, "qc", run, "measure a finished photo, folder of frames or clip")
    parser.add_argument("--result", type=Path, required=True, metavar="PATH", help="a picture, a folder of frames in order, or a clip")
    parser.add_argument("--plate", type=Path, metavar="PATH", help="the same as filmed; without it only steadiness is measured")
    parser.add_argument("--source", nargs="+", type=Path, metavar="IMAGE", help="for a swap: photos of the person, or a saved prior")
    parser.add_argument("--mask", type=Path, metavar="PATH", help="white = what was allowed to change: one picture, or one per frame")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report.png and report.json")
    parser.add_argument("--networks", type=Path, metavar="DIR", help=f"folder with {LPIPS} (LPIPS) or {INCEPTION} (FID): measured too")
    text = f"fail with exit code 2 unless the mean keeps this limit; may be repeated. {', '.join(METRICS)}"
    parser.add_argument("--require", action="append", type=_limit, default=[], metavar="NAME=NUMBER", help=text)


def run(options: argparse.Namespace) -> dict:
    """Figures of the report. Raises DynamicFaceError where a required limit is missed, after the report was written."""
    desk = Desk(options)
    source = desk.load_or_fit(options.source, options.face) if options.source else None
    settings = _judges(options.networks) if options.networks else {}
    meter = QualityMeter(desk.pipe.perception, desk.pipe.head, source=source, threshold=options.threshold, **settings, **options.face)
    with desk.timed("measure"):
        for result, plate, mask in _windows(options):
            meter.add(*(x if x is None else x.to(options.device) for x in (result, plate, mask)))
        report = meter.report()
    if options.out:
        desk.wrote(options.out / "report.png", lambda path: write_image(path, draw_report(report, options.result.name)))
        desk.wrote(options.out / "report.json", lambda path: path.write_text(report.to_json(), encoding="utf-8"))
    missed = [reason for name, limit in options.require if (reason := report.failure(name, limit))]
    if missed:
        raise DynamicFaceError(f"{options.result}: {' '.join(missed)}")
    return desk.figures | _figures(report)


def _judges(folder: Path) -> dict:
    """The networks a folder holds, at least one. Raises WeightsError with how to make them."""
    found = {"inception": InceptionFeatures.load(folder)} if (folder / INCEPTION).is_file() else {}
    return found if found and not (folder / LPIPS).is_file() else found | {"lpips": Lpips.load(folder)}


def _figures(report: QualityReport) -> dict:
    figures = json.loads(report.to_json())
    for metric in figures["metrics"].values():
        del metric["curve"], metric["meaning"]
    return figures


def _windows(options: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    """Result, plate and mask (F, H, W), window by window. Raises ImageError where their frame counts differ."""
    given = {"result": options.result, "plate": options.plate, "mask": options.mask}
    still = _grey(read_image(options.mask)) if options.mask and options.mask.suffix.lower() in _PICTURES else None
    window = max(2, min(WINDOW, _HELD // next(_frames(options.result, 1)).numel()))
    streams = {name: _frames(path, window) for name, path in given.items() if path and (name != "mask" or still is None)}
    done = 0
    for parts in itertools.zip_longest(*streams.values()):
        lengths = [0 if part is None else len(part) for part in parts]
        if len(set(lengths)) > 1:
            ended = [str(given[name]) for name, length in zip(streams, lengths, strict=True) if length < max(lengths)]
            raise ImageError(
                f"{' and '.join(ended)} ends after {done + min(lengths)} frames, the others go on. Give as many frames of each."
            )
        done += lengths[0]
        part = dict(zip(streams, parts, strict=True))
        yield part["result"], part.get("plate"), _grey(part["mask"]) if "mask" in part else still


def _grey(pictures: Tensor) -> Tensor:
    return pictures[..., :3].mean(-1)


def _frames(path: Path, window: int) -> Iterator[Tensor]:
    """Frames (F, H, W, C), so many at a time."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
        if not files:
            raise ImageError(f"The folder {path} holds no pictures ({', '.join(sorted(_PICTURES))}).")
        for start in range(0, len(files), window):
            yield _stacked(files[start : start + window])
    elif path.suffix.lower() in _PICTURES or not path.exists():
        yield read_image(path)
    else:
        from ..io.clips import Clip

        yield from Clip(path).windows(window)


def _stacked(files: list[Path]) -> Tensor:
    pictures = [read_image(file) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            sizes = " and ".join(f"{p.shape[2]} x {p.shape[1]}" for p in (pictures[0], picture))
            raise ImageError(f"{files[0].name} and {file.name} are {sizes} pixels; the frames of a clip must have one size.")
    return torch.cat(pictures)


def _limit(text: str) -> tuple[str, float]:
    name, sign, value = text.partition("=")
    if not sign or name not in METRICS:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER with one of {', '.join(METRICS)}, but found {text!r}")
    return name, number(value)
