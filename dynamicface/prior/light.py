"""Spherical-harmonics light: basis, robust estimate, edits. Convention: `conventions.py`, *Light*.

Irradiance under distant light is, to 99 %, a quadratic polynomial of the normal (Ramamoorthi & Hanrahan 2001).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

COSINE_LOBE = (1.0, *(2 / 3,) * 3, *(1 / 4,) * 5)  # clamped cosine over pi, per band
_LUMINANCE = (0.2126, 0.7152, 0.0722)


def basis(normal: Tensor) -> Tensor:
    """The 9 real spherical harmonics of unit normals (.., 3) -> (.., 9)."""
    x, y, z = normal.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        -1,
    )


def shade(normal: Tensor, illumination: Tensor) -> Tensor:
    """Irradiance over pi at normals (F, .., 3) under (F, 9, 3) -> (F, .., 3), never below 2 % of the ambient light."""
    value = torch.einsum("f...k,fkc->f...c", basis(normal), illumination)
    floor = 0.02 * luminance(illumination[:, 0] * 0.282095).clamp_min(1e-4)
    return torch.maximum(value, floor.view(-1, *([1] * (value.dim() - 1))))


def luminance(colour: Tensor) -> Tensor:
    """Linear RGB (.., 3) -> relative luminance (..,)."""
    return colour @ colour.new_tensor(_LUMINANCE)


def estimate(radiance: Tensor, albedo: Tensor, normal: Tensor, weight: Tensor, *, ridge: float = 0.006, rounds: int = 5) -> Tensor:
    """Light of F frames from P surface samples each, by reweighted least squares (specular and shadow are outliers).

    radiance, albedo: (F, P, 3) linear; normal (F, P, 3); weight (F, P). ridge holds bands 1 and 2 back where normals vary little.
    Returns (F, 9, 3).
    """
    columns = basis(normal)
    products = (columns[..., :, None] * columns[..., None, :]).flatten(-2)  # (F, P, 81), the same in every round and channel
    hold = torch.diag(radiance.new_tensor([1e-4, *(1.0,) * 3, *(4.0,) * 5]) * ridge)
    energy, reflected = albedo.square(), albedo * radiance
    robust = weight
    for _ in range(rounds):
        total = robust.sum(1).clamp_min(1e-6)[:, None, None]
        seen = energy * robust[..., None]
        left = (seen.mT @ products).unflatten(-1, (9, 9)) + hold * seen.sum(1)[..., None, None].clamp_min(1e-6)  # (F, 3, 9, 9)
        right = (reflected * robust[..., None]).mT @ columns
        solution = torch.linalg.solve(left, right[..., None])[..., 0].mT
        residual = (albedo * (columns @ solution) - radiance).abs().mean(-1)
        spread = ((residual * robust).sum(1, keepdim=True) / total[..., 0]).clamp_min(1e-4)
        robust = weight / (1 + (residual / (1.5 * spread)) ** 2)
    return solution


def directional(azimuth: float, elevation: float, like: Tensor) -> Tensor:
    """SH (9,) of a white distant light of irradiance pi; azimuth > 0 from the viewer's right, elevation > 0 from above, degrees."""
    a, e = math.radians(azimuth), math.radians(elevation)
    direction = like.new_tensor([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    return basis(direction) * math.pi * like.new_tensor(COSINE_LOBE)


def frontal_level(illumination: Tensor) -> Tensor:
    """Mean shading (F, 3) of what faces the camera: the exposure a face in this light has."""
    z = illumination.new_tensor([1.0, 0.9, 0.75, 0.6])
    ring = torch.arange(8, dtype=z.dtype, device=z.device) * (math.pi / 4)
    r = (1 - z * z).sqrt()[:, None]
    normal = torch.stack([r * ring.cos(), r * ring.sin(), z[:, None].expand(-1, 8)], -1).view(-1, 3)
    return (basis(normal) @ illumination).mean(1)


def key_direction(illumination: Tensor) -> Tensor:
    """The dominant direction of the light (F, 3), from the linear band of its luminance."""
    band = torch.einsum("fkc,c->fk", illumination[:, 1:4], illumination.new_tensor(_LUMINANCE))
    return F.normalize(torch.stack([band[:, 2], band[:, 0], band[:, 1]], -1), dim=-1)


def rotate(illumination: Tensor, rotation: Tensor) -> Tensor:
    """Turn the light by a rotation: (F, 9, 3), (F, 3, 3) -> (F, 9, 3), exact, by re-fitting the basis on a few directions."""
    golden = math.pi * (3 - math.sqrt(5))
    k = torch.arange(64, dtype=illumination.dtype, device=illumination.device)
    z = 1 - (2 * k + 1) / 64
    r = (1 - z * z).sqrt()
    directions = torch.stack([r * torch.cos(golden * k), r * torch.sin(golden * k), z], -1)
    values = basis(directions @ rotation) @ illumination  # value at d of the turned light = value at R^T d of the light
    return torch.linalg.pinv(basis(directions)) @ values
