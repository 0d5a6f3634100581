"""The background of a stabilised shot: a matte that holds still, and what may be taken from the plate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..filters import blur, dilate
from .fuse import Neighbour

BACKGROUNDS = ("leave", "plate", "generated")
"""What lies outside of the person: left as it is; the plate itself; generated, so that it is filtered over time like the face."""

_SNAP = 1e-3  # a matte this close to 0 or 1 is 0 or 1
_NEAR = 1 / 64  # of the picture's shorter side around the person: farther off, what a neighbour's matte says is an error of the flow


def steady_matte(matte: Tensor, neighbours: Sequence[Neighbour]) -> Tensor:
    """A person matte (1, 1, H, W) averaged with its neighbours' mattes along the flow, then over a pixel around; 0 away from the person."""
    total, mass = matte, torch.ones_like(matte)
    for other in neighbours:
        total, mass = total + other.sure * other.picture, mass + other.sure
    near = dilate((matte > _SNAP).to(matte), max(round(_NEAR * min(matte.shape[-2:])), 2))
    smooth = blur(total / mass, 1, 1) * near
    smooth = torch.where(smooth > 1 - _SNAP, 1.0, smooth)
    return torch.where(smooth < _SNAP, 0.0, smooth)


def to_plate(picture: Tensor, plate: Tensor, person: Tensor, amount: float) -> Tensor:
    """The plate outside of the person; where the person is 0 and amount 1 it is the plate's to the bit."""
    keep = amount * (1 - person)
    mixed = torch.where(keep > 0, torch.lerp(picture, plate, keep), picture)
    return torch.where(keep >= 1, plate, mixed)


def explained(picture: Tensor, plate: Tensor, person: Tensor | None) -> tuple[Tensor, Tensor]:
    """What flow follows and what is filtered over time, for a frame whose background was generated.

    The plate explains the person's motion, not the background's: there the result's own picture moves, with the camera. Returns the guide
    (plate inside, result outside) and the difference of the result from what the plate explains. Without a matte the plate explains all.
    """
    if person is None:
        return plate, picture - plate
    return torch.lerp(picture, plate, person), picture - person * plate
