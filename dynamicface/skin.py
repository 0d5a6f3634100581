"""Skin that is laid into the plate: surface that comes into view, and another identity's face under the plate's light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import PARTS, srgb_to_linear
from .filters import blur, fill_holes, masked_blur, sample
from .images import sample_crops
from .prior import texture
from .prior.geometry import CROP_METRES, PosedHead
from .prior.head import HeadModel
from .surface import EYES, MOUTH, SKIN, Surface
from .types import FaceCrop, Identity

_FACE = (PARTS.index("skin"), PARTS.index("lips"))
_DARKEST = 0.12  # light that reaches the depth of the mouth
_MATCH = 128  # resolution at which revealed surface is matched to its surroundings
_GROUND = 256  # texture size of the plate's light
_SQUARE_ON = (0.3, 0.5)  # cosines between which the plate's colour of a surface begins to be believed


@dataclass(frozen=True)
class SwapLook:
    """How another identity's skin is laid into the plate."""

    skin_tone: float = 0.0  # 0 = the plate's tone, so that neck and ears match; 1 = the source's own
    detail: float = 1.0  # strength of the source's pores and wrinkles
    feather: float = 0.012  # metres


def revealed(surface: Surface, identity: Identity, shading: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Linear colour (F, 3, H, W) under the filmed light and alpha (F, 1, H, W) of surface that comes into view.

    shading: (P, 3) under the filmed light; picture: (F, 3, H, W) the linear plate in the crop. Skin and eyeballs are matched to what the
    plate shows of them next to the gap, so that a fold that opens has no border.
    """
    head, size = surface.after.head, surface.after.size
    albedo = head.albedo if identity.albedo is None else identity.albedo
    alpha = surface.unseen[1]
    mouth = (surface.group == MOUTH)[:, None]
    shading = torch.where(mouth, shading.mean(1, keepdim=True) * surface.openness.clamp(_DARKEST, 1), shading)
    model = _read(albedo, surface) * surface.picture(shading)
    if not (alpha > 0).any():
        return model, alpha
    seen = sample(picture, surface.raster.scatter(surface.came_from[:, :2]))
    low, high = _SQUARE_ON
    believed = torch.where(surface.group == SKIN, ((surface.facing[:, 0] - low) / (high - low)).clamp(0, 1), 1.0)
    correction = torch.zeros_like(model)
    for member in (SKIN, EYES):
        mine = surface.picture((surface.group == member).to(model.dtype))
        trusted = mine * surface.picture(believed) * (alpha < 0.01)
        seen_here, model_here, amount = (
            F.interpolate(x, (_MATCH, _MATCH), mode="area") for x in (seen * trusted, model * trusted, trusted)
        )
        ratio = ((seen_here + 1e-3) / (model_here + 1e-3)).clamp(0.4, 2.5).log()
        spread = fill_holes(ratio, amount.clamp(0, 0.999))
        correction = correction + F.interpolate(spread, (size, size), mode="bilinear", align_corners=False) * mine
    return model * correction.exp(), alpha


def foreign_skin(surface: Surface, identity: Identity, picture: Tensor, look: SwapLook) -> tuple[Tensor, Tensor]:
    """Linear colour (F, 3, H, W) and alpha (F, 1, H, W) of another identity's skin under the filmed light.

    picture: (F, 3, H, W) the linear plate in the crop.
    """
    head = surface.after.head
    albedo = identity.albedo[None]
    ground = illumination_texture(picture, surface.before, _GROUND)
    plain = F.interpolate(albedo, (_GROUND, _GROUND), mode="area") / texture.relative_albedo(head, _GROUND).clamp_min(0.2)
    tone_source, tone_plate = (_face_mean(x, head) for x in (plain, ground))
    tone = (tone_source / tone_plate).clamp_min(1e-3) ** look.skin_tone / tone_source
    if look.detail != 1:
        smooth = blur(albedo, max(albedo.shape[-1] // 100, 1), 2).clamp_min(1e-3)
        albedo = smooth * (albedo / smooth).clamp_min(1e-3) ** look.detail
    colour = _read(albedo[0], surface) * _read(ground, surface) * tone[..., None, None]
    region = surface.region * torch.isin(surface.part, torch.tensor(_FACE, device=albedo.device))[:, None]
    soft = _feather(surface.picture(surface.region), look.feather * surface.after.size / CROP_METRES)
    return colour, soft * surface.picture((region > 0).to(colour.dtype))


def illumination_texture(picture: Tensor, posed: PosedHead, size: int) -> Tensor:
    """The plate's light on skin, free of identity: (F, 3, U, U) linear, the paper's blurred UV texture (sigma U / 16).

    picture: (F, 3, H, W) the linear plate in the posed head's crop. What the mean face is known to be darker or redder in (lips, brows)
    is divided out before the blur; hair over the face is left out.
    """
    head = posed.head
    radiance, weight = texture.extract(picture, posed, size)
    weight = weight * texture.head_region(head, size) * texture.skin_likelihood(radiance, weight, head)
    flat = radiance / texture.relative_albedo(head, size).clamp_min(0.2)
    return masked_blur(fill_holes(flat, weight.clamp(0, 1)), torch.ones_like(weight), size // 16)


def linear_crops(plate: Tensor, crop: FaceCrop) -> Tensor:
    """The plate (F, H, W, C) in the crops, linear (F, 3, size, size)."""
    return srgb_to_linear(sample_crops(plate[..., :3], crop.matrix, crop.size))


def _read(image: Tensor, surface: Surface) -> Tensor:
    """A texture (3, U, U) or (F, 3, U, U) on the surface: (F, 3, H, W)."""
    frames = len(surface.before.screen)
    image = image.expand(frames, *image.shape[-3:])
    return sample(image, surface.raster.scatter(surface.uv) * image.shape[-1])


def _face_mean(images: Tensor, head: HeadModel) -> Tensor:
    """Mean colour (F, 3) of textures over the face's skin."""
    size = images.shape[-1]
    table = texture.atlas(head, size)
    skin = table.texel[table.skin()]
    weight = texture.head_region(head, size).flatten()[skin]
    return (images.flatten(2)[:, :, skin] * weight).sum(-1) / weight.sum()


def _feather(region: Tensor, width: float) -> Tensor:
    """Fade a soft region (F, 1, H, W) towards the inside over about `width` px: 0 at its edge, so that no seam is left."""
    size = region.shape[-1]
    step = max(1, size // 128)
    soft = F.interpolate(region, [n // step for n in region.shape[-2:]], mode="area")
    soft = ((blur(soft, max(1, round(width / step)), 2) - 0.45) / 0.45).clamp(0, 1)
    soft = F.interpolate(soft * soft * (3 - 2 * soft), region.shape[-2:], mode="bilinear", align_corners=False)
    return soft * (region > 0)
