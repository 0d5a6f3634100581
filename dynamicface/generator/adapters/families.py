"""Whose files: one table of what is published for Stable Diffusion 1.5, with licences (`families.json`). Nothing is ever downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from .layouts import layouts

FOLDER = "models/dynamicface"


@dataclass(frozen=True)
class Sampling:
    """How a family's denoising U-Net or temporal layers were trained, in ComfyUI's words."""

    prediction: str  # "v_prediction" or "eps"
    beta_schedule: str  # "sqrt_linear" (evenly spaced betas) or "linear" (evenly spaced roots of betas)
    linear_end: float
    zsnr: bool  # rescaled to zero terminal signal-to-noise ratio


@dataclass(frozen=True)
class Row:
    """One published file."""

    family: str
    file: str
    layout: str  # its main part
    use: str  # what it does here
    licence: str
    commercial: str  # "yes", "no" or "not stated"
    page: str
    guider: str = ""  # the guider whose map is what it was trained on, or nearest to it
    role: str = ""  # of a U-Net: "reference" or "denoising"

    @property
    def size(self) -> str:
        """About how large the file is, from its number of parameters."""
        mega = layouts()[self.layout].parameters() * 4 / 1e6
        return f"about {mega / 1000:.1f} GB (half as fp16)" if mega > 1000 else f"about {mega:.0f} MB"


@cache
def families() -> tuple[tuple[Row, ...], dict[str, Sampling]]:
    """Every known file, and how each family samples."""
    document = json.loads(Path(__file__).with_name("families.json").read_text(encoding="utf-8"))
    rows = tuple(Row(family=name, **family["licence"], **file) for name, family in document["families"].items() for file in family["files"])
    return rows, {name: Sampling(**family["sampling"]) for name, family in document["families"].items() if "sampling" in family}


def row_of(file: str) -> Row | None:
    """The row of a file, told by its own name and, where several families use that name, by its folder's."""
    path = PurePath(file.replace("\\", "/").lower())
    same = [row for row in families()[0] if PurePath(row.file).stem == path.stem]
    folders = set(path.parts[:-1])
    placed = [row for row in same if row.family in folders]
    return placed[0] if placed else same[0] if len(same) == 1 else None


def sampling_of(family: str) -> Sampling | None:
    """How a family samples; None where it has nothing that decides it."""
    return families()[1].get(family)


def missing(need: str, rows: Iterable[Row]) -> str:
    """One message for a file that is not there: what for, and each candidate with folder, size and licence."""
    lines = [
        f"- {FOLDER}/{row.family}/{row.file}, {row.size}, {row.licence}, commercial use: {row.commercial} ({row.page})" for row in rows
    ]
    return "\n".join([f"{need} Any one of these files would do:", *lines])
