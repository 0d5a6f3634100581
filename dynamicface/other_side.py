"""What a turning head reveals, borrowed from the other side of the same head where the plate shows that: cheek, ear and hair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import blur, dilate, fill_holes, masked_blur, sample
from .surface import SKIN, Surface

_FACING = (0.2, 0.4)  # cosines to the camera between which what the plate shows begins to be believed
_MAX_RATIO = 4.0  # of light between the two sides
_MATCH = 96  # resolution at which the borrowed side is matched to its surroundings


def other_side(surface: Surface, illumination: Tensor, picture: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
    """Linear colour (F, 3, H, W) under the filmed light and alpha (F, 1, H, W) of surface the plate shows only mirrored.

    illumination: (F, 9, 3) as filmed; picture: (F, 3, H, W) the linear plate in the crop; person: (F, 1, h, w) its matte. What is borrowed
    is relit by the fitted light and then matched to what the plate shows next to the gap.
    """
    before, raster, size = surface.before, surface.raster, surface.before.size
    twins = torch.cat([before.screen, before.facing[..., None], before.shade(illumination)], -1)[:, before.head.vertex_mirror]
    place, facing, shading = raster.gather(twins).split((3, 1, 3), -1)
    there, here = raster.scatter(place[:, :2]), surface.filmed_at
    on_person = [sample(person, at * (person.shape[-1] / size)) for at in (there, here)]
    shown = surface.picture((surface.is_shown(place) & (surface.group == SKIN)) * _believed(facing[:, 0])) * on_person[0]

    gap = surface.unseen[0]
    narrow = max(1, size // 72)  # a sliver would only be a line along the gap's border
    wide = dilate(-dilate(-(gap * (shown > 0.5)), narrow), narrow + 2)
    alpha = blur(gap, max(1, size // 256), 2) * shown * blur(wide, 2, 2) * blur(raster.mask[:, None].to(shown.dtype), 1, 2)

    relit = (surface.shading / shading).clamp(1 / _MAX_RATIO, _MAX_RATIO)
    colour = sample(picture, there) * surface.picture(relit)
    both = shown * on_person[1] * (gap < 0.01) * surface.picture(_believed(surface.facing[0][:, 0]))
    seen, twin, amount = (F.interpolate(x, (_MATCH, _MATCH), mode="area") for x in (sample(picture, here) * both, colour * both, both))
    ratio = ((seen + 1e-3) / (twin + 1e-3)).clamp(1 / _MAX_RATIO, _MAX_RATIO).log()
    spread = fill_holes(masked_blur(ratio, amount, _MATCH // 24), amount.clamp(0, 0.999))
    return colour * F.interpolate(spread, (size, size), mode="bilinear", align_corners=False).exp(), alpha


def _believed(facing: Tensor) -> Tensor:
    low, high = _FACING
    return ((facing - low) / (high - low)).clamp(0, 1)
