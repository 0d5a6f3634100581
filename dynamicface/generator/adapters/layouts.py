"""Layouts: every tensor name of a kind of file, with its shape in terms of a few sizes, as data in `layouts.json`.

A shape is a list of numbers and sizes: "8c" is eight times c. Sizes: m the U-Net's first width (320), t the prompt's width (768), p the
frames a temporal layer knows (32), x PersonaLive's expression code (16), e the identity embedding (512), q its queries (77), r the rank
(128); i, o and c are widths of one module. So a file is checked whole, and files of a smaller network of the same build are understood too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Dim = tuple[int, str]  # (factor, size), size "" = a plain number
_DIM = re.compile(r"(\d*)([a-z]?)")


@dataclass(frozen=True)
class Layout:
    """One kind of file, or of part of a file."""

    name: str
    what: str  # in a sentence: "a guider of the published conv stack"
    shapes: Mapping[str, tuple[Dim, ...]]  # by tensor name
    optional: tuple[str, ...]  # beginnings of names that some files leave out
    sha256: str  # of all names and shapes at the published sizes, sorted, one a line: "name 320x4x3x3"
    sizes: Mapping[str, int]  # as published

    @property
    def required(self) -> frozenset[str]:
        """Names without which it is not this layout."""
        return frozenset(name for name in self.shapes if not name.startswith(self.optional))

    def at(self, sizes: Mapping[str, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shapes in numbers; sizes that are not given are as published."""
        known = {**self.sizes, **(sizes or {})}
        return {name: tuple(factor * known.get(size, 1) for factor, size in shape) for name, shape in self.shapes.items()}

    def parameters(self) -> int:
        """How many numbers a published file of this layout holds, without what is optional."""
        shapes = self.at()
        return sum(math.prod(shapes[name]) for name in self.required)


@cache
def layouts() -> dict[str, Layout]:
    """Every known layout by name."""
    document = json.loads(Path(__file__).with_name("layouts.json").read_text(encoding="utf-8"))
    rows = document["layouts"].items()
    return {
        name: Layout(name, row["what"], dict(_expand(row["groups"])), tuple(row["optional"]), row["sha256"], document["sizes"])
        for name, row in rows
    }


def _expand(groups: Iterable[dict]) -> Iterable[tuple[str, tuple[Dim, ...]]]:
    """Names and shapes of groups: each group's tensors at each of its places, with that place's widths put in."""
    for group in groups:
        names = group["widths"].split()
        for place, widths in group["at"].items():
            own = dict(zip(names, map(_dim, widths.split()), strict=True))
            for key, shape in group["keys"].items():
                dims = (_dim(text) for text in shape.split())
                yield f"{place}.{key}" if place else key, tuple((f * own[s][0], own[s][1]) if s in own else (f, s) for f, s in dims)


def _dim(text: str) -> Dim:
    factor, size = _DIM.fullmatch(text).groups()
    return int(factor or 1), size
