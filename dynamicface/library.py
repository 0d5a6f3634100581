"""A library of one actor's expressions: every preset at several intensities from one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import plate_of
from .images import sample_crops
from .io.presets import Preset, apply_preset
from .pipeline import render_composite
from .prior.estimate import select_frames
from .prior.geometry import face_crop
from .prior.head import HeadModel
from .sheet import contact_sheet
from .types import FacePrior

_TILE, _TILE_ZOOM = 192, 1.5  # the contact sheet's pictures: px, and how close they are
_COLUMNS = 6


@dataclass(frozen=True)
class ExpressionLibrary:
    """N pictures of one face and what each shows."""

    pictures: Tensor  # (N, S, S, 3) crops, or (N, H, W, C) whole plates
    names: tuple[str, ...]  # such as "smile 0.50"
    sheet: Tensor  # (1, h, w, 3) all of them, small, with their names


def render_library(
    prior: FacePrior,
    head: HeadModel,
    presets: Sequence[Preset],
    intensities: Sequence[float] = (1.0,),
    *,
    size: int = 0,
    zoom: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> ExpressionLibrary:
    """Render presets x intensities from a prior's first frame.

    size: side of square face crops in pixels; 0 gives whole plates. zoom: how close the crops are, as in :func:`face_crop`.
    progress(done, total).
    """
    plate_of(prior)
    still = select_frames(prior, torch.zeros(1, dtype=torch.long, device=prior.expression.device))
    crop = face_crop(still, size, zoom).matrix if size else None
    close = face_crop(still, _TILE, _TILE_ZOOM).matrix
    pictures, names, tiles = [], [], []
    wanted = [(preset, intensity) for preset in presets for intensity in intensities]
    for preset, intensity in wanted:
        picture, _ = render_composite(apply_preset(still, preset, intensity), head)
        pictures.append(picture if crop is None else _cut(picture, crop, size))
        tiles.append(_cut(picture, close, _TILE)[0])
        names.append(preset.name if len(intensities) == 1 else f"{preset.name} {intensity:.2f}")
        if progress is not None:
            progress(len(names), len(wanted))
    columns = len(intensities) if len(intensities) > 1 else _COLUMNS
    rows = [slice(start, start + columns) for start in range(0, len(names), columns)]
    sheet = contact_sheet([tiles[row] for row in rows], [names[row] for row in rows])
    return ExpressionLibrary(torch.cat(pictures), tuple(names), sheet)


def _cut(picture: Tensor, matrix: Tensor, size: int) -> Tensor:
    """(1, size, size, 3), the border of the plate repeated."""
    return sample_crops(picture[..., :3], matrix, size).permute(0, 2, 3, 1)
