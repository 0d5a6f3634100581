"""Hands, microphones, hair, glasses: what is in front of the face, found in the plate itself.

The fitted head is lit: the mean face's colours under the light that explains most of the plate's skin (robustly, so that what covers the
face has no say). Where plate and lit face disagree may be an occluder, or make-up, a moustache, a shadow; a small network
(`perception/occlusion.py`) has learnt to tell these apart from the disagreement, its shape and its place on the face. What it finds is
brought to the plate's own edges by a guided filter (He, Sun, Tang 2010), and steadied in time over a shot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_occlusion, plate_of
from .conventions import PARTS
from .filters import blur, dilate, pixel_grid, sample, unit
from .images import linear_crops, plate_window, sample_crops, transform
from .perception import Perception
from .prior import light, texture
from .prior.estimate import select_frames
from .prior.geometry import face_crop, pose_head
from .prior.head import HeadModel
from .prior.temporal import shot_numbers
from .types import FaceCrop, FaceMask, FacePrior
from .windows import windows

if TYPE_CHECKING:
    from .io.clips import Clip

SIDE, ZOOM = 128, 1.45
_TINT = 256  # side of the texture that tells what the mean face is darker or redder in
_DARK = 0.01  # added to radiances before their logarithm
_RANGE = 2.5  # natural logs; beyond, more disagreement tells nothing more
_EVERY = 3  # px of the crop between samples that decide the light
_RIDGE = 0.03  # stiffer than the light of the prior, so that a bright occluder does not bend it
_METRES = 0.1  # unit of positions on the head
_PLACED = 0.1  # of that unit: how near the other half's pixel must lie to the place it stands for
_INNER = tuple(PARTS.index(p) for p in ("lips", "eye_left", "eye_right", "inner_mouth", "teeth", "tongue"))
AROUND = 4  # px of the crop around the head that are still judged
_WINDOW = 8  # frames judged at once
_CORE, _LIKELY = 1.5, 0.0  # logits: the cores of objects, and what belongs to one that it hangs together with
_FAR_OFF = 20.0  # logits: nothing hangs together by way of what is beside the face
_GROWTH = 24  # px of the crop between a core and the end of its object
_STEEPNESS = 4.0  # of the sensitivity dial, in logits
_CHANGED = 0.15  # natural log: change of a pixel of the crop from which two frames do not speak for each other
_FINE = 2  # resolution of the guided filter over the net's
_RADIUS = 3  # px of the guided filter
_FLAT = 2e-3  # variance of the plate below which it has no edges worth following
_LOW, _HIGH = 0.2, 0.65  # of the filtered mask: rather a little too wide than a rim of the occluder that moves


@dataclass(frozen=True)
class Geometry:
    """What the fit says of each pixel of F crops."""

    position: Tensor  # (F, 3, S, S) place on the mean head, in units of _METRES
    normal: Tensor  # (F, 3, S, S) camera space
    tint: Tensor  # (F, 3, S, S) colour of the mean face over its mean skin
    facing: Tensor  # (F, 1, S, S) cosine to the camera
    face: Tensor  # (F, 1, S, S) weight of the face itself, eyes and mouth included
    head: Tensor  # (F, 1, S, S) 1 on the head


def geometry(prior: FacePrior, model: HeadModel, crop: FaceCrop) -> Geometry:
    """The filmed head in its crops."""
    posed = pose_head(prior, model, crop)
    fixed = torch.cat([model.template / _METRES, model.uv, model.face_region[:, None]], -1)
    moving = torch.cat([posed.normal, posed.facing[..., None]], -1)
    raster = posed.raster
    values = torch.cat([raster.gather(fixed), raster.gather(moving)], -1)
    values[:, 6:9] = unit(values[:, 6:9])
    position, uv, region, normal, facing = raster.scatter(values).permute(0, 3, 1, 2).split((3, 2, 1, 3, 1), 1)
    tints = texture.relative_albedo(model, _TINT)
    tint = sample(tints.expand(len(prior), -1, -1, -1), uv.permute(0, 2, 3, 1) * _TINT)
    inner = torch.isin(posed.part, torch.tensor(_INNER, device=posed.part.device))[:, None].to(region)
    return Geometry(position, normal, tint, facing, torch.maximum(region, inner), raster.mask[:, None].to(region))


def evidence(picture: Tensor, shown: Geometry) -> Tensor:
    """(F, 17, S, S) how the plate's crops (F, 3, S, S), linear, disagree with the lit mean face, and where on the face.

    Beside the head, where an arm goes on, the plate is compared with the mean colour of the lit face.
    A moustache lies on both halves of the face, a hand seldom does: three channels compare the disagreement with the other half's.
    """
    logs = (_lit(picture, shown) + _DARK).log()
    colour = (logs * shown.face).sum((2, 3), keepdim=True) / shown.face.sum((2, 3), keepdim=True).clamp_min(1e-6)
    logs, level = torch.where(shown.head > 0, logs, colour), colour.mean(1, keepdim=True)
    disagreement = ((picture.clamp_min(0) + _DARK).log() - logs).clamp(-_RANGE, _RANGE)
    other = _other_half(disagreement, shown)
    return torch.cat([disagreement, (logs - level) * shown.head, shown.position, shown.normal, shown.facing, shown.face, other], 1)


def _other_half(values: Tensor, shown: Geometry) -> Tensor:
    """(F, C, S, S) values less those at the mirrored place of the face; 0 where that place is not seen.

    Where a place of the head lies in the crop is an affine function of its position, nearly: perspective and expression bend it little.
    """
    size = values.shape[-1]
    ones = torch.ones_like(shown.face)
    place = torch.cat([shown.position, ones], 1).flatten(2).mT
    pixels = pixel_grid(size, size, values).view(1, -1, 2).expand(len(values), -1, -1)
    weighted = place * shown.face.flatten(2).mT
    hold = 1e-3 * torch.eye(4, device=values.device, dtype=values.dtype)
    projection = torch.linalg.solve(weighted.mT @ place + hold, weighted.mT @ pixels)
    mirrored = shown.position * shown.position.new_tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    at = (torch.cat([mirrored, ones], 1).flatten(2).mT @ projection).unflatten(1, (size, size))
    there, meant = sample(torch.cat([values, shown.position], 1), at).split((values.shape[1], 3), 1)
    trust = torch.exp(-((meant - mirrored) / _PLACED).square().sum(1, keepdim=True))
    return (values - there) * trust * shown.head


def _lit(picture: Tensor, shown: Geometry) -> Tensor:
    """(F, 3, S, S) the mean face under the light that explains most of the picture."""
    weight = shown.face * (shown.facing - 0.15).clamp(0, 0.5)
    some = (x[..., ::_EVERY, ::_EVERY].flatten(2).mT for x in (picture, shown.tint, shown.normal, weight))
    radiance, albedo, normal, trust = some
    illumination = light.estimate(radiance, albedo, normal, trust[..., 0], ridge=_RIDGE)
    return shown.tint * light.shade(shown.normal.permute(0, 2, 3, 1), illumination).permute(0, 3, 1, 2)


@torch.inference_mode()
def find_occlusion(
    prior: FacePrior,
    head: HeadModel,
    perception: Perception,
    *,
    sensitivity: float = 0.5,
    roto: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """What is in front of the face, (F, H, W) in the plate of a fitted prior, 0..1; frames of a shot steady each other.

    sensitivity 0..1: higher finds more and raises more false alarms. roto (F, H, W): masks drawn by hand; a frame in which anything is
    drawn is taken from there. progress(done, total).
    """
    plate = plate_of(prior)
    check_occlusion(roto, plate)
    found = hidden_face(prior, plate, head, perception, sensitivity=sensitivity, progress=progress)
    mask = plate.new_zeros(plate.shape[:3])
    for index in windows(len(prior), _WINDOW):
        mask[index] = bring_to_plate(found.frames(index), plate[index])
    if roto is None:
        return mask
    drawn = (roto > 0).flatten(1).any(1)
    return torch.where(drawn[:, None, None], roto.to(mask), mask)


@torch.inference_mode()
def hidden_face(
    prior: FacePrior,
    plate: Tensor | Clip,
    head: HeadModel,
    perception: Perception,
    *,
    sensitivity: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> FaceMask:
    """The same in crops around the face, (F, SIDE, SIDE), as the net sees it: small, whatever the plate; it may be a clip on disk."""
    filmed = prior.filmed.replace(background=None)
    crop, bias = face_crop(filmed, SIDE, ZOOM), _STEEPNESS * (sensitivity - 0.5)
    parts = []
    for index in windows(len(filmed), _WINDOW):
        part = select_frames(filmed, index)
        shown = geometry(part, head, FaceCrop(crop.matrix[index], SIDE))
        picture = linear_crops(plate[index], crop.matrix[index], SIDE)
        logits = _steadied(perception.occlusion(evidence(picture, shown)), picture, shot_numbers(part)) + bias
        around = _around(shown)
        parts.append((_regions(logits - _FAR_OFF * (1 - around)) * around)[:, 0])
        if progress is not None:
            progress(index.stop, len(filmed))
    return FaceMask(crop, torch.cat(parts))


def mask_of_face(mask: Tensor, prior: FacePrior) -> FaceMask:
    """A mask of the plate (F, H, W), drawn by hand or found, in crops around a fitted face."""
    crop = face_crop(prior.filmed, _FINE * SIDE)
    parts = [sample_crops(mask[i][..., None], crop.matrix[i], crop.size)[:, 0] for i in windows(len(mask), _WINDOW)]
    return FaceMask(crop, torch.cat(parts))


def bring_to_plate(mask: FaceMask, plate: Tensor) -> Tensor:
    """A mask of crops as (F, H, W) in the plate (F, H, W, C), its edges moved to the plate's by a guided filter."""
    frames, height, width = plate.shape[:3]
    size = _FINE * SIDE
    fine = FaceCrop(mask.crop.matrix * (size / mask.crop.size), size)
    guide = _grey(sample_crops(plate[..., :3], fine.matrix, size))
    chance = F.interpolate(mask.values[:, None], (size, size), mode="bilinear", align_corners=False)
    slope, level = _guided(guide, chance)
    out = plate.new_zeros(frames, height, width)
    inverse = fine.inverse
    for f in range(frames):
        left, top, right, bottom = plate_window(inverse[f], size, (height, width))
        if left >= right or top >= bottom or mask.values[f].amax() < _LOW:
            continue
        grid = pixel_grid(bottom - top, right - left, plate) + plate.new_tensor([left, top])
        at = transform(grid.view(1, -1, 2), fine.matrix[f : f + 1]).view(1, *grid.shape)
        a, b = sample(torch.cat([slope, level], 1)[f : f + 1], at, padding="zeros")[0]
        window = plate[f : f + 1, top:bottom, left:right, :3].permute(0, 3, 1, 2)
        filtered = a * _grey(window)[0, 0] + b
        out[f, top:bottom, left:right] = ((filtered - _LOW) / (_HIGH - _LOW)).clamp(0, 1)
    return out


