"""Hair that hangs over the forehead and the temples is not skin, and no identity's albedo should hold it.

Dark structures narrower than a window stand out against a morphological closing, as in the removal of hair from pictures of skin lesions
(Lee et al. 1997, DullRazor). Here they are hair where they hang together with what was never taken for skin, hair line and scalp: so
moles and wrinkles stay, brows and beards are not looked at.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import dilate, fill_holes
from ..landmark_sets import BROWS
from . import texture
from .atlas import cylinder, polygon_distance
from .head import HeadModel

_SIZE = 256  # of the texture in which hair is looked for; one texel is about 1.2 mm
_KNOWN = 0.3  # how well a texel was seen that counts as skin
_RIM = 2  # texels beside hair and brows that tell nothing of the skin
_WIDTH = 7  # texels, half the width of the widest strand
_STRAND = 0.18  # natural log: how much darker than the skin beside it
_LOCK = 0.5  # .. than the skin around, where more than a strand hangs in
_UNEVEN = 0.8  # .. than the other side of the face, where brows and lids are dark themselves
_LENGTH = 24  # texels that hair is followed
_BROW = 3e-3  # metres around the outline of a brow that belong to it
_FOREHEAD = 0.015  # metres above the eyes where it begins
_TEMPLE = 0.060, 0.0  # metres from the middle outwards, and above the eyes
_BESIDE = 0.050, -0.015


def without_hair(albedo: Tensor, seen: Tensor, head: HeadModel) -> Tensor:
    """How well each texel of a person's albedo (3, U, U) was seen, (1, U, U), with hair on forehead and temples not seen at all."""
    colour, weight = (F.interpolate(x[None], (_SIZE, _SIZE), mode="area") for x in (albedo, seen))
    bare, beside = _where_hair_hangs(head)
    logs = colour.clamp_min(2e-3).log()
    known = weight > _KNOWN
    skin = fill_holes(logs, -dilate(-(known & bare).to(logs.dtype), _RIM))
    shown = torch.where(known & bare, logs, skin)
    closed = -dilate(-dilate(shown, _WIDTH), _WIDTH)
    other = torch.where(known.flip(-1), logs.flip(-1), logs)
    dark = bare & (_darker(shown, closed, _STRAND) | _darker(logs, skin, _LOCK)) | (bare | beside) & _darker(logs, other, _UNEVEN)
    hair = _hanging_together((bare & ~known).to(logs.dtype), dark.to(logs.dtype))
    hair = (bare | beside) * -dilate(-dilate(hair, _RIM), _RIM - 1)
    return seen * (1 - F.interpolate(hair, seen.shape[-2:], mode="bilinear", align_corners=False)[0])


def _darker(logs: Tensor, than: Tensor, by: float) -> Tensor:
    """(F, 1, U, U) bool: darker in any channel, blond hair being darker than skin in blue alone."""
    return (than - logs).amax(1, keepdim=True) > by


def _hanging_together(seed: Tensor, through: Tensor) -> Tensor:
    """A seed (F, 1, U, U) grown through a mask, at most _LENGTH texels (morphological reconstruction)."""
    for _ in range(_LENGTH):
        seed = torch.maximum(seed, torch.minimum(dilate(seed, 1), through))
    return seed


@lru_cache(maxsize=4)
def _where_hair_hangs(head: HeadModel) -> tuple[Tensor, Tensor]:
    """(1, 1, U, U) bool each: the bare skin of forehead and temples; brows and the skin beside the eyes."""
    table = texture.atlas(head, _SIZE)
    points = table.gather(head.template[None])[0]
    scale = points.new_tensor([0.09 / 2, 1.0])  # metres; halved across, since brows end farther out than their landmarks
    place, marks = cylinder(points) * scale, cylinder(head.landmarks(head.template)) * scale
    brows = torch.stack([polygon_distance(place, marks[list(ring)]) for ring in BROWS]).amax(0) > -_BROW
    across, up = points[:, 0].abs(), points[:, 1]
    skin = table.part == 0
    bare = skin & ~brows & ((up > _FOREHEAD) | ((across > _TEMPLE[0]) & (up > _TEMPLE[1])))
    beside = skin & (brows | ((across > _BESIDE[0]) & (up > _BESIDE[1])))
    return tuple(table.scatter(where[None, :, None]) for where in (bare, beside))
