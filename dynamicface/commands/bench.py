"""python -m dynamicface bench: hand over to the benchmarks, which lie beside the library in the repository and are not installed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import DynamicFaceError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def register(commands: argparse._SubParsersAction) -> None:
    """For the list of commands only: `run` gets the arguments as they are."""
    commands.add_parser("bench", help="measure (in the repository); further arguments: bench --help", add_help=False)


def run(arguments: Sequence[str]) -> int:
    """Run the benchmarks of the repository this library lies in, whatever folder the command is called in; returns the exit code.

    Raises:
        DynamicFaceError: the library was installed without its repository.
    """
    if "benchmarks" not in sys.modules:
        _import_package(BENCHMARKS)
    return importlib.import_module("benchmarks.report").main(list(arguments)) or 0


def _import_package(folder: Path) -> None:
    """Make a folder importable as a package without putting all that lies beside it on the path."""
    start = folder / "__init__.py"
    if not start.is_file():
        raise DynamicFaceError(
            f"The benchmarks are not part of the installed library: there is no folder {folder}. "
            "Run this command with the library of a DynamicFace repository: python dev.py bench."
        )
    spec = importlib.util.spec_from_file_location(folder.name, start, submodule_search_locations=[str(folder)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = package
    spec.loader.exec_module(package)
