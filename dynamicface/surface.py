"""The composed head as the plate's crop sees it, pixel by pixel, together with where each surface point was when filmed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import PARTS
from .filters import blur, dilate
from .prior.geometry import PosedHead
from .prior.head import HeadModel
from .prior.raster import Raster

SKIN, EYES, MOUTH = 0, 1, 2
_GROUP_OF_PART = tuple(EYES if part.startswith("eye") else MOUTH if part in ("inner_mouth", "teeth", "tongue") else SKIN for part in PARTS)
_COLLAR_TOP, _COLLAR_BOTTOM = -0.13, -0.19  # metres in the head model: over this height of the neck an effect dies out
_EARS_BACK, _EARS_FRONT = -0.085, -0.06  # metres
_INNER_LIPS = [[81, 13, 311], [178, 14, 402]]
_CLOSED, _OPEN = 0.002, 0.0045  # metres between the lips
_STRETCHED = 0.003, 0.006  # metres the lips may part further before what lies between them is no longer stretched
_UPPER = 0.3  # of the jaw's longest way: teeth that move less belong to the skull
_TEETH, _MOUTH_FALLOFF = 0.008, 0.012  # metres behind the lips where the dark begins, and over which light fades
_BEHIND = 0.006  # metres
_MAX_GAIN = 4.0
_JAW = "jawOpen"
_OBLIQUE, _TURNED = 0.25, 0.12  # cosine below which the plate shows a surface poorly, once it turns to the camera by so much


@dataclass(frozen=True)
class Surface:
    """P covered pixels of the composed head in F crops."""

    before: PosedHead  # as filmed
    after: PosedHead  # as composed
    frame: Tensor  # (P,) which frame
    part: Tensor  # (P,) index into PARTS
    group: Tensor  # (P,) SKIN, EYES or MOUTH
    came_from: Tensor  # (P, 3) crop px, crop px, depth of the surface point as filmed
    moved: Tensor  # (P, 2) from where it is now to where it was, crop px
    shading: Tensor  # (P, 3) as filmed
    gain: Tensor  # (P, 3) natural log of the shading as composed over that as filmed, under the filmed light
    lamp: Tensor | None  # (P, 3) natural log of the composed light over the filmed one; None = the light is the filmed one
    facing: tuple[Tensor, Tensor]  # (P, 1) cosine to the camera, as filmed and as composed
    uv: Tensor  # (P, 2)
    region: Tensor  # (P, 1) weight of the face itself; 1 on eyes and in the mouth
    openness: Tensor  # (P, 1) 0..1 how much light would reach the point through open lips
    collar: Tensor  # (P, 1) 1 on the head, 0 at the lower end of the neck
    front: Tensor  # (P, 1) 1 on the front of the head, 0 from the ears backwards
    own_mouth: Tensor  # (F,) 1 where the filmed mouth is open, so that its own inside is kept

    @property
    def raster(self) -> Raster:
        return self.after.raster

    def picture(self, values: Tensor) -> Tensor:
        """(P, C) or (P,) -> (F, C, H, W), 0 beside the head."""
        return self.raster.scatter(values[:, None] if values.dim() == 1 else values).permute(0, 3, 1, 2)

    @cached_property
    def filmed_at(self) -> Tensor:
        """(F, H, W, 2) crop px where each pixel's surface was when filmed; 0 beside the head."""
        return self.raster.scatter(self.came_from[:, :2])

    def filmed_pixel(self, place: Tensor) -> Tensor:
        """(P,) flat index into F*H*W of the filmed crops' pixels at places (P, 3) crop px, crop px, depth."""
        size = self.before.size
        column, row = (place[:, k].long().clamp(0, size - 1) for k in (0, 1))
        return (self.frame * size + row) * size + column

    def is_shown(self, place: Tensor) -> Tensor:
        """(P,) whether the plate shows surface of the pixels' own group at places (P, 3), with nothing in front of it."""
        pixel = self.filmed_pixel(place)
        same = groups(self.before.part.take(pixel)) == self.group
        return same & ~(place[:, 2] > self.before.depth.take(pixel) + _BEHIND)

    @cached_property
    def unseen(self) -> tuple[Tensor, Tensor]:
        """Two maps (F, 1, H, W): surface the plate does not show, and (soft) the part of it that is filled from the model.

        Ears, scalp and neck are never filled: there the plate's own hair and collar are stretched. So is the inside of a mouth that
        was open when filmed: its own teeth follow the lips, as long as they do not part much further.
        """
        size, (rim, open_now, _) = self.before.size, self._eye_maps
        filmed, composed = (x[:, 0] for x in self.facing)
        turned = (filmed < _OBLIQUE) & (composed > filmed + _TURNED) & (self.group == SKIN)
        # A lid that travels takes its own skin along, not the lashes and the white it closed over.
        travelled = self.moved.square().sum(-1) > max(1, size // 200) ** 2
        lid = (
            (rim.take(self.filmed_pixel(self.came_from)) > 0) & (self.group == SKIN) & (travelled | (open_now.take(self.raster.pixel) == 0))
        )
        gap = self._mouth_gap
        unseen = torch.maximum((~self.is_shown(self.came_from) | turned | lid).to(self.uv.dtype), gap)
        kept = self.own_mouth[self.frame] * (self.group == MOUTH) * (1 - gap)
        maps = self.picture(torch.stack([torch.maximum(unseen, kept), unseen * self.region[:, 0] * (1 - kept)], -1))
        radius = max(1, size // 340)
        opened = dilate(-dilate(-maps, radius), radius)
        return torch.maximum(opened[:, :1], self.slit), blur(torch.maximum(opened[:, 1:], self.slit), 1, 1)

    @property
    def _mouth_gap(self) -> Tensor:
        """(P,) 0..1 how far a pixel lies in what lips that were open already lay bare below the plate's own teeth, which hold still."""
        head, size = self.after.head, self.before.size
        parted = _lip_gap(self.after) - _lip_gap(self.before)
        share = self.own_mouth * ((parted - _STRETCHED[0]) / (_STRETCHED[1] - _STRETCHED[0])).clamp(0, 1)
        upper = _upper_teeth(head)
        if not (share > 0).any() or not upper.any():
            return torch.zeros_like(self.uv[:, 0])
        still = (self.before.screen - self.after.screen)[:, upper, :2].mean(1)
        pixel = self.raster.pixel
        centre = torch.stack([pixel % size, pixel // size % size], -1) + 0.5
        inside = groups(self.before.part.take(self.filmed_pixel(centre + still[self.frame]))) == MOUTH
        tooth = self.raster.gather(upper[:, None].to(self.uv))[:, 0] > 0.5
        return share[self.frame] * ((self.group == MOUTH) & ~inside & ~tooth)

    @property
    def slit(self) -> Tensor:
        """(F, 1, H, W) 1 where a crack of eyeball is left between lids that close: the lash line covers it."""
        return self._eye_maps[2]

    @cached_property
    def _eye_maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """(F, 1, H, W) each: close around the eyeballs as filmed, around the open eyes as composed, and the slit.

        Only the rectangle that holds the eyes of all frames is looked at.
        """
        filmed, composed = ((groups(head.part) == EYES)[:, None] for head in (self.before, self.after))
        size = self.before.size
        radius = max(1, size // 200)
        rows, columns = ((filmed | composed).any(0)[0].any(dim).nonzero()[:, 0] for dim in (1, 0))
        if not len(rows):
            nothing = torch.zeros_like(filmed, dtype=self.uv.dtype)
            return nothing, nothing, nothing
        margin = 3 * radius + 1
        top, left = (max(int(line[0]) - margin, 0) for line in (rows, columns))
        bottom, right = (min(int(line[-1]) + margin + 1, size) for line in (rows, columns))
        filmed, composed = (eyes[..., top:bottom, left:right].to(self.uv.dtype) for eyes in (filmed, composed))
        around = _around_open(composed, radius)
        maps = dilate(filmed, radius), around, composed * (1 - around) * _around_open(filmed, radius)
        return tuple(F.pad(x, (left, size - right, top, size - bottom)) for x in maps)


def _around_open(eyes: Tensor, radius: int) -> Tensor:
    """(F, 1, H, W) 1 on and close around eyeballs (F, 1, H, W) that show as more than a crack."""
    return dilate(dilate(-dilate(-eyes, radius), radius), 2 * radius)


def groups(part: Tensor) -> Tensor:
    """Part labels (..) -> SKIN (also where there is nothing), EYES or MOUTH."""
    return torch.tensor(_GROUP_OF_PART, device=part.device).take(part.clamp_min(0))


def surface_of(before: PosedHead, after: PosedHead, filmed: Tensor, composed: Tensor) -> Surface:
    """Line the composed head up with the filmed one; illuminations (F, 9, 3) of both.

    Whatever varies over the mesh is computed at its vertices, which are far fewer than the pixels, and interpolated in one pass.
    """
    raster, head = after.raster, after.head
    shading, turned = before.shade(filmed), after.shade(filmed)
    values = [before.screen, (before.screen - after.screen)[..., :2], before.facing[..., None], after.facing[..., None], shading]
    values.append(_log_ratio(turned, shading))
    if relit := not torch.equal(filmed, composed):
        values.append(_log_ratio(after.shade(composed), turned))
    came_from, moved, facing_before, facing_after, shading, gain, *lamp = raster.gather(torch.cat(values, -1)).split(
        (3, 2, 1, 1, 3, 3, 3)[: 6 + relit], -1
    )
    collar = ((head.template[:, 1] - _COLLAR_BOTTOM) / (_COLLAR_TOP - _COLLAR_BOTTOM)).clamp(0, 1)
    lips = head.landmarks(head.template)[[13, 14], 2].mean()
    depth = torch.exp(-(lips - _TEETH - head.template[:, 2]).clamp_min(0) / _MOUTH_FALLOFF)
    front = ((head.template[:, 2] - _EARS_BACK) / (_EARS_FRONT - _EARS_BACK)).clamp(0, 1)
    fixed = torch.cat([head.uv, torch.stack([head.face_region, depth, collar, front], -1)], -1)
    uv, region, openness, collar, front = raster.gather(fixed).split((2, 1, 1, 1, 1), -1)
    group = groups(after.covered_part)
    return Surface(
        before,
        after,
        raster.frame,
        after.covered_part,
        group,
        came_from,
        moved,
        shading,
        gain,
        lamp[0] if lamp else None,
        (facing_before, facing_after),
        uv,
        torch.maximum(region, (group != SKIN)[:, None]),
        openness,
        collar,
        front,
        ((_lip_gap(before) - _CLOSED) / (_OPEN - _CLOSED)).clamp(0, 1),
    )


def _log_ratio(after: Tensor, before: Tensor) -> Tensor:
    return (after / before).clamp(1 / _MAX_GAIN, _MAX_GAIN).log()


@lru_cache(maxsize=4)
def _upper_teeth(head: HeadModel) -> Tensor:
    """(V,) the teeth that do not go with the jaw; none in a head without teeth or without a jaw."""
    upper = torch.zeros(len(head.template), dtype=torch.bool, device=head.template.device)
    if _JAW in head.expression_names:
        travel = head.expression_basis[head.expression_names.index(_JAW)].norm(dim=-1)
        upper[head.faces[head.part == PARTS.index("teeth")].unique()] = True
        upper &= travel < _UPPER * travel.max()
    return upper


def _lip_gap(posed: PosedHead) -> Tensor:
    """(F,) metres between the inner lips, mean of three places."""
    points = posed.head.landmarks(posed.camera)
    return (points[:, _INNER_LIPS[0]] - points[:, _INNER_LIPS[1]]).norm(dim=-1).mean(-1)
