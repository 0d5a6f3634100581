"""The face's regions, by which expressions are scaled, and moving an expression towards another one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .conventions import ARKIT_NAMES
from .errors import DynamicFaceError
from .types import FacePrior

_STEMS = {
    "brows": ("brow",),
    "eyes": ("eye", "cheekSquint"),
    "mouth": ("mouth", "noseSneer", "cheekPuff", "tongue"),
    "jaw": ("jaw",),
}
REGIONS: dict[str, tuple[str, ...]] = {
    region: tuple(name for name in ARKIT_NAMES if name.startswith(stems)) for region, stems in _STEMS.items()
}
"""ARKit channels of each region; every channel is in one. The gaze belongs to the eyes, the nose to the mouth."""

STRONGEST = 1.5
"""Largest coefficient of a channel."""


def region_weights(scale: Mapping[str, float] | None, like: Tensor) -> Tensor:
    """(52,) weight of each channel from a weight per region; regions that are not named weigh 1. Raises DynamicFaceError."""
    unknown = sorted(set(scale or ()) - REGIONS.keys())
    if unknown:
        raise DynamicFaceError(f"No region is called {', '.join(unknown)}. There are: {', '.join(REGIONS)}.")
    weights = torch.ones(len(ARKIT_NAMES), dtype=like.dtype, device=like.device)
    for region, weight in (scale or {}).items():
        weights[[ARKIT_NAMES.index(name) for name in REGIONS[region]]] = weight
    return weights


def move_expression(
    prior: FacePrior,
    expression: Tensor,
    gaze: Tensor | None = None,
    *,
    amount: float = 1.0,
    regions: Mapping[str, float] | None = None,
    add: bool = False,
) -> FacePrior:
    """Move a prior towards an expression (F or 1, 52) and gaze (F or 1, 2, 2) radians, or with `add` by them.

    amount: 0 hands on the very same prior, 1 arrives, above 1 goes beyond. regions: a factor on amount for each of `REGIONS`.
    """
    weight = amount * region_weights(regions, prior.expression)
    if not weight.any():
        return prior
    step = expression if add else expression - prior.expression
    moved = (prior.expression + weight * step).clamp(0, STRONGEST)
    if gaze is None:
        return prior.replace(expression=moved)
    turn = gaze if add else gaze - prior.gaze
    return prior.replace(expression=moved, gaze=prior.gaze + weight[ARKIT_NAMES.index("eyeWideLeft")] * turn)
