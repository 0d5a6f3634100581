"""Spherical-harmonics light: the basis, recovery of known light, turning."""

import torch
import torch.nn.functional as F

from dynamicface.prior import light
from dynamicface.prior.camera import rotation_from_euler


def normals(count: int = 4000) -> torch.Tensor:
    return F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_basis_is_orthonormal_on_the_sphere():
    b = light.basis(normals(400_000))
    gram = b.T @ b / len(b) * 4 * torch.pi
    torch.testing.assert_close(gram, torch.eye(9), atol=0.03, rtol=0)


def test_directional_light_is_a_clamped_cosine():
    n = normals()
    direction = torch.tensor([torch.sin(torch.tensor(0.7)), 0, torch.cos(torch.tensor(0.7))])
    value = light.basis(n) @ light.directional(0.7 * 180 / torch.pi, 0.0, n)
    assert (value - (n @ direction).clamp_min(0)).abs().max() < 0.1  # 9 terms leave at most this


def test_known_light_is_recovered_from_shading():
    n = normals()[None].expand(2, -1, -1)
    truth = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(1)) * 0.1
    truth[:, 0] = 3.0
    albedo = torch.rand(2, 4000, 3, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.2
    radiance = albedo * (light.basis(n) @ truth)
    radiance[:, :200] = 3.0  # highlights
    found = light.estimate(radiance, albedo, n, torch.ones(2, 4000), ridge=1e-4)
    assert (found - truth).abs().max() < 0.05


def test_turning_light_equals_turning_normals_back():
    n, turn = normals()[None], rotation_from_euler(40, 20, 10)[None]
    lit = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(light.basis(n) @ light.rotate(lit, turn), light.basis(n @ turn) @ lit, atol=1e-4, rtol=1e-4)


def test_key_direction_of_a_lamp():
    lamp = light.directional(50.0, 20.0, torch.zeros(1))[None, :, None].expand(1, 9, 3)
    direction = light.key_direction(lamp)[0]
    assert direction[0] > 0.6 and direction[1] > 0.2 and direction[2] > 0.5
