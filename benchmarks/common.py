"""What the measurements share: command line, result tables, the data folder, fitted photographs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dynamicface import DynamicFaceError, FacePipeline, FacePrior, NoFaceError
from dynamicface.io.pictures import read_image

log = logging.getLogger("benchmarks")

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
MEDIA = Path(__file__).parents[1] / ".cache" / "media"  # what `dev.py setup` unpacks from registry packages
PHOTOGRAPHS = ("astronaut.png", "single_face.jpg", "smile.jpg", "frown.jpg", "surprise.jpg", "three_quarter.jpg")
CLIPS = ("single_face.mp4", "speech.mp4")
SEED = 20
QUICK_PEOPLE = 10


class SkippedError(Exception):
    """A measurement cannot run here; the message says why."""


@dataclass(frozen=True)
class Figure:
    """One number of a measurement that must not get worse: for the table of targets and for the history."""

    key: str  # "swap.id_error": measurement and quantity; never renamed, since the history is looked up by it
    value: float
    unit: str  # "%", "ms", "degrees" .., "" for ratios and cosines
    better: Literal["lower", "higher"]
    data: str  # what it was measured on, with the number of samples
    spread: float = 0.0  # standard deviation of repeats; 0 where a repeat gives the same number

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))  # measurements hand over numbers of NumPy and torch, too

    @classmethod
    def repeated(cls, key: str, values: Sequence[float], unit: str, better: Literal["lower", "higher"], data: str) -> Figure:
        """The median of repeats, with their standard deviation as the median of absolute deviations tells it."""
        middle = statistics.median(values)
        return cls(key, middle, unit, better, data, 1.4826 * statistics.median(abs(value - middle) for value in values))


@dataclass(frozen=True)
class Table:
    """One table of a measurement: rows of plain numbers and words under named columns."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple]
    note: str = ""
    figures: tuple[Figure, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)  # keys of figures that this run could not find out, each with the reason

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(_text(value) for value in row) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])


@dataclass(frozen=True)
class Report:
    """What one measurement found."""

    name: str
    tables: list[Table] = field(default_factory=list)
    skipped: str = ""
    module: str = ""  # python -m benchmarks.<module> prints this report alone
    seconds: float = 0.0
    processor_seconds: float = 0.0  # of all cores together, which other programs disturb less

    @property
    def command(self) -> str:
        return f"python -m benchmarks.{self.module}"

    @property
    def figures(self) -> list[Figure]:
        return [figure for table in self.tables for figure in table.figures]

    @property
    def missing(self) -> dict[str, str]:
        return {key: reason for table in self.tables for key, reason in table.missing.items()}

    def markdown(self) -> str:
        body = [f"Not measured: {self.skipped}"] if self.skipped else [table.markdown() for table in self.tables]
        how = [f"`{self.command}`: {self.seconds:.0f} s, {self.processor_seconds:.0f} s of processor time."] if self.tables else []
        return "\n\n".join([f"## {self.name}", *how, *body]) + "\n"


@dataclass(frozen=True)
class Data:
    """The folder of measurement pictures."""

    root: Path

    def london(self, limit: int | None = None) -> list[tuple[Path, Path]]:
        """(neutral, smile) of each person."""
        neutral = sorted(self._folder("london").glob("*_neutral.jpg"))
        return [(path, path.with_name(path.name.replace("neutral", "smile"))) for path in spread(neutral, limit)]

    def faces(self, limit: int | None = None) -> list[Path]:
        """Portraits, evenly spread over the set."""
        return spread(sorted(self._folder("faces256").glob("*.jpg")), limit)

    def portraits(self, limit: int | None = None) -> list[Path]:
        """Studio and street photographs in turn where the folder has them, otherwise the photographs out of registry packages."""
        if (self.root / "london").is_dir() and (self.root / "faces256").is_dir():
            half = None if limit is None else (limit + 1) // 2
            studio, street = [neutral for neutral, _ in self.london(half)], self.faces(half)
            return [path for pair in zip(studio, street, strict=False) for path in pair][:limit]
        found = [MEDIA / name for name in PHOTOGRAPHS if (MEDIA / name).is_file()]
        if not found:
            raise SkippedError(f"There are no photographs in {self.root} nor in {MEDIA}. Run `python dev.py setup`, or pass --data DIR.")
        return spread(found, limit)

    def clips(self, limit: int | None = None) -> list[Path]:
        """Clips of one talking person each, otherwise those out of registry packages."""
        folder = self.root / "clips"
        own = sorted(folder.glob("*.mpg")) if folder.is_dir() else []
        found = own or [MEDIA / name for name in CLIPS if (MEDIA / name).is_file()]
        if not found:
            raise SkippedError(f"There are no clips in {folder} nor in {MEDIA}. Run `python dev.py setup`, or pass --data DIR.")
        return spread(found, limit)

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        if not folder.is_dir():
            raise SkippedError(f"There is no folder {name} in {self.root}. Pass the measurement pictures with --data DIR.")
        return folder


