"""The prior path: what a composed prior does to its plate, without a generator.

The change is described by smooth fields in crop space (:class:`Change`) and then applied to the plate's own pixels, so an edit keeps
the plate's resolution, grain and range:

    result = gain * mix(plate(x + flow), layer, layer_alpha)      in linear light, where mask > 0

- flow      the mesh as filmed against the mesh as composed; beyond the mesh it is continued smoothly and dies out, so hair and
            background follow;
- layer     what the plate cannot show: another person's skin, teeth and mouth, lids and eyeballs that come into view;
- gain      the ratio of the shading before and after: expression creases, head turns under a light that stays, a moved lamp.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import PARTS, linear_to_srgb, srgb_to_linear
from .filters import blur, fill_holes, masked_blur, pixel_grid, sample
from .images import sample_crops, transform
from .prior import light, texture
from .prior.geometry import CROP_METRES, PosedHead, face_crop, natural_crop_size, pose_head
from .prior.head import HeadModel
from .prior.raster import Raster
from .types import FaceCrop, FacePrior

_LOOSE = (PARTS.index("neck"), PARTS.index("ears"))  # follow the head smoothly rather than by the mesh
_SKIN, _LIPS = PARTS.index("skin"), PARTS.index("lips")
_EYES = (PARTS.index("eye_left"), PARTS.index("eye_right"))
_MOUTH = tuple(PARTS.index(p) for p in ("inner_mouth", "teeth", "tongue"))
_GROUP = tuple(1 if p in _EYES else 2 if p in _MOUTH else 0 for p in range(len(PARTS)))
_REACH = 0.055  # metres beyond the head over which the plate follows
_FIELD = 256  # resolution of flow and gain; they are smooth
_MATCH = 128  # resolution at which revealed surface is matched to its surroundings
_MAX_GAIN = 4.0


@dataclass(frozen=True)
class Change:
    """What happens to the plate, in crop space of the given crop."""

    crop: FaceCrop
    flow: Tensor  # (F, 2, h, w) in crop px: read the plate at x + flow
    gain: Tensor  # (F, 3, h, w) factor in linear light
    layer: Tensor  # (F, 3, H, W) linear colour
    layer_alpha: Tensor  # (F, 1, H, W)
    mask: Tensor  # (F, 1, h, w) 0 outside of what may change, else 1, fading at its border


@dataclass(frozen=True)
class SwapLook:
    """How another identity's skin is laid into the plate."""

    skin_tone: float = 0.0  # 0 = the plate's tone, so that neck and ears match; 1 = the source's own
    detail: float = 1.0  # strength of the source's pores and wrinkles
    feather: float = 0.012  # metres


def is_unchanged(prior: FacePrior) -> bool:
    """True when the prior is what was filmed, to the bit."""
    filmed = prior.filmed
    if prior is filmed:
        return True
    factors = ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset")
    same = all(torch.equal(getattr(prior, f), getattr(filmed, f)) for f in factors)
    a, b = prior.identity, filmed.identity
    return same and torch.equal(a.shape, b.shape) and (a.albedo is b.albedo or torch.equal(a.albedo, b.albedo))


