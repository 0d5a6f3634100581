"""The plate's promise: what changed where nothing may change."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ImageError
from .checks import same_shape


@torch.inference_mode()
def outside_difference(result: Tensor, plate: Tensor, mask: Tensor) -> Tensor:
    """(F,) largest difference of any channel of result and plate (F, H, W, C) where the mask (F, H, W) is 0; 0 = identical to the bit."""
    same_shape(result, plate, ("result", "plate"))
    if mask.shape[1:] != plate.shape[1:3] or len(mask) not in (1, len(plate)):
        found, wanted = (" x ".join(map(str, tuple(shape))) for shape in (mask.shape, plate.shape[:3]))
        raise ImageError(f"The mask is {found} (frames x height x width), the plate {wanted}. Give one mask per frame in the plate's size.")
    difference = (result - plate).abs().amax(-1)
    return torch.where(mask > 0, 0.0, difference).amax((1, 2))
