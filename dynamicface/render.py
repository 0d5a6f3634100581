"""The 3D head itself, textured and lit: the quickest look at a prior, without its plate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import PARTS, linear_to_srgb
from .filters import sample
from .prior import light
from .prior.geometry import face_crop, pose_head
from .prior.head import HeadModel
from .types import FacePrior

_BACKDROP = 0.045  # linear grey
_DARKEST = 0.15  # openness of the deepest corner of the mouth
HIDDEN_PARTS = ("inner_mouth", "teeth", "tongue")
_OVERSAMPLING = 2


@torch.inference_mode()
def render_prior(prior: FacePrior, head: HeadModel, size: int = 512) -> Tensor:
    """Pictures (F, size, size, 3), sRGB, of the prior's head in its working crop, anti-aliased. Light may take them beyond 1.

    A prior without a texture wears the mean head's.
    """
    posed = pose_head(prior, head, face_crop(prior, size * _OVERSAMPLING))
    raster = posed.raster
    albedo = head.albedo if prior.identity.albedo is None else prior.identity.albedo
    shade = light.shade(F.normalize(raster.interpolate(posed.normal), dim=-1), prior.illumination)
    hidden = torch.isin(posed.part, torch.tensor([PARTS.index(p) for p in HIDDEN_PARTS], device=shade.device))[..., None]
    openness = raster.interpolate(head.ambient_occlusion[:, None]).clamp(_DARKEST, 1)
    shade = torch.where(hidden, shade.mean(-1, keepdim=True) * openness, shade)
    colour = sample(albedo[None].expand(len(prior), -1, -1, -1), raster.interpolate(head.uv) * albedo.shape[-1])
    picture = torch.where(raster.mask[:, None], colour * shade.permute(0, 3, 1, 2), _BACKDROP)
    return linear_to_srgb(F.avg_pool2d(picture, _OVERSAMPLING)).permute(0, 2, 3, 1)
