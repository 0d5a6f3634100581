"""Paste Back: exact outside of the mask, sub-pixel inside, unclamped, and its inputs are checked with sentences."""

from __future__ import annotations

import pytest
import torch

from dynamicface.errors import ImageError
from dynamicface.images import sample_crops
from dynamicface.paste import feathered, match_colour, paste_back
from dynamicface.types import FaceCrop


def smooth_plate(frames: int = 2, height: int = 120, width: int = 160, scale: float = 1.0) -> torch.Tensor:
    """A plate without detail finer than ten pixels, with values beyond 0..1."""
    y, x = torch.meshgrid(torch.arange(height) / 20, torch.arange(width) / 20, indexing="ij")
    frame = torch.stack([torch.sin(x + y), torch.cos(x - y), torch.sin(x) * torch.cos(y)], -1)
    return scale * torch.stack([frame * (1 + f) for f in range(frames)])


def crops_of(plate: torch.Tensor, size: int = 64, zoom: float = 0.9) -> tuple[torch.Tensor, FaceCrop]:
    """A crop at a fractional position that differs between the frames."""
    corner = torch.stack([torch.tensor([40.3 + 5.7 * f, 25.8 + 3.1 * f]) for f in range(len(plate))])
    matrix = torch.cat([zoom * torch.eye(2).expand(len(plate), 2, 2), -zoom * corner[..., None]], -1)
    return sample_crops(plate, matrix, size).permute(0, 2, 3, 1), FaceCrop(matrix, size)


def test_round_trip_of_crop_and_paste():
    plate = smooth_plate()
    images, crop = crops_of(plate)
    out, alpha = paste_back(plate, images, torch.ones(2, 64, 64), crop)
    inside = alpha > 0.99
    assert inside.sum() > 2000
    assert (out - plate)[inside].abs().max() < 0.02  # of a range of 4
    assert out.max() > 1.9 and out.min() < -1.9, "values beyond 0..1 survive"


def test_nothing_outside_of_the_mask_changes():
    plate = smooth_plate()
    _, crop = crops_of(plate)
    mask = torch.zeros(2, 64, 64)
    mask[:, 20:40, 24:44] = 1
    out, alpha = paste_back(plate, torch.full((2, 64, 64, 3), 9.0), mask, crop, feather=0.1)
    assert torch.equal(out[alpha == 0], plate[alpha == 0])
    changed = (out != plate).any(-1)
    assert 100 < changed.sum() / 2 < (20 / 0.9 + 2) ** 2


def test_an_empty_mask_returns_the_plate():
    plate = smooth_plate()
    images, crop = crops_of(plate)
    out, alpha = paste_back(plate, images * 0, torch.zeros(2, 64, 64), crop, colour_match=1.0)
    assert torch.equal(out, plate) and not alpha.any()


@pytest.mark.parametrize("factor", [2, 4])
def test_an_upscaled_crop_lands_in_the_same_place(factor):
    plate = smooth_plate(1)
    images, crop = crops_of(plate)
    large = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2), scale_factor=factor, mode="bicubic").permute(0, 2, 3, 1)
    out, alpha = paste_back(plate, large, torch.ones(1, 64, 64), crop)
    assert (out - plate)[alpha > 0.99].abs().max() < 0.03


def test_occlusion_keeps_the_plate():
    plate = smooth_plate(1)
    images, crop = crops_of(plate)
    hand = torch.zeros(1, 120, 160)
    hand[:, :, 70:90] = 1
    out, alpha = paste_back(plate, images + 1, torch.ones(1, 64, 64), crop, occlusion=hand)
    assert torch.equal(out[:, :, 70:90], plate[:, :, 70:90]) and not alpha[:, :, 70:90].any()
    assert (out[:, 40:80, 50:68] != plate[:, 40:80, 50:68]).any()


def test_colour_match_undoes_a_tint():
    plate = smooth_plate(1, scale=0.3)
    images, crop = crops_of(plate)
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    tinted = images * torch.tensor([0.8, 0.9, 1.1]) + torch.tensor([0.2, 0.0, -0.1])
    plain, alpha = paste_back(plate, tinted, mask, crop)
    matched, _ = paste_back(plate, tinted, mask, crop, colour_match=1.0)
    error = [(out - plate)[alpha > 0.9].abs().mean() for out in (plain, matched)]
    assert error[1] < 0.1 * error[0]


def test_feather_is_soft_inwards_and_ends_at_the_border():
    mask = torch.zeros(1, 1, 100, 100)
    mask[..., :50] = 1
    soft = feathered(mask, 0.2)
    assert not soft[..., 50:].any()
    row = soft[0, 0, 50]
    assert row[49] < 0.1 and row[25] > 0.95 and (row[25:49].diff() <= 1e-6).all()
    assert row[0] < 0.1, "a mask that touches the crop's border fades before it"
    assert torch.equal(feathered(mask, 0.0), mask)


def test_match_colour_needs_something_to_compare():
    picture = torch.rand(8, 8, 3)
    assert torch.equal(match_colour(picture, picture + 1, torch.zeros(8, 8)), picture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(1, 64, 64, 3)}, "'images' has 1 frames, the plate has 2"),
        ({"mask": torch.zeros(3, 64, 64)}, "'mask' has 3 frames"),
        ({"images": torch.zeros(2, 64, 48, 3)}, "48 x 64 pixels; a face crop is square"),
        ({"occlusion": torch.zeros(2, 60, 80)}, "occlusion mask is 80 x 60 pixels, the plate is 160 x 120"),
        ({"images": torch.full((2, 64, 64, 3), float("nan"))}, "NaN"),
    ],
)
def test_unfit_inputs_are_sentences(changes, message):
    plate = smooth_plate()
    images, crop = crops_of(plate)
    with pytest.raises(ImageError, match=message):
        paste_back(**({"plate": plate, "images": images, "mask": torch.ones(2, 64, 64), "crop": crop} | changes))


def test_with_a_base_only_the_difference_lands_and_the_plate_keeps_its_detail():
    plate = smooth_plate() + torch.randn(2, 120, 160, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    base, crop = crops_of(plate)
    mask = torch.ones(2, 64, 64)
    same, _ = paste_back(plate, base, mask, crop, base=base)
    assert torch.equal(same, plate), "nothing was generated, nothing changes"
    brighter, alpha = paste_back(plate, base + 0.25, mask, crop, base=base)
    torch.testing.assert_close(brighter - plate, 0.25 * alpha[..., None].expand(-1, -1, -1, 3), atol=1e-5, rtol=0)
    with pytest.raises(ImageError, match="connect the crops the images were generated from"):
        paste_back(plate, base, mask, crop, base=base[:, :32, :32])
