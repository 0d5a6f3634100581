"""Which part of the head a triangle belongs to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dynamicface.conventions import PARTS
from dynamicface.prior.atlas import cylinder


def part_labels(centres: Tensor, group: list[str], lips: Tensor, ears: Tensor, region: Tensor, chin: float) -> Tensor:
    """(T,) index into PARTS from triangle centres (T, 3), ingredient names, masks (T,) and the height under the chin, metres."""
    angle, height = cylinder(centres).unbind(-1)
    angle = angle.abs()
    hairline = 0.078 - 0.055 * ((angle - 0.7) / 0.7).clamp(0, 1) - 0.085 * ((angle - 1.6) / 0.5).clamp(0, 1)
    jaw = chin + 0.045 * (angle / (math.pi / 2)).clamp(0, 1) ** 2
    outside = region < 0.5
    out = torch.full((len(centres),), PARTS.index("skin"))
    out[outside & (height > hairline)] = PARTS.index("scalp")
    out[outside & (height < jaw)] = PARTS.index("neck")
    out[(angle > 1.9) & (height < hairline)] = PARTS.index("neck")
    out[lips > 0.5] = PARTS.index("lips")
    out[ears > 0.5] = PARTS.index("ears")
    for i, name in enumerate(group):
        if name != "skin":
            out[i] = PARTS.index("teeth" if name.startswith("teeth") else name)
    return out
