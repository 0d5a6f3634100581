"""FusionTVO's parts for sampling, without ComfyUI: segments, noise on the move, total variation, the mask on the latents' grid."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from dynamicface import DynamicFaceError, ImageError
from dynamicface.tvo import PairFlow
from dynamicface.tvo.noise import carried_noise
from dynamicface.tvo.sampling import SamplingDials, check_clip, latent_mask, smooth_along_flow, variation_weight
from dynamicface.tvo.segments import anchored, segment_weights, segments

SIZE = 24


def constant_flow(x: float, y: float, pairs: int, size: int = SIZE) -> PairFlow:
    """Everything moves by (x, y) px a frame and is seen everywhere."""
    forward = torch.tensor([x, y]).view(1, 2, 1, 1).expand(pairs, 2, size, size)
    seen = torch.ones(pairs, 1, size, size)
    return PairFlow(forward, -forward, seen, seen)


@pytest.mark.parametrize(("frames", "length", "overlap"), [(1, 4, 2), (4, 4, 2), (5, 4, 3), (17, 6, 2), (40, 16, 4)])
def test_segments_hold_every_frame_and_share_the_overlap(frames, length, overlap):
    parts = segments(frames, length, overlap)
    assert sorted({i for part in parts for i in part}) == list(range(frames))
    assert all(len(part) == min(length, frames) for part in parts)
    assert all(len(set(a) & set(b)) >= overlap for a, b in pairwise(parts))


def test_weights_are_the_papers():
    """min(i - a + 1, b - i, O + 1) / (O + 1), a = 10, b = 18, O = 2."""
    third = 1 / 3
    assert segment_weights(range(10, 18), 2) == pytest.approx([third, 2 * third, 1, 1, 1, 1, 2 * third, third])


def test_an_anchor_is_seen_but_not_fused():
    part = anchored(range(10, 14), 2)
    assert part == [2, 10, 11, 12, 13]
    assert segment_weights(part, 0) == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert anchored(range(0, 4), 2) == [0, 1, 2, 3]


def test_segments_that_overlap_too_much_are_refused():
    with pytest.raises(DynamicFaceError, match="from 0 to 3"):
        segments(10, 4, 4)
    with pytest.raises(DynamicFaceError, match="from 0 to 3"):
        SamplingDials(length=4, overlap=5)


def test_carried_noise_is_white_and_moves():
    """Unit variance, no correlation of neighbours, and whole cells ride on the flow, fractions of a cell included."""
    noise = torch.randn(9, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    carried = carried_noise(noise, constant_flow(0.5, 0.0, 8), 1.0)
    assert torch.equal(carried[0], noise[0])
    assert carried.std((1, 2, 3)).sub(1).abs().max() < 0.05
    assert (carried[..., 1:] * carried[..., :-1]).mean((1, 2, 3)).abs().max() < 0.08
    assert torch.equal(carried[8, ..., 4:], noise[0, ..., :-4])  # 8 frames of half a cell
    assert not torch.equal(carried[8, ..., :4], noise[0, ..., :4])


def test_share_of_noise():
    noise = torch.randn(3, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    flow = constant_flow(0.0, 0.0, 2)
    assert carried_noise(noise, flow, 0.0) is noise
    half = carried_noise(noise, flow, 0.5)
    assert half.std((1, 2, 3)).sub(1).abs().max() < 0.05
    correlation = (half[2] * half[1]).mean()
    assert float(correlation) == pytest.approx(0.5, abs=0.05)


def test_where_flow_meets_no_value_is_used_twice():
    """Particles that arrive in one cell: one stays, and cells that none reaches get noise of their own."""
    noise = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    flow = constant_flow(0.0, 0.0, 1)
    inward = torch.zeros_like(flow.forward)
    inward[:, 0, :, : SIZE // 2], inward[:, 0, :, SIZE // 2 :] = 3, -3
    carried = carried_noise(noise, PairFlow(inward, -inward, flow.forward_seen, flow.backward_seen), 1.0)
    assert carried[1].unique().numel() == SIZE * SIZE


def test_variation_is_taken_out_along_the_flow():
    """A drifting picture with noise in each frame comes nearer to the drifting picture; with weight 0 it is returned itself."""
    random = torch.Generator().manual_seed(1)
    still = torch.nn.functional.avg_pool2d(torch.randn(1, 4, SIZE + 2, SIZE + 22, generator=random), 3, 1) * 3
    clip = torch.cat([still[..., 2 * t : 2 * t + SIZE] for t in range(8)])
    noisy = clip + 0.15 * torch.randn(clip.shape, generator=random)
    flow = constant_flow(-2.0, 0.0, 7)
    assert smooth_along_flow(noisy, flow, 0.0) is noisy
    smooth = smooth_along_flow(noisy, flow, 2.0)
    assert (smooth - clip)[..., 4:-4].std() < 0.65 * (noisy - clip)[..., 4:-4].std()
    half = torch.zeros(8, 1, SIZE, SIZE)
    half[..., : SIZE // 2] = 1
    assert torch.equal(smooth_along_flow(noisy, flow, 2.0, half)[..., SIZE // 2 :], noisy[..., SIZE // 2 :])


def test_a_real_change_is_hardly_pulled():
    """Something that appears for good stays where it appeared (Huber)."""
    clip = torch.zeros(6, 4, SIZE, SIZE)
    clip[3:, :, 8:16, 8:16] = 5.0
    smooth = smooth_along_flow(clip, constant_flow(0.0, 0.0, 5), 1.0)
    assert smooth[2, :, 10:14, 10:14].max() < 0.5 and smooth[3, :, 10:14, 10:14].min() > 4.5


def test_variation_only_in_the_last_half():
    assert variation_weight(1.0, 0.49) == 0
    assert variation_weight(1.0, 0.5) > variation_weight(1.0, 0.75) > variation_weight(1.0, 1.0) == 0


def test_latent_mask_covers_what_the_face_touches():
    face = torch.zeros(2, 64, 64)
    face[:, 30, 30] = 1
    cells = latent_mask(face, (8, 8))
    assert cells[0, 0, 3, 3] == 1 and cells[0, 0, 7, 7] == 0 and cells.shape == (2, 1, 8, 8)
    assert (latent_mask(torch.zeros(1, 64, 64), (8, 8)) == 0).all()
    assert (latent_mask(torch.ones(1, 64, 64), (8, 8)) == 1).all()


def test_video_latents_are_refused_in_one_sentence():
    with pytest.raises(ImageError, match="context windows"):
        check_clip(torch.zeros(1, 16, 9, 8, 8), 9)
    with pytest.raises(ImageError, match="hold 3 frames, the plate has 4"):
        check_clip(torch.zeros(3, 4, 8, 8), 4)


def test_seams_of_segments_cannot_be_seen(benchmarks):
    seam = benchmarks("tvo").seam
    assert seam(8) < 1.05 and seam(4) < 1.05
    assert seam(0) > 1.15  # without overlap they can
