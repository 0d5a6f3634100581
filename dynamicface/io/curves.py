"""Keyframes of dials, ARKit channels and head pose as JSON.

{"schema": "dynamicface.curves.1",
 "curves": {"smile": [[0, 0, "smooth"], [12, 0.8], [30, 0.8, "hold"], [31, 0]], "yaw": [[0, -10], [48, 10]]}}

A key is [frame, value] or [frame, value, how], how the value goes on from this key to the next: "linear" (the default), "smooth" (eases
out and in) or "hold" (stays, then jumps). Before the first and after the last key the value is held. A plain object of curves is read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..edit import SETTINGS
from ..errors import DynamicFaceError
from .documents import check_schema, number, read_json, write_json

SCHEMA = "dynamicface.curves.1"
EASES = ("linear", "smooth", "hold")
CURVE_NAMES: tuple[str, ...] = (*SETTINGS["expression"], *SETTINGS["pose"])
"""What can be keyed."""
_LAST_FRAME = 1_000_000
_RANGE = {"intensity": (0.0, 2.0)} | dict.fromkeys(SETTINGS["pose"], (-90.0, 90.0))


class Key(NamedTuple):
    """A value at a frame, and how it goes on to the next key."""

    frame: float
    value: float
    ease: str = "linear"


@dataclass(frozen=True)
class Curves:
    """Keys in order of time, by the name of what they move."""

    keys: Mapping[str, tuple[Key, ...]]

    def __len__(self) -> int:
        """Frames up to and with the last key."""
        return int(max((keys[-1].frame for keys in self.keys.values()), default=0)) + 1

    def sample(self, frames: Tensor) -> dict[str, Tensor]:
        """Values (F,) of every curve at frames (F,)."""
        return {name: _interpolate(keys, frames) for name, keys in self.keys.items()}


def parse_curves(document: object, source: str | Path = "the keyframes") -> Curves:
    """Curves from parsed JSON. Raises DynamicFaceError that names the curve and the key."""
    if isinstance(document, dict) and "schema" not in document and "curves" not in document:
        document = {"schema": SCHEMA, "curves": document}
    curves = check_schema(document, SCHEMA, source).get("curves")
    if not isinstance(curves, dict):
        raise DynamicFaceError(f"{source} has no curves; expected an object such as {{'smile': [[0, 0], [24, 1]]}}.")
    unknown = sorted(set(map(str, curves)) - set(CURVE_NAMES))
    if unknown:
        raise DynamicFaceError(f"{source} moves what cannot be keyed: {', '.join(unknown)}. There are: {', '.join(CURVE_NAMES)}.")
    return Curves({name: _keys(name, keys, source) for name, keys in curves.items()})


def load_curves(path: str | Path) -> Curves:
    """Read keyframes. Raises DynamicFaceError."""
    return parse_curves(read_json(path), path)


def save_curves(curves: Curves, path: str | Path) -> None:
    """Write keyframes."""
    rows = {name: [list(key) if key.ease != "linear" else [key.frame, key.value] for key in keys] for name, keys in curves.keys.items()}
    write_json(path, {"schema": SCHEMA, "curves": rows})


def _keys(name: str, rows: object, source: str | Path) -> tuple[Key, ...]:
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise DynamicFaceError(f"The curve {name} of {source} has no keys; expected [[frame, value], ..].")
    keys = []
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) not in (2, 3) or (len(row) == 3 and row[2] not in EASES):
            raise DynamicFaceError(
                f"A key of {name} in {source} is {row!r}; expected [frame, value] or [frame, value, {' | '.join(EASES)}]."
            )
        low, high = _RANGE.get(name, (-1.5, 1.5))
        frame = number(row[0], 0, _LAST_FRAME, f"A frame of {name} in {source}")
        keys.append(Key(frame, number(row[1], low, high, f"A value of {name} in {source}"), *row[2:]))
    keys.sort(key=lambda key: key.frame)
    twice = [str(int(a.frame)) for a, b in pairwise(keys) if a.frame == b.frame]
    if twice:
        raise DynamicFaceError(f"The curve {name} of {source} has two keys at frame {twice[0]}; keep one.")
    return tuple(keys)


def _interpolate(keys: Sequence[Key], frames: Tensor) -> Tensor:
    at, value = (frames.new_tensor(column) for column in ([k.frame for k in keys], [k.value for k in keys]))
    ease = torch.tensor([EASES.index(k.ease) for k in keys], device=frames.device)
    after = torch.searchsorted(at, frames.contiguous(), right=True)
    low, high = (after - 1).clamp_min(0), after.clamp_max(len(keys) - 1)
    share = ((frames - at[low]) / (at[high] - at[low]).clamp_min(1e-6)).clamp(0, 1)
    share = torch.where(ease[low] == 1, share * share * (3 - 2 * share), torch.where(ease[low] == 2, 0.0, share))
    return torch.lerp(value[low], value[high], share)
