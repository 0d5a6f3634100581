"""Skin that is laid into the plate: surface that comes into view, and another identity's face under the plate's light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from . import landmark_sets
from .conventions import PARTS
from .filters import blur, fill_holes, masked_blur, sample, sample_each
from .prior import light, texture
from .prior.geometry import CROP_METRES, PosedHead
from .prior.head import HeadModel
from .surface import EYES, MOUTH, SKIN, Surface
from .types import FacePrior, Identity

_FACE = (PARTS.index("skin"), PARTS.index("lips"))
_LASHES = 0.85  # how much of the light the lashes of a closed eye take
_DARKEST = 0.05  # light that reaches the depth of the mouth
_MATCH_RANGE = {SKIN: (0.4, 2.5), EYES: (0.1, 1.5)}
_UNDER_LID = -0.25  # natural log: the white that comes out from under a lid lies in its shadow
_MATCH = 128  # resolution at which revealed surface is matched to its surroundings
_GROUND_BLUR = 1 / 10  # of the texture: above it the light is the plate's, below it the detail is the source's
_EVENNESS = 0.85  # how much of the broad unevenness of the source's albedo is taken out
_LIFT = 8.0  # most that one skin may be brighter than the other
_COLOURFUL = 0.35  # natural log: how far the colour of a person's skin differs from place to place
_FEATURE = 6e-3  # metres around brows, eyes, nose and lips that tell nothing of the light
_GROUND = 128  # texture size of the plate's light
_SQUARE_ON = (0.3, 0.5)  # cosines between which the plate's colour of a surface begins to be believed


@dataclass(frozen=True)
class SwapLook:
    """How another identity's skin is laid into the plate."""

    skin_tone: float = 0.0  # 0 = the plate's tone, so that neck and ears match; 1 = the source's own
    detail: float = 1.0  # strength of the source's pores and wrinkles
    feather: float = 0.008  # metres


