"""Every measurement in one run: python -m dynamicface bench --out DIR (in the repository also: python -m benchmarks)."""

from __future__ import annotations

import argparse
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

from dynamicface import FacePipeline

from . import history, targets
from .common import Data, Options, Report, arguments, machine, prepare, run, to_json, write_json

log = logging.getLogger("benchmarks")

MEASUREMENTS = {
    "latency": "Cold start and single frames",
    "speed": "Speed by stage",
    "sampling": "Embedded generator: cost",
    "generator": "Embedded generator: quality",
    "mixture": "Mixture of guiders",
    "tvo": "FusionTVO",
    "leakage": "Leakage between factors",
    "yaw": "Pose error by yaw",
    "jitter": "Jitter",
    "shot": "A long shot",
    "occlusion": "Occluders",
    "rivals": "Side by side with simple methods",
    "swap": "Swap",
    "expression": "Expression",
    "fit": "Fit",
    "albedo": "Albedo and light",
    "rig": "Rig for other programs",
    "synthetic": "Synthetic faces",
}
TOOLS = "pip install scikit-image scipy opencv-python-headless diffusers transformers"
QUICK = 2
_PUBLISHED = """## What others publish

Read in their papers and pages, measured there on other data, by other judges, on other machines; never to be compared with a number above.

| what | as published |
| --- | --- |
| identity retrieval of swaps on FaceForensics++, % | HifiFace 98.5, FaceDancer 98.8, AlphaFace 98.8, DynamicFace (arXiv 2501.08553) 99.2 |
| time per frame | LivePortrait 13-15 ms (RTX 4090, the model alone); PersonaLive 15.8 frames/s (4 steps) |
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen measurements; prints Markdown or JSON, writes report.md and report.json. Exit code 1 where one failed."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} samples each: shows that everything runs, not how good it is")
    parser.add_argument("--out", type=Path, help="folder for report.md and report.json")
    parser.add_argument(
        "--record", action="store_true", help=f"append the figures to {history.FILE.name}, for `python -m benchmarks.history`"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"no measurement is called {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    prepare()
    pipe = FacePipeline.load(args.device)
    options = Options(Data(args.data), QUICK if args.quick and args.limit is None else args.limit, args.device, args.quick)
    head = f"{machine(args.device)}\n\n{_how(args, options)}"
    say = print if not args.json else lambda *_, **__: None
    say(head, flush=True)
    reports: list[Report] = []
    started = history.now()
    for name in args.names or MEASUREMENTS:  # everything is written as it comes: a run that is stopped leaves what it found
        reports.append(_measured(name, pipe, options))
        say(f"\n{reports[-1].markdown()}", flush=True)
        if args.out:
            write_json(args.out / "report.json", reports, args.device)
            (args.out / "report.md").write_text(document(head, reports), encoding="utf-8")
        if args.record:
            history.append(reports, args.device, args.quick, started)
    say(f"\n{_targets(reports).markdown()}")
    if args.json:
        print(to_json(reports, args.device))
    return int(any(report.skipped.startswith(_FAILED) for report in reports))


def document(head: str, reports: list[Report]) -> str:
    """The whole report as Markdown."""
    parts = ["# Benchmark", head, f"## Targets\n\n{_targets(reports).markdown()}"]
    return "\n\n".join([*parts, *(report.markdown().strip() for report in reports), _PUBLISHED.strip()]) + "\n"


def _how(args: argparse.Namespace, options: Options) -> str:
    """How the report was made, and how to make another."""
    command = " ".join(["python -m dynamicface bench", *args.names, *(["--quick"] if args.quick else [])])
    where = "the data folder" if options.data.root.is_dir() else "photographs and clips out of registry packages"
    quick = f" A quick run of {options.limit} samples each shows that everything runs, not how good it is." if args.quick else ""
    return (
        f"Made by `{command} --out DIR`; pictures from {where}.{quick}\n\n"
        "In the repository `python dev.py bench` does the same; `--data DIR` measures a folder of your own, `--record` appends the figures "
        "to the history, and `python -m benchmarks.history` prints what got worse beyond the noise."
    )


def _targets(reports: list[Report]) -> targets.Table:
    found = {figure.key: (figure, report.command) for report in reports for figure in report.figures}
    missing = {report.module: report.skipped or _WITHOUT for report in reports}
    return targets.table(found, missing | {key: reason for report in reports for key, reason in report.missing.items()})


_FAILED = "the measurement failed: "
_WITHOUT = "its measurement ran without it; its tables say why"


def _measured(name: str, pipe: FacePipeline, options: Options) -> Report:
    """One measurement; its module is imported only now, and what stops it, its printing included, stops no other."""
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        missing = error.name == f"{__package__}.{name}"
        reason = "this version has no such measurement" if missing else f"{error.name} is not installed. The measurements need: {TOOLS}"
        return Report(MEASUREMENTS[name], skipped=reason, module=name)
    try:
        report = run(MEASUREMENTS[name], module.measure, pipe, options)
        report.markdown(), to_json([report], options.device)
        return report
    except (Exception, SystemExit) as error:
        log.exception("%s", name)
        return Report(MEASUREMENTS[name], skipped=f"{_FAILED}{type(error).__name__}: {error}", module=name)
