"""Rotations and the pinhole camera. Axes, signs and units: `conventions.py`."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rodrigues: axis times angle in radians (.., 3) -> rotation (.., 3, 3)."""
    angle = vector.norm(dim=-1, keepdim=True)[..., None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    small = angle < 1e-4
    safe = torch.where(small, torch.ones_like(angle), angle)
    first = torch.where(small, 1 - angle**2 / 6, torch.sin(safe) / safe)
    second = torch.where(small, 0.5 - angle**2 / 24, (1 - torch.cos(safe)) / safe**2)
    return eye + first * skew + second * (skew @ skew)


def vector_from_rotation(rotation: Tensor) -> Tensor:
    """Inverse of :func:`rotation_from_vector` for turns below 180 degrees: (.., 3, 3) -> axis times angle in radians (.., 3)."""
    skew = torch.stack([rotation[..., i, j] - rotation[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    sine, cosine = skew.norm(dim=-1, keepdim=True) / 2, (rotation.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None] - 1) / 2
    angle = torch.atan2(sine, cosine)
    return skew / 2 * torch.where(sine < 1e-6, torch.ones_like(angle), angle / sine.clamp_min(1e-6))


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Rotations from a (.., 3, 3) at t = 0 to b at t = 1 along the shortest way, at even speed; t (..)."""
    return rotation_from_vector(vector_from_rotation(b @ a.mT) * t[..., None]) @ a


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """(.., 3, 3) -> unit quaternions (.., 4) x y z w, w >= 0; exact for turns below 180 degrees."""
    vector = vector_from_rotation(rotation)
    half = vector.norm(dim=-1, keepdim=True) / 2
    return torch.cat([vector / 2 * torch.sinc(half / torch.pi), half.cos()], -1)


def rotation_from_euler(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Degrees (..,) each -> rotation (.., 3, 3) = Rz(-roll) Ry(yaw) Rx(-pitch)."""
    yaw, pitch, roll = (torch.deg2rad(torch.as_tensor(a, dtype=torch.float32)) for a in (yaw, pitch, roll))
    zero = torch.zeros_like(yaw + pitch + roll)
    turn = rotation_from_vector(torch.stack([zero, yaw + zero, zero], -1))
    nod = rotation_from_vector(torch.stack([-pitch + zero, zero, zero], -1))
    tip = rotation_from_vector(torch.stack([zero, zero, -roll + zero], -1))
    return tip @ turn @ nod


def euler_from_rotation(rotation: Tensor) -> Tensor:
    """Rotation (.., 3, 3) -> yaw, pitch, roll in degrees (.., 3); yaw in -90..90."""
    yaw = torch.asin((-rotation[..., 2, 0]).clamp(-1, 1))
    pitch = -torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = -torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], -1))


def to_camera(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Model space to camera space: (F, N, 3), (F, 3, 3), (F, 3) -> (F, N, 3)."""
    return points @ rotation.mT + translation[:, None]


def to_screen(points: Tensor, focal: Tensor, centre: Tensor) -> Tensor:
    """Camera space to pixels and depth: (F, N, 3), focal (F,), centre (F, 2) or (2,) -> (F, N, 3) x px, y px, depth m."""
    depth = -points[..., 2]
    scale = focal[:, None] / depth
    centre = centre.expand(len(points), 2)[:, None]
    return torch.stack([points[..., 0] * scale + centre[..., 0], -points[..., 1] * scale + centre[..., 1], depth], -1)


def crop_screen(screen: Tensor, matrix: Tensor) -> Tensor:
    """Move projected points from plate pixels to crop pixels: (F, N, 3), (F, 2, 3) -> (F, N, 3); the depth stays."""
    xy = screen[..., :2] @ matrix[..., :2].mT + matrix[..., None, :, 2]
    return torch.cat([xy, screen[..., 2:]], -1)


def image_centre(size: tuple[int, int], like: Tensor) -> Tensor:
    """The principal point (2,) of a plate of size (H, W)."""
    return torch.tensor([size[1] / 2, size[0] / 2], dtype=like.dtype, device=like.device)
