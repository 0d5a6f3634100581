"""The texture layout every head model shares, and the face region, both from positions alone.

Skin is a cylinder map of the template's front; eyeballs, teeth and mouth have slots in the strip below (`conventions.py`). The map runs
to the picture's top edge behind the ears, so that no triangle at the back of the head crosses the face.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

AXIS_Z = -0.085
"""Axis of the cylinder behind the eyes, metres."""
HALF_ANGLE = math.radians(110)
TOP, BOTTOM = 0.105, -0.130
"""Heights of the skin's map above the eyes, metres."""
SKIN_V = 0.875
SLOT_SIZE = (0.25, 0.125)
SLOTS = {"eye_left": 0.0, "eye_right": 0.25, "teeth": 0.5, "tongue": 0.75}
EYE_RANGE, EYE_POWER = math.radians(100), 0.6
"""An eyeball's disc shows this polar angle at its border; radius = (angle / range) ** power gives the iris more room."""
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_INSET = 0.003  # keeps bilinear lookups inside a chart


def cylinder(points: Tensor) -> Tensor:
    """Points (.., 3) -> angle about the head's axis, 0 in front, positive to the character's left, radians; height, metres (.., 2)."""
    return torch.stack([torch.atan2(points[..., 0], points[..., 2] - AXIS_Z), points[..., 1]], -1)


def skin_uv(points: Tensor) -> Tensor:
    """Points (.., 3) -> uv (.., 2)."""
    angle, height = cylinder(points).unbind(-1)
    behind = ((angle.abs() - HALF_ANGLE) / math.radians(40)).clamp(0, 1)
    behind = behind * behind * (3 - 2 * behind)
    u = 0.5 + 0.5 * (angle / HALF_ANGLE).clamp(-1, 1)
    v = ((TOP - height) / (TOP - BOTTOM)).clamp(0, 1) * (1 - behind)
    return torch.stack([u, v], -1) * (1 - 2 * _INSET) * u.new_tensor([1, SKIN_V]) + _INSET


def eye_uv(directions: Tensor, slot: str) -> Tensor:
    """Unit directions (.., 3) from the eye's centre -> uv (.., 2) on the slot's disc."""
    polar = torch.acos(directions[..., 2].clamp(-1, 1))
    radius = (polar / EYE_RANGE).clamp(0, 1) ** EYE_POWER
    azimuth = torch.atan2(-directions[..., 1], directions[..., 0])
    disc = torch.stack([azimuth.cos(), azimuth.sin()], -1) * radius[..., None]
    return _in_slot(0.5 + 0.48 * disc, slot)


def eye_polar(uv: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of :func:`eye_uv` for uv (.., 2) in either eye's slot: polar angle and azimuth, radians."""
    unit = uv.new_tensor([SLOT_SIZE[0], SLOT_SIZE[1]])
    corner = torch.stack([(uv[..., 0] / unit[0]).floor() * unit[0], torch.full_like(uv[..., 1], SKIN_V)], -1)
    disc = ((uv - corner) / unit - 0.5) / 0.48
    return disc.norm(dim=-1) ** (1 / EYE_POWER) * EYE_RANGE, torch.atan2(-disc[..., 1], disc[..., 0])


def box_uv(points: Tensor, slot: str) -> Tensor:
    """Points (.., 2) in 0..1 -> uv (.., 2) in the slot, a little inside its border."""
    return _in_slot(0.02 + 0.96 * points.clamp(0, 1), slot)


def _in_slot(points: Tensor, slot: str) -> Tensor:
    return points * points.new_tensor(SLOT_SIZE) + points.new_tensor([SLOTS[slot], SKIN_V])


def face_region(points: Tensor, landmarks: Tensor, skin: Tensor) -> Tensor:
    """How far each of points (V, 3) belongs to the face, (V,) 0..1.

    landmarks (478, 3) on them; skin (V,) 0..1 what may belong. Full inside MediaPipe's face oval raised to the hairline, gone 12 mm
    outside it.
    """
    scale = points.new_tensor([0.09, 1.0])  # radians to metres at the face's radius
    oval = cylinder(landmarks[list(FACE_OVAL)])
    oval[:, 1] += 0.28 * oval[:, 1].clamp_min(0)
    inside = polygon_distance(cylinder(points) * scale, oval * scale)
    front = points[:, 2] > AXIS_Z + 0.03
    return ((inside + 0.012) / 0.014).clamp(0, 1) * front * skin


def polygon_distance(points: Tensor, polygon: Tensor) -> Tensor:
    """(N,) distance of points (N, 2) to a closed polygon (K, 2), positive inside."""
    start, end = polygon, polygon.roll(-1, 0)
    edge, arm = end - start, points[:, None] - start
    along = ((arm * edge).sum(-1) / edge.square().sum(-1)).clamp(0, 1)
    distance = (arm - along[..., None] * edge).norm(dim=-1).amin(1)
    height = points[:, None, 1]
    spans = (start[:, 1] > height) != (end[:, 1] > height)
    crossing = start[:, 0] + edge[:, 0] * (height - start[:, 1]) / torch.where(edge[:, 1] == 0, 1e-12, edge[:, 1])
    inside = (spans & (points[:, None, 0] < crossing)).sum(1) % 2 == 1
    return torch.where(inside, distance, -distance)
