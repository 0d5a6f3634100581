"""Every measurement in one run: python -m benchmarks, or python -m dynamicface bench."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from dynamicface import FacePipeline

from .common import Data, Options, Report, arguments, machine, prepare, run, to_json, write_json

MEASUREMENTS = {"speed": "Speed", "synthetic": "Synthetic faces", "fit": "Fit", "expression": "Expression", "swap": "Swap"}
TOOLS = "pip install scikit-image scipy opencv-python-headless"
QUICK = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen measurements; prints Markdown or JSON, writes report.md and report.json."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} samples each: shows that everything runs, not how good it is")
    parser.add_argument("--out", type=Path, help="folder for report.md and report.json")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"no measurement is called {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    prepare()
    pipe, options = FacePipeline.load(args.device), Options(Data(args.data), QUICK if args.quick else args.limit, args.device)
    say = print if not args.json else lambda *_, **__: None
    say(machine(args.device), flush=True)
    reports = []
    for name in args.names or MEASUREMENTS:
        reports.append(_measured(name, pipe, options))
        say(f"\n{reports[-1].markdown()}", flush=True)
        if args.out:
            write_json(args.out / "report.json", reports, args.device)
            text = "\n".join([machine(args.device) + "\n", *(report.markdown() for report in reports)])
            (args.out / "report.md").write_text(text)
    if args.json:
        print(to_json(reports, args.device))
    return 0


def _measured(name: str, pipe: FacePipeline, options: Options) -> Report:
    """One measurement; its module is imported only now, so that a missing tool stops no other."""
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        return Report(MEASUREMENTS[name], skipped=f"{error.name} is not installed. The measurements need: {TOOLS}")
    return run(MEASUREMENTS[name], module.measure, pipe, options)