def compute_change(prior: FacePrior, head: HeadModel, plate: Tensor, *, size: int | None = None, look: SwapLook | None = None) -> Change:
    """The fields that turn the filmed plate (F, H, W, 3) into the composed prior. size: crop px, by default about the plate's own."""
    filmed = prior.filmed
    size = size or natural_crop_size(filmed)
    crop = face_crop(filmed, size)
    before, after = pose_head(filmed, head, crop), pose_head(prior, head, crop)
    raster = after.raster

    came_from = raster.gather(before.screen)  # (P, 3)
    moved = _dense(raster, came_from[:, :2] - raster.gather(after.screen[..., :2]))
    unseen, hidden = _hidden(before, after, came_from)
    frame = torch.div(raster.pixel, size * size, rounding_mode="floor")
    normals = [F.normalize(raster.gather(x.normal), dim=-1) for x in (before, after)]
    shading = _shade_points(normals[0], filmed.illumination, frame)
    region = _dense(raster, torch.maximum(raster.gather(head.face_region[:, None]), (_group(after)[raster.pixel] > 0)[:, None]))
    log_gain = _dense(raster, _log_ratio(_shade_points(normals[1], filmed.illumination, frame), shading)) * region
    if prior.illumination is not filmed.illumination:
        lit = [_shade_points(normals[1], p.illumination, frame) for p in (prior, filmed)]
        log_gain = log_gain + _dense(raster, _log_ratio(*lit))

    reach = _reach(before, after)
    known = raster.mask[:, None].to(moved.dtype)
    anchored = known * ~torch.isin(after.part, torch.tensor(_LOOSE, device=known.device))[:, None]
    flow = _spread(moved, anchored * (1 - unseen), reach)
    near = (2 * blur(F.interpolate(known, reach.shape[-2:], mode="area"), 2) - 0.1).clamp(0, 1)
    collar = _dense(raster, raster.gather(((head.template[:, 1:2] + 0.19) / 0.06).clamp(0, 1)))
    gain = torch.exp(_spread(log_gain * collar, known, reach * near * _person(prior, crop, flow)))

    colour, alpha = _revealed(prior, before, after, shading, hidden, came_from, plate, crop)
    if prior.identity is not filmed.identity and prior.identity.albedo is not None:
        skin, skin_alpha = _foreign_skin(prior, after, before, plate, crop, look or SwapLook())
        colour = colour * (1 - skin_alpha) + skin * skin_alpha
        alpha = 1 - (1 - alpha) * (1 - skin_alpha)
    return Change(crop, flow, gain, colour, alpha, (reach * 20).clamp(0, 1))


