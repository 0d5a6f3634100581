"""NIQE against the figures of the reference, which shows the authors' program's to four digits, and constructed cases.

Stored figures: `niqe` of basicsr 1.4.2 (basicsr/metrics/niqe.py with its own parameters), called in double precision with
np.round(255 * picture @ MATLAB's rgb2gray weights).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicface import ImageError
from dynamicface.metrics import niqe
from dynamicface.metrics.niqe import patch_features
from dynamicface.metrics.square import cut_squares

REFERENCE = {  # photograph: as it is, soft, noisy
    "chelsea": [2.572084, 6.358719, 10.815619],
    "coffee": [4.058465, 6.068477, 10.860725],
}


@pytest.fixture(scope="module")
def data():
    return pytest.importorskip("skimage.data", reason="needs scikit-image's photographs")


def levels(picture: Tensor) -> Tensor:
    return (255 * picture.clamp(0, 1)).round() / 255


def soft(picture: Tensor) -> Tensor:
    """Two box blurs of 3 px, rounded to 8 bits."""
    x = picture.double().permute(0, 3, 1, 2)
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return levels(x.permute(0, 2, 3, 1))


def noisy(picture: Tensor) -> Tensor:
    """Noise of 0.1, the same on every machine, rounded to 8 bits."""
    return levels(picture + torch.from_numpy(np.random.RandomState(0).normal(0, 0.1, picture.shape)))


@pytest.fixture(scope="module")
def versions(data):
    """versions("chelsea") -> (3, H, W, 3) double: the photograph, a soft and a noisy copy."""

    def make(name: str) -> Tensor:
        picture = torch.from_numpy(getattr(data, name)().astype(np.float64) / 255)[None]
        return torch.cat([picture, soft(picture), noisy(picture)])

    return make


@pytest.mark.parametrize("name", REFERENCE)
def test_figures_are_the_reference_s(versions, name):
    assert niqe(versions(name)).tolist() == pytest.approx(REFERENCE[name], rel=2e-4)


def test_a_batch_is_its_pictures(versions):
    pictures = versions("chelsea")[:, :, :288].float()
    torch.testing.assert_close(niqe(pictures), torch.cat([niqe(picture[None]) for picture in pictures]), rtol=1e-6, atol=0)


def test_blur_and_noise_are_unnatural(portrait):
    clean, blurred, grainy = niqe(torch.cat([portrait, soft(portrait).float(), noisy(portrait).float()])).tolist()
    assert clean < 3.5 and blurred > clean + 2 and grainy > clean + 4


def test_unclamped_pictures_are_measured_as_they_are_shown(portrait):
    bright = 1.5 * portrait - 0.2
    assert torch.equal(niqe(bright), niqe(bright.clamp(0, 1)))


def test_what_is_flat_is_left_out(portrait):
    """Black bars have no structure to judge; a picture of nothing else has no figure, and the others of its batch keep theirs."""
    face = portrait[:, :288, :288]
    barred = torch.cat([face, torch.zeros(1, 288, 192, 3)], 2)
    features = patch_features(barred)
    assert features.isnan().any(-1).reshape(3, 5)[:, -1].all() and niqe(barred) == pytest.approx(float(niqe(face)), abs=0.5)
    scores = niqe(torch.cat([face, torch.full_like(face, 0.5)]))
    assert scores[0] == pytest.approx(float(niqe(face)), rel=1e-6) and scores[1].isnan()


def test_small_pictures_are_refused_in_a_sentence(portrait):
    with pytest.raises(ImageError, match="at least 192 x 192 pixels, which are four of its patches; these are 300 x 191"):
        niqe(portrait[:, :191, :300])


def test_squares_are_cut_without_resampling():
    frames = torch.arange(2 * 8 * 10).reshape(2, 8, 10, 1)
    cut = cut_squares(frames, torch.tensor([[5.0, 4.0], [100.0, -3.0]]), 4)
    assert torch.equal(cut[0], frames[0, 2:6, 3:7]) and torch.equal(cut[1], frames[1, 0:4, 6:10])