def _around(shown: Geometry) -> Tensor:
    """(F, 1, S, S) 1 on the face and a little around it, fading outwards: hair beyond the hair line hides nothing."""
    return blur(dilate((shown.face > 0.1).to(shown.face), AROUND // 2), 1, 2)


def _regions(logits: Tensor) -> Tensor:
    """(F, 1, S, S) 0..1: what the net finds likely enough, wherever it hangs together with something it finds likelier.

    An object is seldom equally clear all over: a dark finger is sure at its edge only. A bare face has doubtful places, but hardly a core.
    """
    radius = 1
    core = dilate(-dilate(-(logits > _CORE).to(logits), radius), radius)
    likely = (logits > _LIKELY).to(logits)
    for _ in range(_GROWTH):
        core = dilate(core, 1) * likely
    return blur(core, 1, 1)


def _steadied(logits: Tensor, picture: Tensor, shot: Tensor) -> Tensor:
    """Logits (F, 1, S, S) of consecutive frames, averaged with their neighbours' where the face's crop (F, 3, S, S) has not changed."""
    logs = (picture.clamp_min(0) + _DARK).log()
    same = torch.exp(-((blur(logs.diff(dim=0).abs().mean(1, keepdim=True), 1, 1) / _CHANGED) ** 2))
    same = same * (shot[1:] == shot[:-1]).view(-1, 1, 1, 1)
    before, after = F.pad(same, (0, 0, 0, 0, 0, 0, 1, 0)), F.pad(same, (0, 0, 0, 0, 0, 0, 0, 1))
    earlier, later = logits.roll(1, 0), logits.roll(-1, 0)
    return (logits + before * earlier + after * later) / (1 + before + after)


def _guided(guide: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and level (F, 1, S, S) so that slope * guide + level follows `values` with the guide's edges."""
    mean_guide, mean = blur(guide, _RADIUS, 1), blur(values, _RADIUS, 1)
    variance = blur(guide * guide, _RADIUS, 1) - mean_guide.square()
    slope = (blur(guide * values, _RADIUS, 1) - mean_guide * mean) / (variance.clamp_min(0) + _FLAT)
    level = mean - slope * mean_guide
    return blur(slope, _RADIUS, 1), blur(level, _RADIUS, 1)


def _grey(images: Tensor) -> Tensor:
    """(F, 1, H, W) of display-referred pictures (F, 3, H, W), in 0..1."""
    return images.clamp(0, 1).mean(1, keepdim=True)
