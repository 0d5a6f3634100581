"""How steady a clip is: neighbouring frames compared plainly, and after the motion between them is taken out.

The flow should be that of the plate, not of the result: then what is measured is flicker the plate does not have. flow[i] leads from a
pixel of frame i + 1 back to where it was in frame i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ImageError
from ..tvo.flow import warp
from .ssim import ssim


@torch.inference_mode()
def inter_frame_ssim(clip: Tensor, flow: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """SSIM (F - 1,) of each frame (F, H, W, C) with the one before.

    flow: (F - 1, 2, H, W) px takes the motion out first. mask: (F - 1, H, W) or (F, H, W), where to look; of F masks the later frame's.
    """
    before, after, mask = _pairs(clip, flow, mask)
    return ssim(after, before, mask)


@torch.inference_mode()
def warp_error(clip: Tensor, flow: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Root mean square difference (F - 1,) of each frame (F, H, W, C) from the one before, motion taken out, over the mask.

    The root of the warping error of Lai et al. 2018, so that it reads in picture values; arguments as for `inter_frame_ssim`.
    """
    before, after, mask = _pairs(clip, flow, mask)
    return rms_difference(after, before, mask)


def rms_difference(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """(F,) root mean square difference of pictures (F, H, W, C) under a mask (F, H, W)."""
    squares = (a - b).square().mean(-1)
    if mask is None:
        return squares.mean((1, 2)).sqrt()
    return ((squares * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1e-6)).sqrt()


def _pairs(clip: Tensor, flow: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Every frame but the last, carried to its successor, beside the successors."""
    if len(clip) < 2:
        raise ImageError(f"Neighbouring frames are compared, but the clip has {len(clip)} frame; give at least two.")
    before, after = clip[:-1], clip[1:]
    if flow is not None:
        expected = (len(before), 2, *clip.shape[1:3])
        if tuple(flow.shape) != expected:
            raise ImageError(f"The flow has shape {tuple(flow.shape)}; for this clip it must be {expected}.")
        before = warp(before.permute(0, 3, 1, 2), flow).permute(0, 2, 3, 1)
    return before, after, mask[1:] if mask is not None and len(mask) == len(clip) else mask
