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
from .filters import blur, dilate, fill_holes, pixel_grid, sample, signed_distance
from .images import empty_masks, linear_crops, transform
from .other_side import other_side
from .prior.geometry import CROP_METRES, PosedHead, face_crop, natural_crop_size, pose_head
from .prior.head import HeadModel
from .skin import SwapLook, foreign_skin, revealed
from .surface import surface_of
from .types import FaceCrop, FacePrior

_LOOSE = (PARTS.index("neck"), PARTS.index("ears"))  # follow the head smoothly rather than by the mesh
_REACH = 0.055  # metres beyond the head over which the plate follows
_FIELDS = 0.7  # crop px per plate px where the plate's own pixels are kept
_FIELD = 192  # resolution of the gain, which is smooth
_CONTOUR = 96  # resolution at which the head's contour is followed
_FAR = 32  # .. and pixels of it up to which distances to it are told apart: beyond the reach
_RIM = 0.003  # metres beside the filmed contour that are still the head where the fit runs inside of it
_JUMP = (3.0, 6.0)  # crop px by which the flow differs between neighbours where one begins to hide the other


@dataclass(frozen=True)
class Change:
    """What happens to the plate, in crop space of the given crop."""

    crop: FaceCrop
    flow: Tensor  # (F, 2, h, w) in crop px: read the plate at x + flow
    gain: Tensor  # (F, 3, h, w) factor in linear light
    layer: Tensor  # (F, 3, H, W) linear colour
    layer_alpha: Tensor  # (F, 1, H, W)
    mask: Tensor  # (F, 1, h, w) 0 outside of what may change, else 1, fading at its border


def is_unchanged(prior: FacePrior) -> bool:
    """True when the prior is what was filmed, to the bit."""
    filmed = prior.filmed
    if prior is filmed:
        return True
    factors = ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset")
    same = all(torch.equal(getattr(prior, f), getattr(filmed, f)) for f in factors)
    a, b = prior.identity, filmed.identity
    same_albedo = a.albedo is b.albedo or (a.albedo is not None and b.albedo is not None and torch.equal(a.albedo, b.albedo))
    return same and same_albedo and torch.equal(a.shape, b.shape)


def _wears_other_skin(prior: FacePrior) -> bool:
    theirs, own = prior.identity.albedo, prior.filmed.identity.albedo
    return theirs is not None and theirs is not own


def working_size(prior: FacePrior) -> int:
    """Crop px at which a change is computed: about the plate's own for another person's skin, fewer for what only bends and lights it."""
    return natural_crop_size(prior.filmed, 1.0 if _wears_other_skin(prior) else _FIELDS)


