"""Metrics of pictures and clips against scikit-image or a case with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from dynamicface import ImageError
from dynamicface.metrics import (
    inter_frame_ssim,
    outside_difference,
    relative_detail,
    ssim,
    ssim_map,
    warp_error,
)
from dynamicface.metrics.sharpness import detail


@pytest.fixture(scope="module")
def pair(portrait):
    """A photograph and a noisy, darker copy."""
    clean = portrait[:, 40:200, 120:300]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean, (0.8 * clean + 0.05 * noise).clamp(0, 1)


def reference(a, b, **options):
    settings = {"channel_axis": -1, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    return structural_similarity(a[0].numpy().astype(np.float64), b[0].numpy().astype(np.float64), **settings, **options)


def test_ssim_is_the_reference_s(pair):
    assert float(ssim(*pair)) == pytest.approx(reference(*pair), abs=1e-5)
    _, local = reference(*pair, full=True)
    inner = (slice(None), slice(5, -5), slice(5, -5))
    np.testing.assert_allclose(ssim_map(*pair)[inner].numpy(), local.mean(-1)[None][inner], atol=1e-4)


def test_ssim_under_a_mask_is_the_mean_of_the_map(pair):
    mask = torch.zeros(pair[0].shape[:3])
    mask[:, 30:60, 40:90] = 1
    assert float(ssim(*pair, mask)) == pytest.approx(float(ssim_map(*pair)[:, 30:60, 40:90].mean()), abs=1e-5)
    assert float(ssim(pair[0], pair[0], mask)) == pytest.approx(1.0, abs=1e-5)


def test_pictures_of_two_sizes_are_refused(pair):
    with pytest.raises(ImageError, match="1 frame of 180 x 160 with 3 channels, the reference is 1 frame of 170 x 160"):
        ssim(pair[0], pair[1][:, :, 10:])


@pytest.fixture(scope="module")
def drifting(portrait):
    """A clip that moves three pixels to the left a frame, and the flow that leads back."""
    clip = torch.cat([portrait[:, 50:150, 100 + 3 * t : 220 + 3 * t] for t in range(4)])
    flow = torch.zeros(3, 2, 100, 120)
    flow[:, 0] = 3.0
    return clip, flow


def inside(clip):
    """Everything but a border that leaves the picture."""
    mask = torch.ones(clip.shape[:3])
    mask[:, :, -12:] = 0
    return mask


def test_motion_is_taken_out(drifting):
    clip, flow = drifting
    mask = inside(clip)
    assert inter_frame_ssim(clip, mask=mask).max() < 0.9
    assert inter_frame_ssim(clip, flow, mask).min() > 0.9999
    assert warp_error(clip, flow, mask).max() < 1e-4


def test_flicker_is_what_remains(drifting):
    """A brightness that alternates by 0.1 leaves exactly that difference."""
    clip, flow = drifting
    flicker = clip + 0.05 * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None, None]
    torch.testing.assert_close(warp_error(flicker, flow, inside(clip)), torch.full((3,), 0.1), atol=1e-4, rtol=0)
    assert inter_frame_ssim(flicker, flow, inside(clip)).max() < inter_frame_ssim(clip, flow, inside(clip)).min()


def test_one_frame_has_no_neighbour(drifting):
    clip, flow = drifting
    with pytest.raises(ImageError, match="at least two"):
        inter_frame_ssim(clip[:1])
    with pytest.raises(ImageError, match=r"must be \(3, 2, 100, 120\)"):
        warp_error(clip, flow[:2])


def test_outside_difference_ignores_the_mask(pair):
    plate = pair[0].expand(2, -1, -1, -1).clone()
    result, mask = plate.clone(), torch.zeros(plate.shape[:3])
    mask[:, 20:40, 20:40] = 0.5
    result[:, 20:40, 20:40] += 1
    assert outside_difference(result, plate, mask).tolist() == [0, 0]
    result[1, 50, 50, 2] += 0.25
    assert outside_difference(result, plate, mask[:1]).tolist() == pytest.approx([0, 0.25])
    with pytest.raises(ImageError, match="one mask per frame"):
        outside_difference(result, plate, mask[:, :-1])


def test_detail_of_a_known_ripple():
    """A checkerboard of amplitude 0.1 is all fine detail; the double blur leaves a 1/81 of it."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = (0.5 + 0.1 * (1 - 2 * ((x + y) % 2)))[None, :, :, None].expand(-1, -1, -1, 3)
    middle = torch.zeros(1, 64, 64)
    middle[:, 8:-8, 8:-8] = 1
    assert float(detail(board, middle)) == pytest.approx(0.1 * (1 - 1 / 81), rel=1e-3)


def test_a_blurred_face_is_softer(portrait):
    soft = torch.nn.functional.avg_pool2d(portrait.permute(0, 3, 1, 2), 5, 1, 2).permute(0, 2, 3, 1)
    assert float(relative_detail(portrait, portrait)) == pytest.approx(1)
    assert float(relative_detail(soft, portrait)) < 0.5
