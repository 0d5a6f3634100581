from __future__ import annotations

import math

import pytest
import torch

from dynamicface.errors import ImageError
from dynamicface.images import as_plate, crops_of_frames, invert, linear_crops, sample_crops, square_matrix, transform


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (None, "NoneType"),
        (torch.zeros(8, 8, 3), r"\(8, 8, 3\)"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "divide by 255"),
        (torch.zeros(0, 8, 8, 3), "holds no frames"),
        (torch.zeros(1, 0, 8, 3), "8 x 0 pixels"),
        (torch.zeros(1, 8, 8, 5), "5 channels"),
    ],
)
def test_unusable_images_are_refused_with_a_sentence(images, sentence):
    with pytest.raises(ImageError, match=sentence):
        as_plate(images)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_frames_with_unusable_pixels_are_named(value):
    images = torch.zeros(4, 6, 5, 3)
    images[[1, 3], 2, 2, 0] = value
    with pytest.raises(ImageError, match=r"frame 1, 3;"):
        as_plate(images)


def test_values_beyond_the_range_are_kept_and_alpha_is_dropped():
    images = torch.tensor([-0.5, 1.0, 7.5, 0.3]).expand(2, 3, 5, 4)
    assert as_plate(images).shape == (2, 3, 5, 3)
    assert as_plate(images)[0, 0, 0].tolist() == [-0.5, 1.0, 7.5]


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_becomes_three_channels(channels):
    images = torch.rand(1, 3, 5, channels)
    plate = as_plate(images)
    assert plate.shape == (1, 3, 5, 3)
    assert all(torch.equal(plate[..., c], images[..., 0]) for c in range(3))


def test_ordinary_plates_are_not_copied():
    images = torch.rand(2, 4, 4, 3)
    assert as_plate(images).data_ptr() == images.data_ptr()


def test_square_matrix_maps_the_square_onto_the_crop():
    centre, side, angle = torch.tensor([[50.0, 40.0]]), torch.tensor([20.0]), torch.tensor([math.pi / 2])
    matrix = square_matrix(centre, side, angle, 100)
    points = torch.tensor([[[50.0, 40.0], [60.0, 30.0]]])  # with the x axis turned down, the crop's left top is right above
    torch.testing.assert_close(transform(points, matrix), torch.tensor([[[50.0, 50.0], [0.0, 0.0]]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(transform(transform(points, matrix), invert(matrix)), points, atol=1e-4, rtol=0)


def test_an_aligned_crop_copies_pixels():
    images = torch.rand(1, 12, 16, 3)
    matrix = torch.tensor([[[1.0, 0.0, -4.0], [0.0, 1.0, -2.0]]])
    crop = sample_crops(images, matrix, 8)
    torch.testing.assert_close(crop[0].permute(1, 2, 0), images[0, 2:10, 4:12], atol=1e-4, rtol=0)


def test_crops_of_any_frame_equal_crops_of_that_frame_alone():
    images = torch.rand(5, 12, 16, 3)
    matrix = square_matrix(torch.tensor([[3.0, 2.0], [15.0, 11.0]]), torch.tensor([9.0, 20.0]), torch.tensor([0.3, -1.0]), 16)
    together = sample_crops(images, matrix, 16, torch.tensor([4, 0]))
    alone = torch.cat([sample_crops(images[4:], matrix[:1], 16), sample_crops(images[:1], matrix[1:], 16)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_crops_of_bytes_equal_crops_of_floats(padding):
    images = torch.randint(0, 256, (3, 40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    centre = torch.tensor([[30.0, 20.0], [2.0, 39.0], [200.0, -90.0]])
    matrix = square_matrix(centre, torch.tensor([9.0, 70.0, 20.0]), torch.tensor([0.3, -1.0, 0.0]), 16)
    crops = sample_crops(images, matrix, (16, 12), padding=padding)
    torch.testing.assert_close(crops, sample_crops(images.float() / 255, matrix, (16, 12), padding=padding), atol=1e-4, rtol=0)
    chosen = sample_crops(images, matrix[:1], 16, torch.tensor([2]))
    torch.testing.assert_close(chosen, sample_crops(images[2:], matrix[:1], 16))


def test_outside_is_black_or_repeats_the_edge():
    images = torch.ones(1, 4, 4, 3)
    matrix = torch.tensor([[[1.0, 0.0, 4.0], [0.0, 1.0, 0.0]]])
    assert sample_crops(images, matrix, (4, 8), padding="zeros")[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert sample_crops(images, matrix, (4, 8)).min() == 1


def test_minification_averages_instead_of_skipping():
    stripes = (torch.arange(90) % 3 == 0).float().expand(90, 90)[None, ..., None].expand(-1, -1, -1, 3)
    crop = sample_crops(stripes, torch.tensor([[[1 / 3, 0.0, 0.0], [0.0, 1 / 3, 0.0]]]), 30)
    assert (crop - 1 / 3).abs().max() < 0.2  # a single tap would give all or nothing


def test_crops_are_differentiable():
    images = torch.rand(2, 9, 9, 3, requires_grad=True)
    matrix = square_matrix(torch.full((2, 2), 4.5), torch.full((2,), 6.0), torch.zeros(2), 6)
    sample_crops(images, matrix, 6).sum().backward()
    assert images.grad[:, 4, 4].min() > 0
    assert images.grad[:, 0, 0].abs().max() == 0


@pytest.mark.parametrize("centre", [(40.0, 30.0), (3.0, 50.0), (-90.0, -80.0)], ids=["inside", "at an edge", "outside"])
def test_reading_only_what_crops_show_changes_nothing(centre):
    plate = torch.rand(4, 60, 80, 3, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([2, 0])
    matrix = square_matrix(torch.tensor([centre, (centre[0] + 2.5, centre[1])]), torch.tensor([24.0, 31.0]), torch.tensor([0.2, -0.3]), 16)
    torch.testing.assert_close(crops_of_frames(plate, frames, matrix, 16), linear_crops(plate[frames], matrix, 16), atol=1e-4, rtol=0)
