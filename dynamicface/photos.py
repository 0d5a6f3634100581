"""Photos of different sizes as one batch of frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import as_plate

LONGEST_SIDE = 2048


def stack_photos(photos: Sequence[Tensor]) -> Tensor:
    """Photos (1, H, W, C) of any sizes as one plate (F, H, W, 3).

    Photos of one size are only joined. Otherwise each keeps its pixels (photos longer than LONGEST_SIDE are scaled down to it) and is
    centred on a black canvas as large as the largest: the optical centre of every photo stays the centre of the plate, which is what the
    camera model assumes, so the fit is the one each photo would get alone.
    """
    plates = [as_plate(photo) for photo in photos]
    if len({plate.shape[1:3] for plate in plates}) == 1:
        return torch.cat(plates)
    plates = [_at_most(plate, LONGEST_SIDE) for plate in plates]
    height, width = (max(plate.shape[axis] for plate in plates) for axis in (1, 2))
    return torch.cat([_centred(plate, height, width) for plate in plates])


def _at_most(plate: Tensor, side: int) -> Tensor:
    longest = max(plate.shape[1:3])
    if longest <= side:
        return plate
    size = [round(n * side / longest) for n in plate.shape[1:3]]
    return F.interpolate(plate.permute(0, 3, 1, 2), size, mode="area").permute(0, 2, 3, 1)


def _centred(plate: Tensor, height: int, width: int) -> Tensor:
    top, left = (height - plate.shape[1]) // 2, (width - plate.shape[2]) // 2
    return F.pad(plate, (0, 0, left, width - plate.shape[2] - left, top, height - plate.shape[1] - top))
