"""Jitter: what trembles from frame to frame. Second differences, because a steady motion has none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import unit
from ..prior.fit import MESH, OUTER_EYES


def landmark_jitter(landmarks: Tensor) -> Tensor:
    """(F,) RMS second difference of the mesh landmarks (F, 478, 2..) in % of the outer-eye distance; 0 at both ends of the clip."""
    points = landmarks[:, :MESH, :2]
    a, b = OUTER_EYES
    size = (points[:, a] - points[:, b]).norm(dim=-1).nanmedian()
    return 100 * _ends(_second(points).square().sum(-1).mean(-1).sqrt() / size, len(points))


def pose_jitter(rotation: Tensor) -> Tensor:
    """(F,) change of the turn from frame to frame in degrees, of head rotations (F, 3, 3); 0 at both ends of the clip."""
    steps = _axis_angle(rotation[1:] @ rotation[:-1].mT)
    return torch.rad2deg(_ends((steps[1:] - steps[:-1]).norm(dim=-1), len(rotation)))


def jitter_rms(values: Tensor) -> float:
    """One number for a clip: the root mean square of per-frame jitter (F,), both ends left out."""
    inner = values[1:-1]
    return float(inner.square().mean().sqrt()) if len(inner) else 0.0


def _second(values: Tensor) -> Tensor:
    return values[2:] - 2 * values[1:-1] + values[:-2]


def _ends(values: Tensor, frames: int) -> Tensor:
    """From the inner frames to all; a clip of one or two frames has no jitter."""
    return F.pad(values, (1, 1))[:frames]


def _axis_angle(rotation: Tensor) -> Tensor:
    """Rotation vectors (.., 3) in radians of rotations (.., 3, 3) below half a turn."""
    r = rotation
    axis = torch.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1)
    sine = axis.norm(dim=-1) / 2
    cosine = (r.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return unit(axis) * torch.atan2(sine, cosine)[..., None]
