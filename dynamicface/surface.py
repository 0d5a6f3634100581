"""The composed head as the plate's crop sees it, pixel by pixel, together with where each surface point was when filmed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .conventions import PARTS
from .filters import blur, dilate, unit
from .prior import light
from .prior.geometry import PosedHead
from .prior.raster import Raster

SKIN, EYES, MOUTH = 0, 1, 2
_GROUP_OF_PART = tuple(EYES if part.startswith("eye") else MOUTH if part in ("inner_mouth", "teeth", "tongue") else SKIN for part in PARTS)
_COLLAR_TOP, _COLLAR_BOTTOM = -0.13, -0.19  # metres in the head model: over this height of the neck an effect dies out
_EARS_BACK, _EARS_FRONT = -0.085, -0.06  # metres
_INNER_LIPS = [[81, 13, 311], [178, 14, 402]]
_CLOSED, _OPEN = 0.002, 0.0045  # metres between the lips
_TEETH, _MOUTH_FALLOFF = 0.008, 0.012  # metres behind the lips where the dark begins, and over which light fades
BEHIND = 0.006  # metres
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
    normals: tuple[Tensor, Tensor]  # (P, 3) camera space, as filmed and as composed
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

    def shade(self, which: int, illumination: Tensor) -> Tensor:
        """Shading (P, 3) with the filmed (0) or composed (1) normals under (F, 9, 3)."""
        return self.shade_normals(self.normals[which], illumination)

    def shade_normals(self, normals: Tensor, illumination: Tensor) -> Tensor:
        """Shading (P, 3) of unit normals (P, 3) in camera space under (F, 9, 3)."""
        if len(illumination) == 1:
            return light.shade(normals[None], illumination)[0]
        frames = light.basis(normals).split(self.frame.bincount(minlength=len(illumination)).tolist())
        return torch.cat([basis @ lamp for basis, lamp in zip(frames, illumination, strict=True)]).clamp_min(0.01)

    @cached_property
    def unseen(self) -> tuple[Tensor, Tensor]:
        """Two maps (F, 1, H, W): surface the plate does not show, and (soft) the part of it that is filled from the model.

        Ears, scalp and neck are never filled: there the plate's own hair and collar are stretched. So is the inside of a mouth that
        was open when filmed: its own teeth follow the lips.
        """
        size = self.before.size
        column, row = (self.came_from[:, k].long().clamp(0, size - 1) for k in (0, 1))
        other = groups(self.before.part)[self.frame, row, column] != self.group
        behind = self.came_from[:, 2] > self.before.depth[self.frame, 0, row, column] + BEHIND
        filmed, composed = (x[:, 0] for x in self.facing)
        turned = (filmed < _OBLIQUE) & (composed > filmed + _TURNED) & (self.group == SKIN)
        unseen = (other | behind | turned).to(self.uv.dtype)
        # A lid that travels takes its own skin along, not the lashes and the white it closed over.
        radius = max(1, size // 200)
        rim = dilate(_eyes(self.before), radius)[self.frame, 0, row, column] > 0
        shut = self._around_open_eyes.view(-1)[self.raster.pixel] == 0
        travelled = self.moved.square().sum(-1) > radius**2
        unseen = torch.maximum(unseen, (rim & (self.group == SKIN) & (travelled | shut)).to(unseen.dtype))
        kept = self.own_mouth[self.frame] * (self.group == MOUTH)
        maps = self.picture(torch.stack([torch.maximum(unseen, kept), unseen * self.region[:, 0] * (1 - kept)], -1))
        radius = max(1, size // 340)
        opened = dilate(-dilate(-maps, radius), radius)
        return torch.maximum(opened[:, :1], self.slit), blur(torch.maximum(opened[:, 1:], self.slit), 1, 1)

    @cached_property
    def slit(self) -> Tensor:
        """(F, 1, H, W) 1 where a crack of eyeball is left between lids that close: the lash line covers it."""
        return _eyes(self.after) * (1 - self._around_open_eyes) * _around_open_eyes(self.before)

    @cached_property
    def _around_open_eyes(self) -> Tensor:
        return _around_open_eyes(self.after)


def _eyes(posed: PosedHead) -> Tensor:
    """(F, 1, H, W) 1 on eyeballs."""
    return (groups(posed.part) == EYES)[:, None].to(posed.screen.dtype)


def _around_open_eyes(posed: PosedHead) -> Tensor:
    """(F, 1, H, W) 1 on and close around eyeballs that show as more than a crack."""
    radius = max(1, posed.size // 200)
    return dilate(dilate(-dilate(-_eyes(posed), radius), radius), 2 * radius)


def groups(part: Tensor) -> Tensor:
    """Part labels (..) -> SKIN (also where there is nothing), EYES or MOUTH."""
    return torch.tensor(_GROUP_OF_PART, device=part.device)[part.clamp_min(0)]


def surface_of(before: PosedHead, after: PosedHead) -> Surface:
    """Line the composed head up with the filmed one."""
    raster, head = after.raster, after.head
    moving = torch.cat(
        [before.screen, after.screen[..., :2], before.normal, after.normal, before.facing[..., None], after.facing[..., None]], -1
    )
    came_from, now_at, filmed, composed, *facing = raster.gather(moving).split((3, 2, 3, 3, 1, 1), -1)
    collar = ((head.template[:, 1] - _COLLAR_BOTTOM) / (_COLLAR_TOP - _COLLAR_BOTTOM)).clamp(0, 1)
    lips = head.landmarks(head.template)[[13, 14], 2].mean()
    depth = torch.exp(-(lips - _TEETH - head.template[:, 2]).clamp_min(0) / _MOUTH_FALLOFF)
    front = ((head.template[:, 2] - _EARS_BACK) / (_EARS_FRONT - _EARS_BACK)).clamp(0, 1)
    fixed = torch.cat([head.uv, torch.stack([head.face_region, depth, collar, front], -1)], -1)
    uv, region, openness, collar, front = raster.gather(fixed).split((2, 1, 1, 1, 1), -1)
    part = after.part.view(-1)[raster.pixel]
    group = groups(part)
    return Surface(
        before,
        after,
        torch.div(raster.pixel, after.size * after.size, rounding_mode="floor"),
        part,
        group,
        came_from,
        came_from[:, :2] - now_at,
        (unit(filmed), unit(composed)),
        tuple(facing),
        uv,
        torch.maximum(region, (group != SKIN)[:, None]),
        openness,
        collar,
        front,
        ((_lip_gap(before) - _CLOSED) / (_OPEN - _CLOSED)).clamp(0, 1),
    )


def _lip_gap(posed: PosedHead) -> Tensor:
    """(F,) metres between the inner lips, mean of three places."""
    points = posed.head.landmarks(posed.camera)
    return (points[:, _INNER_LIPS[0]] - points[:, _INNER_LIPS[1]]).norm(dim=-1).mean(-1)
