"""Photos of different sizes become one batch without touching their pixels or their optical centre."""

from __future__ import annotations

import pytest
import torch

from dynamicface.errors import ImageError
from dynamicface.photos import LONGEST_SIDE, stack_photos
from dynamicface.prior.camera import euler_from_rotation


def photo(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(height))


def test_photos_of_one_size_are_joined():
    a, b = photo(20, 30), photo(20, 30, 4)
    assert torch.equal(stack_photos([a, b]), torch.cat([a, b[..., :3]]))


def test_others_are_centred_on_a_common_canvas():
    a, b, grey = photo(20, 30), photo(40, 10), photo(8, 8, 1)
    stacked = stack_photos([a, b, grey])
    assert stacked.shape == (3, 40, 30, 3)
    assert torch.equal(stacked[0, 10:30], a[0]) and not stacked[0, :10].any() and not stacked[0, 30:].any()
    assert torch.equal(stacked[1, :, 10:20], b[0])
    assert torch.equal(stacked[2, 16:24, 11:19], grey[0].expand(8, 8, 3))


def test_large_photos_are_scaled_down_for_the_canvas():
    stacked = stack_photos([photo(LONGEST_SIDE * 2, 64), photo(10, 12)])
    assert stacked.shape == (2, LONGEST_SIDE, 32, 3)


def test_a_broken_photo_is_a_sentence():
    with pytest.raises(ImageError, match="NaN"):
        stack_photos([photo(8, 8), torch.full((1, 9, 9, 3), float("nan"))])


def test_a_photo_fits_on_the_canvas_as_it_does_alone(pipeline, fitted, portrait):
    plate = stack_photos([portrait, portrait[:, 40:472, 30:482]])
    prior = pipeline.fit(plate, texture_size=0)
    alone = euler_from_rotation(fitted.rotation)[0]
    assert (euler_from_rotation(prior.rotation) - alone).abs().max() < 2.5
    assert len(prior) == 2 and prior.identity.shape.dim() == 1
    assert (prior.expression[0] - prior.expression[1]).abs().mean() < 0.03
