"""The square around a face in which frames are compared, and the face's oval in it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..images import square_matrix, transform
from ..landmark_sets import FACE_OVAL
from ..prior.fit import MESH
from ..prior.raster import rasterise

_AROUND = 1.2  # side of the square over the face's extent


def face_square(landmarks: Tensor, size: int) -> Tensor:
    """(F, 2, 3) PLATE to the upright square around landmarks (F, 478, 2..)."""
    centre, side = face_extent(landmarks)
    return square_matrix(centre, side, torch.zeros_like(side), size)


def face_extent(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (F, 2) and sides (F,) of those squares, px."""
    points = landmarks[:, :MESH, :2]
    low, high = points.amin(1), points.amax(1)
    return (low + high) / 2, (high - low).amax(-1) * _AROUND


def cut_squares(frames: Tensor, centre: Tensor, side: int) -> Tensor:
    """(F, side, side, C) pixels of frames (F, H, W, C) around centres (F, 2), not resampled; moved inwards at the frame's edge."""
    room = torch.tensor([frames.shape[2] - side, frames.shape[1] - side], device=frames.device)
    corner = (centre - side / 2).round().long().clamp_min(0).minimum(room)
    steps = torch.arange(side, device=frames.device)
    columns, rows = (corner[:, i, None] + steps for i in (0, 1))
    return frames[torch.arange(len(frames), device=frames.device)[:, None, None], rows[:, :, None], columns[:, None]]


def face_oval(landmarks: Tensor, matrix: Tensor, size: int) -> Tensor:
    """(F, size, size) 1 inside the outline of faces, in their squares."""
    ring = transform(landmarks[:, list(FACE_OVAL), :2], matrix)
    fan = torch.cat([ring, ring.mean(1, keepdim=True)], 1)
    screen = torch.cat([fan, torch.ones_like(fan[..., :1])], -1)
    edge = torch.arange(len(FACE_OVAL), device=ring.device)
    triangles = torch.stack([edge, (edge + 1) % len(FACE_OVAL), torch.full_like(edge, len(FACE_OVAL))], 1)
    return rasterise(screen, triangles, (size, size), cull=False).mask.to(landmarks.dtype)
