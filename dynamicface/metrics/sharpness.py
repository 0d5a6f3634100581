"""Sharpness: how much fine detail a picture has."""

from __future__ import annotations

import torch
from torch import Tensor

from ..filters import blur

_LUMA = (0.2126, 0.7152, 0.0722)


def luma(images: Tensor) -> Tensor:
    """Brightness (.., 1) of pictures (.., 3)."""
    return images[..., :3] @ images.new_tensor(_LUMA)[:, None]


@torch.inference_mode()
def detail(images: Tensor, mask: Tensor | None = None) -> Tensor:
    """(F,) RMS of the luma finer than about three pixels, of pictures (F, H, W, 3), over a mask (F, H, W). Grain counts as detail."""
    grey = luma(images).permute(0, 3, 1, 2)
    fine = (grey - blur(grey, 1, 2)).square()[:, 0]
    if mask is None:
        return fine.mean((1, 2)).sqrt()
    return ((fine * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1e-6)).sqrt()


def relative_detail(result: Tensor, plate: Tensor, mask: Tensor | None = None) -> Tensor:
    """(F,) detail of the result over that of the plate: 1 = as sharp as filmed, below 1 = softer, above = harsher or noisier."""
    return detail(result, mask) / detail(plate, mask).clamp_min(1e-6)