def apply_change(plate: Tensor, change: Change, occlusion: Tensor | None = None, strength: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Apply a change to the plate's own pixels.

    plate (F, H, W, C), any range; occlusion (F, H, W) 1 = something in front of the face, left as filmed; strength (F,) or number 0..1.
    Returns the picture and the mask (F, H, W). Pixels where the mask is 0 are the plate's, to the bit.
    """
    out, mask = plate.clone(), plate.new_zeros(plate.shape[:3])
    strength = torch.as_tensor(strength, dtype=plate.dtype, device=plate.device).expand(len(plate))
    for f, (x0, y0, x1, y1) in enumerate(_windows(change.crop, plate.shape[1:3])):
        if x1 <= x0 or y1 <= y0:
            continue
        window = plate[f : f + 1, y0:y1, x0:x1]
        new, alpha = _apply_window(plate[f : f + 1], change, f, (x0, y0, x1, y1))
        alpha = alpha * strength[f]
        if occlusion is not None:
            alpha = alpha * (1 - occlusion[f : f + 1, y0:y1, x0:x1])
        mixed = torch.where(alpha[..., None] > 0, torch.lerp(window[..., :3], new, alpha[..., None]), window[..., :3])
        out[f, y0:y1, x0:x1, :3] = mixed[0]
        mask[f, y0:y1, x0:x1] = alpha[0]
    return out, mask


def _apply_window(plate: Tensor, change: Change, f: int, window: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """New colour (1, h, w, 3) and alpha (1, h, w) of one frame inside a window of the plate."""
    x0, y0, x1, y1 = window
    matrix = change.crop.matrix[f]
    grid = pixel_grid(y1 - y0, x1 - x0, plate) + plate.new_tensor([x0, y0])
    in_crop = (grid @ matrix[:, :2].mT + matrix[:, 2])[None]
    in_field = in_crop * (change.flow.shape[-1] / change.crop.size)
    fields = torch.cat([change.flow[f : f + 1], change.gain[f : f + 1], change.mask[f : f + 1]], 1)
    fields = sample(fields, in_field)
    flow, gain, alpha = fields[:, :2], fields[:, 2:5], fields[:, 5]
    layer = sample(torch.cat([change.layer[f : f + 1], change.layer_alpha[f : f + 1]], 1), in_crop)
    read_at = grid + (flow.permute(0, 2, 3, 1) / matrix[0, 0])
    margin = 8 + int(flow.abs().max() / matrix[0, 0])
    ex0, ey0 = max(x0 - margin, 0), max(y0 - margin, 0)
    part = plate[:, ey0 : y1 + margin, ex0 : x1 + margin, :3].permute(0, 3, 1, 2)
    warped = sample(part, read_at - plate.new_tensor([ex0, ey0]), mode="bicubic")
    linear = srgb_to_linear(warped)
    linear = linear + (layer[:, :3] - linear) * layer[:, 3:]
    return linear_to_srgb(linear * gain).permute(0, 2, 3, 1), alpha


def _windows(crop: FaceCrop, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The plate rectangles x0, y0, x1, y1 the crops cover."""
    inverse = crop.inverse
    corner = torch.stack([inverse[:, :, 2], inverse[:, :, 2] + inverse[:, :, :2].sum(-1) * crop.size], 1)
    low, high = corner.floor()[:, 0].long().tolist(), corner.ceil()[:, 1].long().tolist()
    height, width = size
    return [(max(a, 0), max(b, 0), min(c, width), min(d, height)) for (a, b), (c, d) in zip(low, high, strict=True)]


def _shade_points(normal: Tensor, illumination: Tensor, frame: Tensor) -> Tensor:
    """Shading (P, 3) at normals (P, 3) of frames (P,)."""
    if len(illumination) == 1:
        return light.shade(normal[None], illumination)[0]
    value = torch.einsum("pk,pkc->pc", light.basis(normal), illumination[frame])
    return value.clamp_min(0.01)


def _reach(before: PosedHead, after: PosedHead) -> Tensor:
    """(F, 1, field, field): 1 over both heads, falling smoothly to 0 at _REACH around them and towards the crop's border."""
    cover = torch.maximum(before.raster.mask, after.raster.mask).to(before.screen.dtype)[:, None]
    small = F.adaptive_avg_pool2d(cover, 64)
    radius = max(1, round(_REACH / CROP_METRES * 64 / 2))
    wide = F.max_pool2d(small, 2 * radius + 1, 1, radius)
    soft = ((blur(wide, radius, 2) - 0.02) / 0.9).clamp(0, 1)
    soft = soft * soft * (3 - 2 * soft)
    ramp = (torch.arange(64, dtype=soft.dtype, device=soft.device) + 0.5) / 64
    edge = (torch.minimum(ramp, 1 - ramp) * 12 - 0.25).clamp(0, 1)
    soft = soft * edge[:, None] * edge[None, :]
    return F.interpolate(soft, (_FIELD, _FIELD), mode="bicubic", align_corners=False).clamp(0, 1)


def _spread(field: Tensor, known: Tensor, reach: Tensor) -> Tensor:
    """Continue a field (F, C, H, W) from where it is known (F, 1, H, W), let it die out with reach; at field resolution."""
    if field.shape[-1] != _FIELD:
        both = torch.cat([field * known, known], 1)
        both = F.interpolate(both, (_FIELD, _FIELD), mode="area") if field.shape[-1] > _FIELD else F.interpolate(both, (_FIELD, _FIELD))
        known = both[:, -1:]
        field = both[:, :-1] / known.clamp_min(1e-4)
    filled = fill_holes(field, known)
    smooth = blur(filled, 3, 2)
    filled = filled * known + smooth * (1 - known)
    return filled * reach


def _dense(raster: Raster, values: Tensor) -> Tensor:
    """(P, C) at the covered pixels -> (F, C, H, W)."""
    return raster.scatter(values).permute(0, 3, 1, 2)


def _group(posed: PosedHead) -> Tensor:
    """What each pixel belongs to, flat (F*H*W,): 0 skin or nothing, 1 eyeball, 2 inside of the mouth."""
    return torch.tensor(_GROUP, device=posed.part.device)[posed.part.clamp_min(0)].view(-1)


def _log_ratio(after: Tensor, before: Tensor) -> Tensor:
    return (after / before).clamp(1 / _MAX_GAIN, _MAX_GAIN).log()


def _person(prior: FacePrior, crop: FaceCrop, flow: Tensor) -> Tensor | float:
    """(F, 1, h, w) how far what lands at a pixel is the person rather than the background; 1 where no matte is known."""
    matte = prior.background.matte
    if matte is None:
        return 1.0
    step = crop.size / _FIELD
    grid = pixel_grid(_FIELD, _FIELD, flow) * step + flow.permute(0, 2, 3, 1)
    plate_xy = transform(grid.flatten(1, 2), crop.inverse).view(grid.shape)
    height, width = prior.image_size
    scale = plate_xy.new_tensor([matte.shape[-1] / width, matte.shape[-2] / height])
    return sample(matte[:, None].to(flow), plate_xy * scale)


def _hidden(before: PosedHead, after: PosedHead, came_from: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (F, 1, H, W): surface of the composed head that the plate does not show, and the part of it to fill from the model.

    Ears, scalp and neck are never filled: there the plate's own hair and collar are stretched.
    """
    raster = after.raster
    size = after.size
    frame = torch.div(raster.pixel, size * size, rounding_mode="floor")
    column, row = came_from[:, 0].long().clamp(0, size - 1), came_from[:, 1].long().clamp(0, size - 1)
    here = _group(after)[raster.pixel]
    other_group = _group(before).view(before.part.shape)[frame, row, column] != here
    behind = came_from[:, 2] > before.depth[frame, 0, row, column] + 0.006
    turned = raster.gather(before.facing[..., None])[:, 0] < 0.08
    unseen = (other_group | behind | (turned & (here == 0))).to(came_from.dtype)
    fillable = torch.maximum(raster.gather(before.head.face_region[:, None])[:, 0], (here > 0).to(unseen.dtype))
    maps = _dense(raster, torch.stack([unseen, unseen * fillable], -1))
    radius = max(1, size // 340)
    opened = F.max_pool2d(-F.max_pool2d(-maps, 2 * radius + 1, 1, radius), 2 * radius + 1, 1, radius)
    return opened[:, :1], blur(opened[:, 1:], 1, 1)


def _revealed(
    prior: FacePrior,
    before: PosedHead,
    after: PosedHead,
    shading: Tensor,
    hidden: Tensor,
    came_from: Tensor,
    plate: Tensor,
    crop: FaceCrop,
) -> tuple[Tensor, Tensor]:
    """Linear colour (under the filmed light) and alpha of surface that comes into view, from the identity's texture.

    Skin and eyeballs are matched to what the plate shows of them next to the gap, so that a fold that opens has no border.
    """
    raster = after.raster
    albedo = prior.identity.albedo if prior.identity.albedo is not None else after.head.albedo
    colour = sample(albedo[None].expand(len(prior), -1, -1, -1), raster.interpolate(after.head.uv) * albedo.shape[-1])
    group = _group(after).view(after.part.shape)[:, None]
    shade = _dense(raster, shading)
    depth = _dense(raster, raster.gather(after.head.ambient_occlusion[:, None])).clamp(0.12, 1)
    model = colour * torch.where(group == 2, shade.mean(1, keepdim=True) * depth, shade)
    if not (hidden > 0).any():
        return model, hidden
    picture = srgb_to_linear(sample_crops(plate[..., :3], crop.matrix, crop.size))
    seen = sample(picture, raster.scatter(came_from[:, :2]))
    correction = torch.zeros_like(model)
    square_on = (_dense(raster, raster.gather(before.facing[..., None])) - 0.3).clamp(0, 0.2) * 5
    sure = torch.where(group == 0, square_on, 1.0)
    for member in (0, 1):
        mine = ((group == member) & raster.mask[:, None]).to(model.dtype)
        trusted = mine * sure * (hidden < 0.01)
        small = [F.interpolate(x, (_MATCH, _MATCH), mode="area") for x in (seen * trusted, model * trusted, trusted)]
        ratio = ((small[0] + 1e-3) / (small[1] + 1e-3)).clamp(0.4, 2.5).log()
        spread = fill_holes(ratio, small[2].clamp(0, 0.999))
        correction = correction + F.interpolate(spread, (crop.size, crop.size), mode="bilinear", align_corners=False) * mine
    return model * correction.exp(), hidden


def _foreign_skin(
    prior: FacePrior, after: PosedHead, before: PosedHead, plate: Tensor, crop: FaceCrop, look: SwapLook
) -> tuple[Tensor, Tensor]:
    """Linear colour and alpha of another identity's skin under the plate's light."""
    head, raster = after.head, after.raster
    albedo = prior.identity.albedo[None]
    size = albedo.shape[-1]
    ground = illumination_texture(plate, before, crop, 256)
    table = texture.atlas(head, 256)
    skin = table.texel[table.skin()]
    region = texture.head_region(head, 256).flatten()[skin]
    plain = F.interpolate(albedo, (256, 256), mode="area") / texture.relative_albedo(head, 256).clamp_min(0.2)
    tone_source, tone_plate = _region_mean(plain, skin, region), _region_mean(ground, skin, region)
    keep = torch.exp(torch.log((tone_source / tone_plate).clamp_min(1e-3)) * look.skin_tone)
    if look.detail != 1:
        smooth = blur(albedo, max(size // 100, 1), 2).clamp_min(1e-3)
        albedo = smooth * (albedo / smooth).clamp_min(1e-3) ** look.detail
    uv = raster.interpolate(head.uv)
    colour = sample(albedo.expand(len(prior), -1, -1, -1), uv * size) / tone_source[..., None, None]
    shade = sample(ground, uv * 256)
    region = raster.interpolate(head.face_region[:, None]).permute(0, 3, 1, 2)
    parts = torch.isin(after.part, torch.tensor((_SKIN, _LIPS), device=uv.device))[:, None]
    return colour * shade * keep[..., None, None], _feather(region, look.feather * crop.size / CROP_METRES) * parts


def _feather(region: Tensor, width: float) -> Tensor:
    """Fade a soft region (F, 1, H, W) towards the inside over about `width` px: 0 at its edge, so that no seam is left."""
    size = region.shape[-1]
    step = max(1, size // 128)
    soft = blur(F.avg_pool2d(region, step), max(1, round(width / step)), 2)
    soft = ((soft - 0.45) / 0.45).clamp(0, 1)
    soft = F.interpolate(soft * soft * (3 - 2 * soft), (size, size), mode="bilinear", align_corners=False)
    return soft * (region > 0)


def _region_mean(images: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean colour (F, 3) of texels."""
    return (images.flatten(2)[:, :, index] * weight).sum(-1) / weight.sum().clamp_min(1e-6)


def illumination_texture(plate: Tensor, posed: PosedHead, crop: FaceCrop, size: int) -> Tensor:
    """The plate's light on skin, free of identity: (F, 3, U, U) linear, the paper's blurred UV texture (sigma U / 16).

    What the mean face is known to be darker or redder in (lips, brows) is divided out before the blur.
    """
    head = posed.head
    pictures = sample_crops(plate[..., :3], crop.matrix, crop.size)
    radiance, weight = texture.extract(srgb_to_linear(pictures), posed, size)
    weight = weight * texture.head_region(head, size)
    weight = weight * texture.skin_likelihood(radiance, weight, head)
    flat = radiance / texture.relative_albedo(head, size).clamp_min(0.2)
    return masked_blur(fill_holes(flat, weight.clamp(0, 1)), torch.ones_like(weight), size // 16)
