"""Sampling, blurs and hole filling."""

from __future__ import annotations

import pytest
import torch

from dynamicface.filters import blur, fill_holes, masked_blur, pixel_grid, sample, sample_each, signed_distance


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0)) * 4 - 1


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_sampling_at_pixel_centres_gives_the_pixels(pictures, mode):
    grid = pixel_grid(20, 31, pictures).expand(2, -1, -1, -1)
    torch.testing.assert_close(sample(pictures, grid, mode=mode), pictures, atol=2e-5, rtol=0)


def test_points_are_read_like_a_grid(pictures):
    points = torch.tensor([[[3.0, 4.5], [0.5, 0.5]], [[10.0, 2.0], [30.5, 19.5]]])
    values = sample(pictures, points)
    assert values.shape == (2, 3, 2)
    torch.testing.assert_close(values[0, :, 0], (pictures[0, :, 4, 2] + pictures[0, :, 4, 3]) / 2)
    torch.testing.assert_close(values[1, :, 1], pictures[1, :, 19, 30])


def test_beyond_the_border(pictures):
    far = torch.tensor([[[-50.0, 4.5]]]).expand(2, -1, -1)
    torch.testing.assert_close(sample(pictures, far)[..., 0], pictures[:, :, 4, 0])
    assert not sample(pictures, far, padding="zeros").any()


def test_blur_keeps_constants_and_lowers_contrast(pictures):
    flat = torch.full((1, 1, 9, 13), 2.5)
    torch.testing.assert_close(blur(flat, 3), flat)
    assert blur(pictures, 2).std() < 0.3 * pictures.std()
    assert torch.equal(blur(pictures, 0), pictures)


def test_masked_blur_ignores_what_is_masked(pictures):
    weight = torch.ones(2, 1, 20, 31)
    weight[..., 15:] = 0
    polluted = torch.where(weight > 0, pictures, 1e4)
    torch.testing.assert_close(masked_blur(polluted, weight, 3), masked_blur(pictures, weight, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (17, 29), (1, 7)])
def test_holes_are_filled_within_the_range_of_what_is_known(size):
    random = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, *size, generator=random)
    weight = (torch.rand(2, 1, *size, generator=random) > 0.6).float()
    filled = fill_holes(torch.where(weight > 0, images, 77.0), weight)
    known = weight.expand_as(images) > 0
    assert torch.equal(filled[known], images[known])
    assert filled.min() > -1e-5 and filled.max() < 1 + 1e-5


def test_a_hole_in_a_constant_is_the_constant():
    weight = torch.ones(1, 1, 33, 40)
    weight[..., 8:30, 5:30] = 0
    filled = fill_holes(torch.full((1, 2, 33, 40), 3.0) * weight, weight)
    torch.testing.assert_close(filled, torch.full_like(filled, 3.0))


def test_many_points_read_as_few_do():
    image, points = torch.rand(1, 3, 20, 30), torch.rand(1, 40_000, 2) * 30
    together = sample(image, points, mode="bicubic")
    assert torch.equal(together[..., :100], sample(image, points[:, :100], mode="bicubic"))
    assert torch.equal(together[..., -100:], sample(image, points[:, -100:], mode="bicubic"))


def test_each_point_reads_its_own_frame():
    images = torch.arange(3.0)[:, None, None, None].expand(3, 2, 8, 8)
    frame = torch.tensor([2, 0, 1, 2, 0])
    points = torch.tensor([[0.0, 0.0], [4.0, 8.0], [8.0, 0.0], [4.0, 4.0], [0.0, 0.0]])
    assert torch.equal(sample_each(images, points, frame), frame[:, None].expand(-1, 2).float())
    assert torch.equal(sample_each(images[1:2], points, frame), torch.ones(5, 2))


def test_distance_is_exact_up_to_its_limit():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    from_centre = ((x - 32).square() + (y - 32).square()).sqrt()
    distance = signed_distance((from_centre < 12).float()[None, None], 10)[0, 0]
    near = (from_centre - 12).abs() < 8
    assert (distance - (from_centre - 12))[near].abs().max() < 1.0
    assert distance[0, 0] == 9.5 and distance[32, 32] < -8
