"""Two versions of a shot side by side, wiped across one another, or as a map of where they differ."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DynamicFaceError
from .checks import same_shape

MODES = ("wipe", "side by side", "difference")
_LINE = (1.0, 0.8, 0.1)


@torch.inference_mode()
def compare(a: Tensor, b: Tensor, mode: str = "wipe", position: float = 0.5, gain: float = 8.0) -> Tensor:
    """Pictures (F, H, W, 3) that show how a and b (F, H, W, 3) differ.

    mode: "wipe" shows a to the left and b to the right of a line at `position` 0..1; "side by side" puts a left of b (F, H, 2 W, 3);
    "difference" is the largest difference of the channels times `gain` as a heat map: black = equal, red, yellow, white = 1 / gain or more.

    Raises:
        ImageError: a and b differ in shape.
        DynamicFaceError: no such mode.
    """
    same_shape(a, b, ("picture A", "picture B"))
    if mode == "side by side":
        return torch.cat([a, b], 2)
    if mode == "difference":
        return _heat((a - b).abs().amax(-1) * gain)
    if mode != "wipe":
        raise DynamicFaceError(f"There is no comparison called {mode!r}; there are {', '.join(MODES)}.")
    width = a.shape[2]
    edge = round(position * width)
    out = torch.cat([a[:, :, :edge], b[:, :, edge:]], 2)
    if 0 < edge < width:
        thick = max(width // 400, 1)
        out[:, :, max(edge - thick, 0) : edge + thick] = out.new_tensor(_LINE)
    return out


def _heat(amount: Tensor) -> Tensor:
    """(..,) 0..1 to (.., 3) over black, red, yellow and white."""
    return (3 * amount[..., None] - amount.new_tensor([0.0, 1.0, 2.0])).clamp(0, 1)
