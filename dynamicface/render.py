"""The 3D head itself, textured and lit: the quickest look at a prior, without its plate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import PARTS, linear_to_srgb
from .filters import sample_each
from .prior.estimate import select_frames
from .prior.geometry import face_crop, pose_head
from .prior.head import HeadModel
from .types import FacePrior
from .windows import map_windows

_BACKDROP = 0.045  # linear grey
_DARKEST = 0.15  # openness of the deepest corner of the mouth
HIDDEN_PARTS = ("inner_mouth", "teeth", "tongue")
_OVERSAMPLING = 2
_WINDOW = 2  # frames rendered at once; keeps memory flat over a clip


@torch.inference_mode()
def render_prior(prior: FacePrior, head: HeadModel, size: int = 512) -> Tensor:
    """Pictures (F, size, size, 3), sRGB, of the prior's head in its working crop, anti-aliased. Light may take them beyond 1.

    A prior without a texture wears the mean head's.
    """
    device = prior.translation.device
    return torch.cat(map_windows(lambda part: _render(select_frames(prior, part), head, size), len(prior), _WINDOW, device))


def _render(prior: FacePrior, head: HeadModel, size: int) -> Tensor:
    """:func:`render_prior` of a few frames."""
    posed = pose_head(prior, head, face_crop(prior, size * _OVERSAMPLING))
    raster = posed.raster
    albedo = head.albedo if prior.identity.albedo is None else prior.identity.albedo
    shade = raster.gather(posed.shade(prior.illumination))
    uv, openness = raster.gather(torch.cat([head.uv, head.ambient_occlusion[:, None]], 1)).split((2, 1), 1)
    hidden = torch.isin(posed.covered_part, torch.tensor([PARTS.index(p) for p in HIDDEN_PARTS], device=shade.device))[:, None]
    shade = torch.where(hidden, shade.mean(1, keepdim=True) * openness.clamp(_DARKEST, 1), shade)
    colour = sample_each(albedo[None], uv * albedo.shape[-1], raster.frame)
    picture = raster.scatter(colour * shade, _BACKDROP).permute(0, 3, 1, 2)
    return linear_to_srgb(F.avg_pool2d(picture, _OVERSAMPLING)).permute(0, 2, 3, 1)
