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
_LENGTH = 24  # texels that hair is followed
_BROW = 2e-3  # metres around the outline of a brow that belong to it
_FOREHEAD = 0.015  # metres above the eyes where it begins
_TEMPLE = 0.056, 0.0  # metres from the middle outwards, and above the eyes
_BESIDE = 0.050, -0.015


def without_hair(albedo: Tensor, seen: Tensor, head: HeadModel) -> Tensor:
    """How well each texel of a person's albedo (3, U, U) was seen, (1, U, U), with hair on forehead and temples not seen at all."""
    colour, weight = (F.interpolate(x[None], (_SIZE, _SIZE), mode="area") for x in (albedo, seen))
    bare, beside = _where_hair_hangs(head)
    logs = colour.clamp_min(2e-3).log()
    known = (weight > _KNOWN).to(logs.dtype)
    skin = fill_holes(logs, -dilate(-known * bare, _RIM))
    shown = torch.where(known * bare > 0, logs, skin)
    closed = -dilate(-dilate(shown, _WIDTH), _WIDTH)
    other = torch.where(known.flip(-1) > 0, logs.flip(-1), logs)
    strands, locks, uneven = (x.amax(1, keepdim=True) for x in ((closed - shown) / _STRAND, (skin - logs) / _LOCK, (other - logs) / _LOCK))
    dark = torch.maximum(bare * torch.maximum(strands, locks), torch.maximum(bare, beside) * uneven) > 1
    hair = _hanging_together(bare * (1 - known), dark.to(logs.dtype))
    hair = torch.maximum(bare, beside) * -dilate(-dilate(hair, _RIM), _RIM - 1)
    return seen * (1 - F.interpolate(hair, seen.shape[-2:], mode="bilinear", align_corners=False)[0])


def _hanging_together(seed: Tensor, through: Tensor) -> Tensor:
    """A seed (F, 1, U, U) grown through a mask, at most _LENGTH texels (morphological reconstruction)."""
    for _ in range(_LENGTH):
        seed = torch.maximum(seed, torch.minimum(dilate(seed, 1), through))
    return seed


@lru_cache(maxsize=4)
def _where_hair_hangs(head: HeadModel) -> tuple[Tensor, Tensor]:
    """(1, 1, U, U) each: 1 on the bare skin of forehead and temples; 1 on brows and beside the eyes."""
    table = texture.atlas(head, _SIZE)
    points = table.gather(head.template[None])[0]
    scale = points.new_tensor([0.09 / 2, 1.0])  # metres; halved across, since brows end farther out than their landmarks
    place, marks = cylinder(points) * scale, cylinder(head.landmarks(head.template)) * scale
    brows = torch.stack([polygon_distance(place, marks[list(ring)]) for ring in BROWS]).amax(0) > -_BROW
    across, up = points[:, 0].abs(), points[:, 1]
    skin = table.part == 0
    bare = skin & ~brows & ((up > _FOREHEAD) | ((across > _TEMPLE[0]) & (up > _TEMPLE[1])))
    beside = skin & (brows | ((across > _BESIDE[0]) & (up > _BESIDE[1])))
    return tuple(table.scatter(where.to(points.dtype)[None, :, None]) for where in (bare, beside))
