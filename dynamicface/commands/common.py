"""What the commands share: their common options, kinds of arguments, and the desk they work at.

A command is a module with `register(commands)`, which adds its parser by :func:`command`, and a function from the parsed options to a
dictionary of figures. `cli.py` prints these: as JSON with --json, else the files that were written and the seconds it took.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DynamicFaceError, ImageError, NoFaceError
from ..io.c2pa import sign_picture
from ..io.pictures import read_image
from ..io.priors import load_prior
from ..io.provenance import Provenance, record_provenance, source_file
from ..photos import stack_photos
from ..pipeline import FacePipeline
from ..track import PHOTOS
from ..types import FacePrior, FaceTrack

FACES = ("largest", "leftmost", "rightmost", "centre")


@dataclass
class Desk:
    """The pipeline of a command, a stop watch, and a list of what was written."""

    options: argparse.Namespace
    seconds: dict[str, float] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.timed("load"):
            self.pipe = FacePipeline.load(device(self.options.device))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)

    def fit(self, paths: Sequence[Path], face: dict) -> tuple[Tensor, FaceTrack, FacePrior]:
        """Plate, track and prior of one person's photos."""
        if len(paths) > PHOTOS:
            raise ImageError(f"{len(paths)} photos were given; one person's photo set may hold up to {PHOTOS}. Choose the clearest.")
        with self.timed("read"):
            plate = stack_photos([read_image(path) for path in paths]).to(self.options.device)
        with self.timed("track"):
            try:
                track = self.pipe.track(plate, threshold=self.options.threshold, **face)
            except NoFaceError as error:
                raise NoFaceError(f"{', '.join(map(str, paths))}: {error}") from error
        with self.timed("fit"):
            return plate, track, self.pipe.fit(plate, track)

    def load_or_fit(self, paths: Sequence[Path], face: dict) -> FacePrior:
        """A prior from photos, or the one that `fit` saved."""
        if len(paths) == 1 and paths[0].suffix == ".safetensors":
            return load_prior(paths[0], self.options.device)
        return self.fit(paths, face)[2]

    def wrote(self, path: Path, write: Callable[[Path], None]) -> None:
        write(path)
        self.written.append(str(path))

    def record(
        self, action: str, sources: Mapping[str, Sequence[Path]], settings: Mapping[str, object], *, generated: bool = False
    ) -> None:
        """Where the written --out comes from, inside of it and beside it, unless the artist does not want it."""
        options = self.options
        if options.no_provenance:
            return
        files = tuple(source_file(role, path) for role, paths in sources.items() for path in paths)
        record = Provenance(action, files, generated, settings, consent=options.consent)
        sign = partial(sign_picture, provenance=record, certificate=options.c2pa[0], key=options.c2pa[1]) if options.c2pa else None
        self.written.append(str(record_provenance(record, [options.out], sign)))

    @property
    def figures(self) -> dict:
        return {"wrote": self.written, "seconds": self.seconds}


def device(name: str) -> torch.device:
    """Raises DynamicFaceError where this machine has no such device."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DynamicFaceError(f"The device {name!r} cannot be used here; use cpu, or another one this machine has.") from error
    return device


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> None:
        raise DynamicFaceError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def command(commands: argparse._SubParsersAction, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    """A command with the options all of them have."""
    parser = commands.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps ..")
    parser.add_argument(
        "--face", type=face, default=face("largest"), metavar="WHICH", help=f"{', '.join(FACES)}, or a number counted by size from 0"
    )
    parser.add_argument("--threshold", type=share, default=0.5, help="least detector score of a face (default 0.5)")
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8, help="of PNG files (default 8)")
    return parser


def add_provenance(parser: argparse.ArgumentParser) -> None:
    """The options of :meth:`Desk.record`."""
    parser.add_argument("--consent", default="", metavar="TEXT", help="who agreed to what; goes into the record")
    parser.add_argument("--c2pa", nargs=2, type=Path, metavar=("CHAIN.pem", "KEY.pem"), help="sign the result with your own certificate")
    parser.add_argument("--no-provenance", action="store_true", help="write no record of sources, models and settings")


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, but found {text.strip()!r}")
    return value


def share(text: str) -> float:
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, but found {text}")
    return value


def count(lowest: int, highest: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not (text.isdecimal() and lowest <= int(text) <= highest):
            raise argparse.ArgumentTypeError(f"expected a whole number from {lowest} to {highest}, but found {text}")
        return int(text)

    return whole


def face(text: str) -> dict:
    """Keyword arguments of `track_faces` that choose a face."""
    if text.isdecimal():
        return {"choose": "index", "index": int(text)}
    if text not in FACES:
        raise argparse.ArgumentTypeError(f"expected {', '.join(FACES)} or a number, but found {text!r}")
    return {"choose": text}
