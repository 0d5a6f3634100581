"""JSON documents that name their schema, so that a file says what it is and an old reader says that it is too old."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import DynamicFaceError

LARGEST = 64 * 2**20
"""Bytes; a longer document is refused before it is parsed."""
_FILE_NAME = re.compile(r"[\w][\w \-]{0,63}")


def read_json(path: str | Path) -> object:
    """Parse a JSON file. Raises DynamicFaceError where it is missing, too large or not JSON."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise DynamicFaceError(f"{path} is larger than {LARGEST // 2**20} MiB, which no file of this kind is. Choose another file.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DynamicFaceError):
            raise
        raise DynamicFaceError(f"{path} cannot be read as JSON ({error}). Choose another file or write it again.") from error


def check_schema(document: object, schema: str, path: str | Path) -> dict:
    """The document itself, if it is an object of this schema. Raises DynamicFaceError."""
    found = document.get("schema") if isinstance(document, dict) else type(document).__name__
    if found != schema:
        raise DynamicFaceError(f"{path} is not of the expected kind: its schema is {found!r}, expected {schema!r}.")
    return document


def write_json(path: str | Path, document: Mapping) -> None:
    """Write a document readably and in the given order; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def number(value: object, low: float, high: float, what: str) -> float:
    """A finite number between low and high. Raises DynamicFaceError that names `what`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise DynamicFaceError(f"{what} is {value!r}; expected a number from {low:g} to {high:g}.")
    return float(value)


def file_in(folder: str | Path, name: str, ending: str) -> Path:
    """The path of a file the artist named, which never leaves its folder. Raises DynamicFaceError on other names."""
    if not _FILE_NAME.fullmatch(name):
        raise DynamicFaceError(f"{name!r} cannot be a file name here; use up to 64 letters, digits, spaces, - and _.")
    return Path(folder) / f"{name}{ending}"
