"""FusionTVO while a diffusion model samples: what is done to the noisy clip before a step, and to the predicted clean clip after it.

- Total variation along the plate's flow, on the predicted clean latents and never on noisy ones, in the last half of sampling:
  minimise 1/2 |x - x0|^2 + weight * sum of huber(x_i - warp(x_j)) over neighbours i, j where the flow is sure.
- The background's latents are replaced by the plate's at each step, with one fixed noise for the whole clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DynamicFaceError, ImageError
from ..filters import blur, dilate
from .flow import PairFlow, warp

_ROUNDS = 5  # of the minimisation; each carries the influence of one more neighbour
_HUBER = 0.2  # of the latents' standard deviation: larger differences are real changes and are pulled less
_BEGIN = 0.5  # share of the sampling steps after which total variation is taken out


@dataclass(frozen=True)
class SamplingDials:
    """How much is done while sampling; all at 0 changes nothing."""

    length: int = 0  # frames per segment, 0 = the whole clip at once
    overlap: int = 4  # frames shared by neighbouring segments
    anchor: int = -1  # frame that every segment also sees, -1 = none
    variation: float = 0.0  # 0..1, weight of the total variation
    shared_noise: float = 0.0  # 0..1, how much of the noise rides on the plate's motion

    def __post_init__(self) -> None:
        for name in ("variation", "shared_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise DynamicFaceError(f"The dial {name!r} is {getattr(self, name)}; choose a value from 0 to 1.")
        if self.length and not 0 <= self.overlap < self.length:
            raise DynamicFaceError(
                f"Segments of {self.length} frames cannot overlap by {self.overlap}; choose an overlap from 0 to {self.length - 1}."
            )


def variation_weight(weight: float, done: float) -> float:
    """The weight at a point of sampling, done 0..1: 0 in the first half, then from its full value down to 0 at the end."""
    return 0.0 if done < _BEGIN else 4 * weight * (1 - done) / (1 - _BEGIN)


@torch.inference_mode()
def smooth_along_flow(clean: Tensor, flow: PairFlow, weight: float, mask: Tensor | None = None) -> Tensor:
    """Predicted clean latents (F, C, h, w) with less variation along the flow of F - 1 pairs; mask (F, 1, h, w) = where.

    Jacobi rounds of iteratively reweighted least squares: each frame is moved to the weighted mean of its own prediction and of its
    neighbours carried to it, so that no step size has to be chosen and any weight is stable.
    """
    if weight <= 0 or len(clean) < 2:
        return clean
    flow = flow.resized(tuple(clean.shape[-2:]))
    limit = _HUBER * clean.std().clamp_min(1e-6)
    smooth = clean
    for _ in range(_ROUNDS):
        total, mass = clean.clone(), torch.ones_like(clean[:, :1])
        for to, carried, seen in (
            (slice(1, None), warp(smooth[:-1], flow.backward), flow.backward_seen),
            (slice(None, -1), warp(smooth[1:], flow.forward), flow.forward_seen),
        ):
            residual = (carried - smooth[to]).square().mean(1, keepdim=True).sqrt()
            pull = weight * seen * (limit / residual.clamp_min(1e-12)).clamp_max(1)
            pull = pull if mask is None else pull * mask[to]
            total[to] += pull * carried
            mass[to] += pull
        smooth = total / mass
    return smooth


def latent_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(F, 1, h, w) of a face mask (F, H, W) on the latents' grid: every cell the face touches, grown and feathered outwards."""
    grow = max(max(size) // 64, 1)
    touched = F.adaptive_max_pool2d(mask[:, None].float(), size)
    grown = dilate(touched, 2 * grow)
    return torch.maximum(blur(grown, grow, 1), touched)


def check_clip(latents: Tensor, frames: int) -> None:
    """Raise ImageError unless latents are a batch of as many frames as the plate has."""
    if latents.dim() != 4:
        raise ImageError(
            f"FusionTVO needs latents (frames, channels, h, w), the frames being the batch; these have {latents.dim()} dimensions. "
            "For video models with a time axis use ComfyUI's own context windows."
        )
    if len(latents) != frames:
        raise ImageError(f"The latents hold {len(latents)} frames, the plate has {frames}. Connect the plate the latents were made for.")