def compute_change(prior: FacePrior, head: HeadModel, plate: Tensor, *, size: int | None = None, look: SwapLook | None = None) -> Change:
    """The fields that turn the filmed plate (F, H, W, 3) into the composed prior.

    size: crop px, by default :func:`working_size`.
    """
    filmed = prior.filmed
    foreign = _wears_other_skin(prior)
    crop = face_crop(filmed, size or working_size(prior))
    before, after = pose_head(filmed, head, crop), pose_head(prior, head, crop)
    surface = surface_of(before, after, filmed.illumination, prior.illumination)
    picture = linear_crops(plate, crop.matrix, crop.size)

    log_gain = surface.gain * surface.region
    if surface.lamp is not None:
        log_gain = log_gain + surface.lamp
    anchored = ~torch.isin(surface.part, torch.tensor(_LOOSE, device=surface.part.device))
    fields = torch.cat([surface.moved, log_gain * surface.collar, anchored[:, None] * surface.front], -1)
    fields = surface.picture(fields)

    reach = _reach(before, after)
    known = surface.raster.mask[:, None].to(fields.dtype)
    moved, seen = fields[:, :2], fields[:, 5:] * (1 - surface.unseen[0])
    turned = not torch.equal(prior.rotation, filmed.rotation)
    person = _person(prior, crop, torch.zeros_like(moved)) if turned else moved.new_ones(len(moved), 1, _FIELD, _FIELD)
    if not torch.equal(before.screen, after.screen):
        seen = (2 * blur(seen, max(crop.size // 128, 1), 2) - 1).clamp(0, 1)  # small islands between ear and hair would tear the plate
        around, outside = _follow_contour(before, after, person, _RIM if turned else 0.0)
        if turned:
            seen = seen * sample(person, surface.filmed_at * (_FIELD / crop.size))
        moved, seen = torch.lerp(moved, around, outside), torch.maximum(seen, outside)
    flow = _spread(moved, seen, reach, crop.size)
    near = (2 * blur(F.interpolate(known, reach.shape[-2:], mode="area"), 2) - 0.1).clamp(0, 1)
    gain = torch.exp(_spread(fields[:, 2:5], known, reach * near * _person(prior, crop, flow), _FIELD))

    colour, alpha = revealed(surface, prior.identity, picture)
    if turned:
        twin, twin_alpha = other_side(surface, filmed.illumination, picture, person)
        colour = torch.lerp(twin, colour, alpha / (alpha + twin_alpha * (1 - alpha)).clamp_min(1e-4))
        alpha = 1 - (1 - alpha) * (1 - twin_alpha)
        edge, edge_alpha = _smooth_edges(flow, picture)
        alpha, colour = torch.maximum(alpha, edge_alpha), torch.lerp(edge, colour, alpha)
    if foreign:
        skin, skin_alpha = foreign_skin(surface, prior.identity, filmed, picture, look or SwapLook())
        under = alpha * (1 - skin_alpha)
        alpha = skin_alpha + under
        colour = torch.lerp(skin, colour, under / alpha.clamp_min(1e-6))
    limit = F.interpolate((reach * 20).clamp(0, 1), gain.shape[-2:], mode="bilinear", align_corners=False)
    return Change(crop, flow, gain, colour, alpha, _changing(flow, gain, alpha) * limit)


def trust(confidence: Tensor) -> Tensor:
    """How far a frame of confidence (F,) 0..1 is changed: not at all below 0.05, fully from 0.3 on."""
    return ((confidence - 0.05) / 0.25).clamp(0, 1)


def apply_change(plate: Tensor, change: Change, occlusion: Tensor | None = None, strength: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Apply a change to the plate's own pixels.

    plate (F, H, W, C), any range; occlusion (F, H, W) 1 = something in front of the face, left as filmed; strength (F,) or number 0..1.
    Returns the picture and the mask (F, H, W). Pixels where the mask is 0 are the plate's, to the bit.
    """
    out, mask = plate.clone(memory_format=torch.contiguous_format), empty_masks(plate)
    paint_change(out, mask, plate, change, occlusion, strength)
    return out, mask


def paint_change(
    out: Tensor, mask: Tensor, plate: Tensor, change: Change, occlusion: Tensor | None = None, strength: Tensor | float = 1.0
) -> None:
    """:func:`apply_change` into memory at hand: out (F, H, W, C), contiguous, holds the plate, mask (F, H, W) holds 0; both are painted."""
    strength = torch.as_tensor(strength, dtype=plate.dtype, device=plate.device).expand(len(plate))
    fine, coarse = torch.cat([change.flow, change.layer, change.layer_alpha], 1), torch.cat([change.gain, change.mask], 1)
    for f, (x0, y0, x1, y1) in enumerate(_windows(change, plate.shape[1:3])):
        if x1 <= x0 or y1 <= y0:
            continue
        matrix = change.crop.matrix[f]
        grid = (pixel_grid(y1 - y0, x1 - x0, plate) + plate.new_tensor([x0, y0])).flatten(0, 1)
        in_crop = grid @ matrix[:, :2].mT + matrix[:, 2]
        gain, alpha = sample(coarse[f : f + 1], in_crop[None] * (coarse.shape[-1] / change.crop.size))[0].split((3, 1))
        here = alpha[0].nonzero()[:, 0]
        if not len(here):
            continue
        grid, in_crop, gain, alpha = (x.index_select(dim, here) for x, dim in ((grid, 0), (in_crop, 0), (gain, 1), (alpha.T, 0)))
        alpha = alpha * strength[f]
        if occlusion is not None:
            alpha = alpha * (1 - occlusion[f, y0:y1, x0:x1].reshape(-1, 1).index_select(0, here))
        flow, layer, layer_alpha = sample(fine[f : f + 1], in_crop[None])[0].split((2, 3, 1))
        flow = flow / matrix[0, 0]
        margin = 8 + int(flow.abs().max())
        left, top = max(x0 - margin, 0), max(y0 - margin, 0)
        around = plate[f : f + 1, top : y1 + margin, left : x1 + margin, :3].permute(0, 3, 1, 2)
        new = srgb_to_linear(sample(around, (grid + flow.T - grid.new_tensor([left, top]))[None], mode="bicubic")[0])
        new = linear_to_srgb(torch.lerp(new, layer, layer_alpha) * gain).T
        rows, columns = (torch.arange(*ends, device=here.device) for ends in ((y0, y1), (x0, x1)))
        place = (rows[:, None] * plate.shape[2] + columns).flatten().index_select(0, here)
        pixels = out[f].view(-1, plate.shape[-1])
        old = pixels.index_select(0, place)
        old[:, :3] = torch.where(alpha > 0, torch.lerp(old[:, :3], new, alpha), old[:, :3])
        pixels.index_copy_(0, place, old)
        mask[f].view(-1, 1).index_copy_(0, place, alpha)


def _windows(change: Change, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The plate rectangles x0, y0, x1, y1 that hold all of each frame's mask."""
    inverse, step = change.crop.inverse, change.crop.size / change.mask.shape[-1]
    height, width = size
    out = []
    for mask, back in zip(change.mask[:, 0] > 0, inverse, strict=True):
        rows, columns = (mask.any(dim).nonzero()[:, 0] for dim in (1, 0))
        if not len(rows):
            out.append((0, 0, 0, 0))
            continue
        low, high = (torch.stack([c, r]) for c, r in ((columns[0] - 1, rows[0] - 1), (columns[-1] + 2, rows[-1] + 2)))
        (left, top), (right, bottom) = (back[:, 2] + back[:, :2] @ (corner * step).to(back) for corner in (low, high))
        x0, y0, x1, y1 = int(left.floor()), int(top.floor()), int(right.ceil()), int(bottom.ceil())
        out.append((max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)))
    return out


def _person(prior: FacePrior, crop: FaceCrop, flow: Tensor) -> Tensor:
    """(F, 1, h, w) how far what lands at a pixel is the person rather than the background; 1 where no matte is known."""
    matte = prior.background.matte
    if matte is None:
        return flow.new_ones(len(flow), 1, _FIELD, _FIELD)
    step = crop.size / _FIELD
    grid = pixel_grid(_FIELD, _FIELD, flow) * step
    grid = grid + sample(flow, grid.expand(len(flow), -1, -1, -1)).permute(0, 2, 3, 1)
    plate_xy = transform(grid.flatten(1, 2), crop.inverse).view(grid.shape)
    height, width = prior.image_size
    scale = plate_xy.new_tensor([matte.shape[-1] / width, matte.shape[-2] / height])
    return sample(matte[:, None].to(flow), plate_xy * scale)


def _reach(before: PosedHead, after: PosedHead) -> Tensor:
    """(F, 1, field, field): 1 over both heads, falling smoothly to 0 at _REACH around them and towards the crop's border."""
    cover = torch.maximum(before.raster.mask, after.raster.mask).to(before.screen.dtype)[:, None]
    small = F.interpolate(cover, (64, 64), mode="nearest")
    radius = max(1, round(_REACH / CROP_METRES * 64 / 2))
    wide = dilate(small, radius)
    soft = ((blur(wide, radius, 2) - 0.02) / 0.9).clamp(0, 1)
    soft = soft * soft * (3 - 2 * soft)
    ramp = (torch.arange(64, dtype=soft.dtype, device=soft.device) + 0.5) / 64
    edge = (torch.minimum(ramp, 1 - ramp) * 12 - 0.25).clamp(0, 1)
    soft = soft * edge[:, None] * edge[None, :]
    return F.interpolate(soft, (_FIELD, _FIELD), mode="bicubic", align_corners=False).clamp(0, 1)


def _changing(flow: Tensor, gain: Tensor, alpha: Tensor) -> Tensor:
    """(F, 1, h, w) soft mask of where the plate changes visibly at all, a little widened."""
    size = gain.shape[-2:]
    strongest = [F.interpolate(x, size, mode="nearest") for x in (flow.abs().amax(1, keepdim=True) / 0.05, alpha / 0.004)]
    lit = gain.log().abs().amax(1, keepdim=True) / 0.004
    soft = blur(dilate((torch.stack([*strongest, lit]).amax(0) > 1).to(gain.dtype), 4), 2, 2)
    return ((soft - 0.01) / 0.98).clamp(0, 1)


def _smooth_edges(flow: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Linear colour (F, 3, H, W) and alpha (F, 1, H, W) of the pixels where one surface hides another.

    There the flow (F, 2, H, W) jumps, and between two pixels it would read whatever lies between the two places in the plate: a bright
    or dark line. The colours on both sides are mixed instead. picture: (F, 3, H, W) the linear plate in the crop.
    """
    low, high = _JUMP
    jump = (dilate(flow, 1) + dilate(-flow, 1)).amax(1, keepdim=True)
    size = flow.shape[-1]
    warped = sample(picture, pixel_grid(size, size, flow) + flow.permute(0, 2, 3, 1))
    return blur(warped, 1, 1), ((jump - low) / (high - low)).clamp(0, 1)


def _follow_contour(before: PosedHead, after: PosedHead, person: Tensor, rim: float) -> tuple[Tensor, Tensor]:
    """Flow beside a head that turns, (F, 2, H, W) in crop px, and where it holds, (F, 1, H, W).

    A turning head hides surface behind its contour, which the mesh cannot tell the plate. So the plate beside the head keeps its distance
    to the contour: a pixel at signed distance s of the new contour reads the plate at distance s of the old one. Next to a contour that
    moved it is read up to `rim` metres farther out, since a little of the head always shows beside the fitted one.
    """
    filmed, composed = (F.interpolate(_head_mask(x), (_CONTOUR, _CONTOUR), mode="area") for x in (before, after))
    # Where the fit reaches beyond the person, the background must not be drawn in.
    filmed = filmed * F.interpolate(person, filmed.shape[-2:], mode="area")
    old, new = blur(signed_distance(torch.cat([filmed, composed]), _FAR), 1, 1).chunk(2)
    padded = F.pad(old, (1, 1, 1, 1), mode="replicate")
    slope = torch.cat([padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]], 1)
    apart, rim = new - old, rim * _CONTOUR / CROP_METRES
    if rim:
        apart = apart + apart.abs().clamp(max=rim) * (1 - new.abs() / (4 * rim)).clamp(0, 1)
    flow = F.normalize(slope, dim=1) * apart * (before.size / _CONTOUR)
    size = (before.size, before.size)
    return F.interpolate(flow, size, mode="bilinear", align_corners=False), 1 - _head_mask(after)


def _head_mask(posed: PosedHead) -> Tensor:
    """(F, 1, H, W) 1 on the head without the neck."""
    return ((posed.part >= 0) & (posed.part != _LOOSE[0]))[:, None].to(posed.screen.dtype)


def _spread(field: Tensor, known: Tensor, reach: Tensor, size: int) -> Tensor:
    """Continue a field (F, C, H, W) from where it is known (F, 1, H, W), let it die out with reach; at size x size."""
    if field.shape[-1] > size:
        both = F.interpolate(torch.cat([field * known, known], 1), (size, size), mode="area")
        known = both[:, -1:]
        field = both[:, :-1] / known.clamp_min(1e-4)
    filled = fill_holes(field, known)
    filled = torch.lerp(blur(filled, max(size // 85, 1), 2), filled, known)
    return filled * F.interpolate(reach, filled.shape[-2:], mode="bilinear", align_corners=False)