@dataclass(frozen=True)
class Options:
    """What a measurement may use."""

    data: Data
    limit: int | None = None
    device: str = "cpu"
    quick: bool = False  # the smallest run that still means something

    def count(self, full: int) -> int:
        """How many samples of a measurement that takes `full` of them."""
        return full if self.limit is None else min(full, self.limit)

    def people(self) -> list[tuple[Path, Path]]:
        """(neutral, smile) of the people among whom somebody is looked for; a quick run knows a few only."""
        return self.data.london(QUICK_PEOPLE if self.quick else None)


Measure = Callable[[FacePipeline, Options], list[Table]]


def spread(items: Sequence, count: int | None) -> list:
    """`count` items, evenly spread over all of them and therefore the same every time."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def run(name: str, measure: Measure, pipe: FacePipeline, options: Options) -> Report:
    """One measurement as a report; missing data, tools or weights become its reason."""
    module = measure.__globals__["__spec__"].name.rpartition(".")[2]  # also where it runs as the program
    started, worked = time.perf_counter(), _worked()
    try:
        tables = measure(pipe, options)
        return Report(name, tables, module=module, seconds=time.perf_counter() - started, processor_seconds=_worked() - worked)
    except (SkippedError, DynamicFaceError) as reason:
        return Report(name, skipped=str(reason), module=module)


def _worked() -> float:
    """Seconds of processor time so far, of this process and those it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every measurement has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        help="folder with london/, faces256/ and clips/; without it, photographs and clips out of registry packages where they will do",
    )
    parser.add_argument("--limit", type=int, help="samples per measurement, fewer are faster (default: as published)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def command(name: str, measure: Measure, argv: Sequence[str] | None = None) -> None:
    """A measurement as a command line tool: prints Markdown, writes JSON."""
    parser = arguments(name)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    prepare()
    report = run(name, measure, FacePipeline.load(args.device), Options(Data(args.data), args.limit, args.device))
    print(f"{machine(args.device)}\n\n{report.markdown()}")
    if args.json:
        write_json(args.json, [report], args.device)


def prepare() -> None:
    """Progress on stderr, the same random numbers every time."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(SEED)


def to_json(reports: list[Report], device: str) -> str:
    """Reports with every number they hold."""
    return json.dumps({"machine": machine(device), "reports": [asdict(r) for r in reports]}, indent=1, default=plain)


def write_json(path: Path, reports: list[Report], device: str) -> None:
    """Write reports with every number they hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(reports, device))


def plain(value: object) -> object:
    """A number of NumPy or torch as Python's own."""
    return value.item() if hasattr(value, "item") else str(value)


def machine(device: str = "cpu") -> str:
    """One line that says what the figures were measured on."""
    what = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return f"Machine: {what}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}, Python {platform.python_version()}."


def _processor() -> str:
    """The processor's name; Linux tells it in a file only."""
    table = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in table.read_text().splitlines() if line.startswith("model name")]
        if table.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def load(path: Path, device: str = "cpu") -> Tensor:
    """A picture as a plate (1, H, W, 3)."""
    return read_image(path).to(device)


def fit_photo(pipe: FacePipeline, path: Path, options: Options, **settings) -> FacePrior | None:
    """The prior of a photograph, None where no face is found."""
    try:
        return pipe.fit(load(path, options.device), **settings)
    except NoFaceError as reason:
        log.warning("%s: %s", path.name, reason)
        return None


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