def revealed(surface: Surface, identity: Identity, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Linear colour (F, 3, H, W) under the filmed light and alpha (F, 1, H, W) of surface that comes into view.

    picture: (F, 3, H, W) the linear plate in the crop. Skin and eyeballs are matched to what the plate shows of them next to the gap, so
    that a fold that opens has no border.
    """
    head, size, shading = surface.after.head, surface.after.size, surface.shading
    albedo = head.albedo if identity.albedo is None else identity.albedo
    inside = (2 * blur(surface.raster.mask[:, None].to(shading.dtype), max(size // 128, 1), 2) - 1).clamp(0, 1)
    skin = surface.picture((surface.group == SKIN).to(shading.dtype))
    # No hard edge along the contour, and no skin where the photographs show hair.
    alpha = surface.unseen[1] * torch.lerp(torch.ones_like(inside), inside * _read(_where_seen(identity, head), surface), skin)
    mouth = (surface.group == MOUTH)[:, None]
    shading = torch.where(mouth, shading.mean(1, keepdim=True) * surface.openness.clamp(_DARKEST, 1), shading)
    model = _read(albedo, surface) * surface.picture(shading) * (1 - _LASHES * surface.slit)
    if not (alpha > 0).any():
        return model, alpha
    seen = sample(picture, surface.filmed_at)
    low, high = _SQUARE_ON
    believed = torch.where(surface.group == SKIN, ((surface.facing[0][:, 0] - low) / (high - low)).clamp(0, 1), 1.0)
    correction = torch.zeros_like(model)
    for member in (SKIN, EYES):
        mine = surface.picture((surface.group == member).to(model.dtype))
        trusted = mine * surface.picture(believed) * (alpha < 0.01)
        seen_here, model_here, amount = (
            F.interpolate(x, (_MATCH, _MATCH), mode="area") for x in (seen * trusted, model * trusted, trusted)
        )
        ratio = ((seen_here + 1e-3) / (model_here + 1e-3)).clamp(*_MATCH_RANGE[member]).log()
        if member == EYES:  # a blue iris must not tint the white
            ratio = ratio.mean(1, keepdim=True).expand_as(ratio) + _UNDER_LID
        spread = fill_holes(ratio, amount.clamp(0, 0.999))
        correction = correction + F.interpolate(spread, (size, size), mode="bilinear", align_corners=False) * mine
    return model * correction.exp(), alpha


def foreign_skin(surface: Surface, identity: Identity, filmed: FacePrior, picture: Tensor, look: SwapLook) -> tuple[Tensor, Tensor]:
    """Linear colour (F, 3, H, W) and alpha (F, 1, H, W) of another identity's skin under the filmed light.

    filmed: the face in the plate; picture: (F, 3, H, W) the linear plate in the crop. In log colour the face is the source's albedo with
    the broad unevenness of its plain skin exchanged for the plate's: features keep their full contrast, light and tone are the plate's.
    """
    head = surface.after.head
    radiance, weight, bare = _bare_skin(picture, surface.before, _GROUND)
    small = F.interpolate(identity.albedo[None], (_GROUND, _GROUND), mode="area")
    plain = _plain_skin(head, _GROUND)
    shading = texture.broad_shading(surface.before.normal, filmed.illumination, head, _GROUND)
    theirs, ours = _broad(small, _seen(identity, head) * plain, head), _broad(radiance / shading, weight * plain, head) + shading.log()
    region = texture.head_region(head, _GROUND)[None]
    tone_source = (theirs * region).sum((-2, -1), keepdim=True) / region.sum()
    uneven = tone_source + _EVENNESS * (theirs - tone_source)
    uneven = uneven + _strange_colours(small.clamp_min(2e-3).log() - uneven, head)

    tones = [_skin_tone(x, head) for x in (filmed.identity, identity)]
    kept = look.skin_tone * (tones[1] / tones[0]).log()
    lift = (light.luminance(tones[0] / tones[1] * kept.exp())).clamp(1 / _LIFT, _LIFT)
    uneven, plain = (F.interpolate(x, identity.albedo.shape[-2:], mode="bilinear", align_corners=False) for x in (uneven, plain))
    logs = identity.albedo[None].clamp_min(2e-3).log() - uneven
    smooth = blur(logs, max(logs.shape[-1] // 100, 1), 2)
    detail = (logs - smooth) * look.detail * lift.clamp(0.4, 2.5)[:, None, None, None] ** -0.25 + _carry_contrast(smooth, lift, plain)
    colour = (_read(detail, surface) + _read(ours + kept[:, :, None, None], surface)).exp()

    face = torch.maximum(surface.raster.gather(texture.whole_face(head)[:, None]), (surface.group != SKIN)[:, None])
    soft = _feather(surface.picture(face), look.feather * surface.after.size / CROP_METRES)
    limits = _read(torch.minimum(bare, _where_known(identity, head)), surface)
    limits = torch.lerp(limits, torch.ones_like(limits), _read(texture.below_brows(head, _GROUND)[0], surface))
    skin = surface.picture(torch.isin(surface.part, torch.tensor(_FACE, device=colour.device)).to(colour.dtype))
    return colour, soft * limits * skin


def _broad(images: Tensor, weight: Tensor, head: HeadModel) -> Tensor:
    """Log colour (F, 3, U, U) of a face's plain skin, as textures (F, 3, U, U) show it under weight, continued over its features."""
    size = images.shape[-1]
    flat = images.clamp_min(2e-3).log() - texture.relative_albedo(head, size).clamp_min(0.2).log()
    everywhere = weight + 0.02 * texture.head_region(head, size).clamp_min(0.01)
    return masked_blur(fill_holes(flat, weight.clamp(0, 0.999)), everywhere, max(round(size * _GROUND_BLUR), 1))


@lru_cache(maxsize=8)
def _plain_skin(head: HeadModel, size: int) -> Tensor:
    """(1, 1, U, U) 1 on cheeks, forehead and chin, 0 on and close to brows, eyes, nose and lips, whose shading is the person's."""
    table = texture.atlas(head, size)
    position = table.scatter(table.gather(head.template[None]))[0].flatten(1).T
    features = head.landmarks(head.template)[list(landmark_sets.FEATURES)]
    distance = torch.cdist(position, features).amin(1).view(1, 1, size, size)
    return ((distance - _FEATURE) / _FEATURE).clamp(0, 1) * texture.head_region(head, size)[None]


def _skin_tone(identity: Identity, head: HeadModel) -> Tensor:
    """Mean albedo (1, 3) of an identity's skin without what lips and brows do to any skin; the mean head's where none is known."""
    albedo = head.albedo if identity.albedo is None else identity.albedo
    small = F.interpolate(albedo[None], (_GROUND, _GROUND), mode="area")
    return _face_mean(small / texture.relative_albedo(head, _GROUND).clamp_min(0.2), head).clamp_min(1e-3)


def _strange_colours(logs: Tensor, head: HeadModel) -> Tensor:
    """What no skin has of the colours of log albedos (F, 3, U, U) relative to their tone: a coloured lamp that was left in them."""
    odd = logs - texture.relative_albedo(head, logs.shape[-1]).clamp_min(0.05).log()
    odd = odd - odd.mean(1, keepdim=True)
    return odd * (1 - (odd.square().sum(1, keepdim=True) / _COLOURFUL**2 + 1).rsqrt())


def _carry_contrast(logs: Tensor, lift: Tensor, plain: Tensor) -> Tensor:
    """Log contrast (F, 3, U, U) of a skin, relative to its own tone, for a skin `lift` (F,) times as bright.

    Highlights stand out more, and shading is deeper, on dark skin than on light skin; carried over unchanged they would glow and look
    like dirt. plain (1, 1, U, U): features keep their dark. Red lips are neither as red on dark skin nor brown ones as brown on light skin.
    """
    level = logs.mean(1, keepdim=True)
    lift = lift[:, None, None, None]
    bright, chroma = lift.clamp_min(1) ** -0.6, torch.maximum(lift, 1 / lift) ** -0.3
    dark = torch.lerp(lift.clamp_max(1) ** -0.1, lift.clamp_min(1) ** -0.4, plain)
    return level * torch.where(level > 0, bright, dark) + (logs - level) * chroma


def _where_seen(identity: Identity, head: HeadModel) -> Tensor:
    """(1, 1, U, U) 1 where the identity's skin was seen on either side of the face; always 1 in the middle, around the features."""
    inner = texture.inner_face(head, _GROUND)
    if identity.albedo_weight is None:
        return torch.ones_like(inner)
    small = F.interpolate(identity.albedo_weight[None], (_GROUND, _GROUND), mode="area")
    seen = torch.maximum((torch.maximum(small, small.flip(-1)) / 0.3).clamp(0, 1), inner)
    return ((blur(seen, 2, 2) - 0.5) / 0.5).clamp(0, 1)


def _seen(identity: Identity, head: HeadModel) -> Tensor:
    """(1, 1, U, U) how well the identity's skin was seen."""
    if identity.albedo_weight is None:
        return torch.ones_like(texture.inner_face(head, _GROUND))
    return F.interpolate(identity.albedo_weight[None], (_GROUND, _GROUND), mode="area")


def _where_known(identity: Identity, head: HeadModel) -> Tensor:
    """(1, 1, U, U) 1 where the identity's skin was seen on either side of the face or close by, so that its albedo there is its own."""
    seen = _seen(identity, head)
    return (2 * blur((torch.maximum(seen, seen.flip(-1)) / 0.3).clamp(0, 1), 2, 2)).clamp(0, 1)


def illumination_texture(picture: Tensor, posed: PosedHead, size: int, blur_share: float = 1 / 16) -> tuple[Tensor, Tensor]:
    """The plate's light on skin, free of identity: the paper's blurred UV texture (sigma = U * blur_share).

    picture: (F, 3, H, W) the linear plate in the posed head's crop. What the mean face is known to be darker or redder in (lips, brows)
    is divided out before the blur; hair over the face is left out. Returns the light (F, 3, U, U), linear, and where the plate shows its
    person's skin (F, 1, U, U), 0 where hair or a hat covers it.
    """
    head = posed.head
    radiance, weight, bare = _bare_skin(picture, posed, size)
    flat = radiance / texture.relative_albedo(head, size).clamp_min(0.2)
    ground = masked_blur(fill_holes(flat, weight.clamp(0, 1)), torch.ones_like(weight), max(round(size * blur_share), 1))
    return ground, bare


def _bare_skin(picture: Tensor, posed: PosedHead, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the plate shows of its person's skin: radiance (F, 3, U, U), how far it is to be believed (F, 1, U, U), and where nothing
    lies over the skin (F, 1, U, U), soft, also 1 where the plate does not show the surface at all."""
    radiance, weight = texture.extract(picture, posed, size)
    likely = texture.skin_likelihood(radiance, weight, posed.head)
    bare = torch.where(weight > 0.1, likely, 1.0)
    return radiance, weight * texture.head_region(posed.head, size) * likely, blur(bare, max(size // 100, 1), 2)


def _read(image: Tensor, surface: Surface) -> Tensor:
    """A texture (3, U, U) or (F, 3, U, U) on the surface: (F, 3, H, W)."""
    image = image if image.dim() == 4 else image[None]
    values = sample_each(image, surface.uv * image.shape[-1], surface.frame)
    frames, height, width = surface.raster.face.shape
    beside = image[:, None, :, 0, 0].expand(frames, height * width, -1)  # goes on beside the head, for whoever reads across its edge
    return beside.flatten(0, 1).index_copy(0, surface.raster.pixel, values).view(frames, height, width, -1).permute(0, 3, 1, 2)


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
