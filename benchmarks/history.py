"""The figures of past runs, and what got worse between two of them.

    python -m dynamicface bench --record      adds a line to history.jsonl
    python -m benchmarks.history              compares the last run with the one before on the same processor and of the same kind
    python -m benchmarks.history A B          compares two runs: numbers of lines (-1 = the last), or starts of commits

A figure got worse when it moved in the bad direction by more than its noise: three standard deviations, and at least half a percent of its
value. The deviation is the larger of what either run saw in its repeats and of what runs of one commit on one processor differ by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from .common import Report, Table, machine

FILE = Path(__file__).with_name("history.jsonl")
_SIGMAS, _LEAST = 3.0, 0.005


@dataclass(frozen=True)
class Run:
    """One line of the history."""

    when: str  # ISO, UTC
    commit: str
    machine: str
    quick: bool
    figures: dict[str, dict]  # by key: value, unit, better, data, spread

    @property
    def title(self) -> str:
        return f"{self.commit[:9]} of {self.when[:16]}{' (quick)' * self.quick}"


def now() -> str:
    """The time a run is known by."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def append(reports: list[Report], device: str, quick: bool, when: str, file: Path | None = None) -> None:
    """Add a run to the history, or what it has found since it was last added; one without any figure is left out."""
    figures, file = {}, file or FILE
    for report in reports:
        for figure in report.figures:
            figures[figure.key] = {name: value for name, value in asdict(figure).items() if name != "key"}
    if figures:
        others = [run for run in read(file) if run.when != when]
        runs = [*others, Run(when, _commit(), machine(device), quick, figures)]
        file.write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs), encoding="utf-8")


def read(file: Path = FILE) -> list[Run]:
    """Every run, oldest first."""
    if not file.is_file():
        return []
    return [Run(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def noise(key: str, runs: Sequence[Run], like: Run) -> float:
    """Standard deviation of a figure between runs of one commit on the processor of `like`, over all commits; 0 where none was repeated."""
    repeated = defaultdict(list)
    for run in runs:
        if key in run.figures and (run.machine, run.quick) == (like.machine, like.quick):
            repeated[run.commit].append(run.figures[key]["value"])
    spreads = [statistics.pvariance(values) * len(values) / (len(values) - 1) for values in repeated.values() if len(values) > 1]
    return statistics.fmean(spreads) ** 0.5 if spreads else 0.0


def compare(old: Run, new: Run, runs: Sequence[Run]) -> Table:
    """Every figure both runs have, what got worse first."""
    rows = []
    for key in sorted(old.figures.keys() & new.figures.keys()):
        before, after = old.figures[key], new.figures[key]
        change = after["value"] - before["value"]
        deviation = max(before["spread"], after["spread"], noise(key, runs, new))
        limit = max(_SIGMAS * deviation, _LEAST * abs(before["value"]))
        worse = change if after["better"] == "lower" else -change
        verdict = "WORSE" if worse > limit else "better" if worse < -limit else ""
        rows.append((verdict, key, before["value"], after["value"], limit, after["unit"], after["data"]))
    rows.sort(key=lambda row: ("WORSE", "better", "").index(row[0]))
    gone = sorted(old.figures.keys() - new.figures.keys())
    notes = [f"No longer measured: {', '.join(gone)}."] if gone else []
    if old.machine != new.machine:
        notes.append("The runs are from different processors: speed and memory cannot be compared.")
    columns = ("", "figure", "before", "after", "noise", "unit", "data")
    return Table(f"From {old.title} to {new.title}", columns, rows, " ".join(notes))


def find(name: str, runs: Sequence[Run]) -> Run:
    """A run by its line's number or the start of its commit (the last run of it). Raises ValueError where there is none."""
    if name.lstrip("-").isdecimal() and len(name) < 7:
        if -len(runs) <= int(name) < len(runs):
            return runs[int(name)]
    else:
        for run in reversed(runs):
            if run.commit.startswith(name):
                return run
    raise ValueError(f"There is no run {name!r} in the history of {len(runs)}.")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; exit code 1 where something got worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="two runs, or none")
    parser.add_argument("--file", type=Path, default=FILE, help="the history (default: the repository's)")
    args = parser.parse_args(argv)
    runs = read(args.file)
    try:
        if args.runs and len(args.runs) != 2:
            raise ValueError(f"Two runs are compared, but {len(args.runs)} was given.")
        old, new = (find(name, runs) for name in args.runs) if args.runs else _last_two(runs)
    except ValueError as reason:
        parser.error(str(reason))
    table = compare(old, new, runs)
    print(table.markdown())
    return int(any(row[0] == "WORSE" for row in table.rows))


def _last_two(runs: Sequence[Run]) -> tuple[Run, Run]:
    new = runs[-1] if runs else None
    like = [run for run in runs[:-1] if new and (run.machine, run.quick) == (new.machine, new.quick)]
    if not like:
        raise ValueError(
            "The history has no two runs of one kind from one processor yet; add one with `python -m dynamicface bench --record`."
        )
    return like[-1], new


def _commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=FILE.parent, capture_output=True, text=True)
    except OSError:  # no git here
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
