"""FusionTVO's promises on a clip whose truth is known: a textured plate that drifts, a change painted on it, and flicker on top."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynamicface import DynamicFaceError, ImageError
from dynamicface.filters import blur, pixel_grid, sample
from dynamicface.metrics.sharpness import detail
from dynamicface.tvo import Dials, DisFlow, FusionTVO, RaftFlow, plate_flow, stabilise
from dynamicface.tvo.background import steady_matte
from dynamicface.tvo.flow import consistency, paths, warp
from dynamicface.tvo.fuse import Neighbour, collapse, laplacian, level_count
from dynamicface.tvo.lock import anchor

pytest.importorskip("cv2", reason="optical flow needs OpenCV")

FRAMES, SIZE = 14, 96
STEP = 1.3, 0.6  # px per frame


def texture(seed: int, size: int = 160) -> Tensor:
    """(1, 3, size, size) a picture with structure in every scale."""
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    scales = [blur(noise, radius, 2) for radius in (1, 3, 8)]
    return 0.45 + sum(0.09 * part / part.std() for part in scales)


def drifting(picture: Tensor, frames: int = FRAMES) -> Tensor:
    """(F, SIZE, SIZE, 3): a window that glides over a picture."""
    grid = pixel_grid(SIZE, SIZE, picture) + 20
    shift = torch.arange(frames)[:, None] * torch.tensor(STEP)
    return sample(picture.expand(frames, -1, -1, -1), grid + shift[:, None, None], mode="bicubic").movedim(1, -1)


def flickering(truth: Tensor, plate: Tensor, mask: Tensor, exposure: float = 0.06, noise: float = 0.03, jitter: float = 0.0) -> Tensor:
    """The truth with exposure and colour, grain and place new in every frame, inside the mask."""
    random = torch.Generator().manual_seed(3)
    shift = (torch.rand(len(truth), 2, generator=random) * 2 - 1) * jitter
    grid = pixel_grid(SIZE, SIZE, truth) + shift[:, None, None]
    moved = sample(truth.movedim(-1, 1), grid, mode="bicubic").movedim(1, -1)
    gain = 1 + exposure * torch.randn(len(truth), 1, 1, 3, generator=random)
    bad = moved * gain + noise * torch.randn(truth.shape, generator=random)
    return plate + (bad - plate) * mask[..., None]


def error(clip: Tensor, truth: Tensor, mask: Tensor) -> float:
    inside = mask > 0.99
    return float((clip - truth)[inside].square().mean().sqrt())


@pytest.fixture(scope="module")
def plate() -> Tensor:
    return drifting(texture(1))


@pytest.fixture(scope="module")
def truth(plate) -> Tensor:
    """A change that moves with the plate: regraded, with a pattern painted on."""
    return 0.8 * plate.flip(-1) + 0.5 * drifting(texture(2)) - 0.15


@pytest.fixture(scope="module")
def mask() -> Tensor:
    """A soft disc."""
    distance = (pixel_grid(SIZE, SIZE, torch.zeros(())) - SIZE / 2).norm(dim=-1)
    return ((38 - distance) / 6).clamp(0, 1).expand(FRAMES, -1, -1)


@pytest.fixture(scope="module")
def flicker(truth, plate, mask) -> Tensor:
    return flickering(truth, plate, mask)


def blended(clip: Tensor, plate: Tensor) -> Tensor:
    """Plain flow blending: each frame averaged with the result before it, carried along the flow."""
    flow = plate_flow(plate.movedim(-1, 1))
    out = [clip[:1].movedim(-1, 1)]
    for i in range(1, len(clip)):
        here = clip[i : i + 1].movedim(-1, 1)
        pull = 0.5 * flow.backward_seen[i - 1 : i]
        out.append(torch.lerp(here, warp(out[-1], flow.backward[i - 1 : i]), pull))
    return torch.cat(out).movedim(1, -1)


def test_flicker_goes_detail_stays(truth, plate, mask, flicker):
    """Nearer to the truth than the input, a temporal median and flow blending, and as sharp as the truth."""
    result = stabilise(flicker, plate, mask)
    padded = torch.cat([flicker[:1]] * 2 + [flicker] + [flicker[-1:]] * 2)
    median = torch.stack([padded[i : i + FRAMES] for i in range(5)]).median(0).values
    ours = error(result, truth, mask)
    assert ours < 0.55 * error(flicker, truth, mask)
    assert ours < 0.8 * error(blended(flicker, plate), truth, mask)
    assert ours < 0.8 * error(median, truth, mask)
    inside = (mask > 0.99).float()
    assert 0.97 < float((detail(result, inside) / detail(truth, inside)).mean()) < 1.2


def test_jitter_of_the_crop_is_removed(truth, plate, mask):
    shaken = flickering(truth, plate, mask, exposure=0.0, noise=0.0, jitter=2.0)
    result = stabilise(shaken, plate, mask, Dials(radius=3))
    assert error(result, truth, mask) < 0.6 * error(shaken, truth, mask)
    assert error(stabilise(shaken, plate, mask, Dials(radius=3, lock=False)), truth, mask) > error(result, truth, mask)


def test_a_blink_in_the_plate_passes(truth, plate, mask):
    """Something that appears in plate and result for three frames keeps its amplitude, though the rest is calmed."""
    lid = torch.zeros(FRAMES, SIZE, SIZE, 1)
    lid[6:9, 40:52, 36:60] = 0.35
    open_eye = flickering(truth, plate, mask)
    result = stabilise(open_eye - lid, plate - lid, mask)
    shown = (result - stabilise(open_eye, plate, mask))[7, 42:50, 38:58].mean()
    assert float(shown) == pytest.approx(-0.35, rel=0.05)


@pytest.mark.parametrize("painted", [0.2, 0.5])
def test_a_blink_of_another_depth_keeps_its_own(truth, plate, mask, painted):
    """The changed face closes less, or further, than the filmed one: neither the plate's blink nor the open eye around it leaks in."""
    filmed, shown = (torch.zeros(FRAMES, SIZE, SIZE, 1) for _ in range(2))
    filmed[6:9, 40:52, 36:60], shown[6:9, 40:52, 36:60] = 0.35, painted
    open_eye = flickering(truth, plate, mask)
    result = stabilise(open_eye - shown, plate - filmed, mask)
    level = (result - stabilise(open_eye, plate, mask))[:, 42:50, 38:58].mean((1, 2, 3))
    assert level[6:9].tolist() == pytest.approx([-painted] * 3, rel=0.05)
    assert level[[4, 5, 9, 10]].abs().max() < 0.05 * painted


def test_light_of_the_plate_passes(truth, plate, mask):
    """A lamp that is switched on halfway is not smoothed over time."""
    lamp = torch.where(torch.arange(FRAMES) < 7, 1.0, 1.5)[:, None, None, None]
    flat = torch.full_like(plate, 0.4) + 0.2 * (plate - plate.mean())
    result = stabilise(flat * lamp * 0.9, flat * lamp, mask)
    level = result[:, 40:56, 40:56].mean((1, 2, 3)) / (flat * 0.9)[:, 40:56, 40:56].mean((1, 2, 3))
    assert level[5:7].max() < 1.02 and level[7:9].min() > 1.48


@pytest.mark.parametrize("dials", [Dials(strength=0), Dials(radius=0), Dials(strength=0, background="plate", background_strength=0)])
def test_neutral_is_exact(flicker, plate, mask, dials):
    assert dials.neutral
    assert torch.equal(stabilise(flicker, plate, mask, dials), flicker)


def test_outside_of_the_mask_and_behind_occluders_nothing_changes(flicker, plate, mask):
    hand = torch.zeros(FRAMES, SIZE, SIZE)
    hand[4:8, 40:60, 40:50] = 1
    result = stabilise(flicker, plate, mask, occlusion=hand)
    assert torch.equal(result[mask == 0], flicker[mask == 0])
    assert torch.equal(result[hand == 1], flicker[hand == 1])
    assert not torch.equal(result, flicker)


@pytest.mark.parametrize("dials", [Dials(protect=0.0), Dials(live=True), Dials(lock=False), Dials(strength=0.3), Dials(background="plate")])
def test_outside_of_the_mask_whatever_the_dials(flicker, plate, mask, dials):
    matte = None if dials.background == "leave" else torch.ones(1, SIZE, SIZE)
    result = stabilise(flicker, plate, mask, dials, matte=matte)
    assert torch.equal(result[mask == 0], flicker[mask == 0])
    assert not torch.equal(result, flicker)


def test_strength_is_a_share_of_the_correction(flicker, plate, mask):
    whole = stabilise(flicker, plate, mask) - flicker
    part = stabilise(flicker, plate, mask, Dials(strength=0.25)) - flicker
    assert torch.allclose(part, 0.25 * whole, atol=1e-6)


def test_a_clean_clip_stays_as_it_is(truth, plate, mask):
    clean = plate + (truth - plate) * mask[..., None]
    assert error(stabilise(clean, plate, mask), clean, mask) < 0.012


def test_values_beyond_white_and_alpha_survive(flicker, plate, mask):
    alpha = torch.rand(FRAMES, SIZE, SIZE, 1, generator=torch.Generator().manual_seed(5))
    bright = torch.cat([flicker * 8 - 2, alpha], -1)
    result = stabilise(bright, plate * 8 - 2, mask)
    assert torch.equal(result[..., 3:], alpha)
    inside = mask > 0.99
    assert result[..., :3][inside].max() > 3 and result[..., :3][inside].min() < 0


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 13, 14])
def test_as_many_frames_come_out(flicker, plate, mask, frames):
    result = stabilise(flicker[:frames], plate[:frames], mask[:frames], Dials(radius=1))
    assert result.shape == flicker[:frames].shape
    if frames == 1:
        assert torch.equal(result, flicker[:1])


def streamed(tvo: FusionTVO, flicker: Tensor, plate: Tensor, mask: Tensor, window: int) -> list[Tensor]:
    out = [tvo.push(*(part[i : i + window] for part in (flicker, plate, mask))) for i in range(0, len(flicker), window)]
    return [*out, tvo.flush()]


def test_windows_do_not_matter(flicker, plate, mask):
    """Frame by frame or in windows: the same pixels, after the stated delay."""
    tvo = FusionTVO(Dials(radius=1))
    single = streamed(tvo, flicker, plate, mask, 1)
    assert [len(part) for part in single[:-1]] == [0] * tvo.look_ahead + [1] * (FRAMES - tvo.look_ahead)
    assert torch.equal(torch.cat(single), torch.cat(streamed(FusionTVO(Dials(radius=1)), flicker, plate, mask, 5)))


def test_live_has_no_delay(flicker, plate, truth, mask):
    tvo = FusionTVO(Dials(radius=2, live=True))
    out = streamed(tvo, flicker, plate, mask, 1)
    assert tvo.look_ahead == 0 and all(len(part) == 1 for part in out[:-1]) and out[-1] is None
    assert error(torch.cat(out[:-1]), truth, mask) < 0.8 * error(flicker, truth, mask)


@pytest.mark.parametrize("dials", [Dials(radius=1), Dials(radius=1, live=True), Dials(radius=2, lock=False)])
def test_a_frame_depends_on_what_is_stated_and_on_nothing_else(flicker, plate, mask, dials):
    """Frames beyond `look_ahead` and before `history` may be anything; those within are not for show."""
    tvo, t = FusionTVO(dials), 8
    whole = torch.cat([part for part in streamed(tvo, flicker, plate, mask, 4) if part is not None])

    def with_other(frames: slice) -> Tensor:
        clip = flicker.clone()
        clip[frames] = clip[frames].flip(1)
        return torch.cat([part for part in streamed(FusionTVO(dials), clip, plate, mask, 4) if part is not None])[t]

    assert torch.equal(with_other(slice(t + tvo.look_ahead + 1, None)), whole[t])
    assert torch.equal(with_other(slice(0, t - tvo.history)), whole[t])
    if tvo.look_ahead:
        assert not torch.equal(with_other(slice(t + tvo.look_ahead, None)), whole[t])


@pytest.mark.parametrize("dials", [Dials(radius=1), Dials(radius=1, live=True)])
def test_a_stopped_job_goes_on(flicker, plate, mask, dials):
    """After `history` frames of warming up the pixels are those of the job that was never stopped."""
    resume = 8
    tvo = FusionTVO(dials)
    begin = resume - tvo.history
    whole, again = (
        torch.cat([part for part in streamed(FusionTVO(dials), flicker[start:], plate[start:], mask[start:], 4) if part is not None])
        for start in (0, begin)
    )
    assert begin > 0 and torch.equal(again[tvo.history :], whole[resume:])


def test_memory_does_not_grow(flicker, plate, mask):
    tvo = FusionTVO(Dials(radius=1))
    held = []
    for i in range(FRAMES):
        tvo.push(flicker[i : i + 1], plate[i : i + 1], mask[i : i + 1])
        held.append(tvo.held)
    assert held[-1] == held[-4] == max(held) <= tvo.history + tvo.look_ahead + 1


def test_background_of_the_plate_is_the_plate(flicker, plate, mask):
    shaken = flicker + 0.05
    result = stabilise(shaken, plate, mask, Dials(background="plate"), matte=mask)
    far = mask == 0
    far[:, 2:-2, 2:-2] &= (torch.nn.functional.max_pool2d(mask[:, None], 15, 1, 7)[:, 0] == 0)[:, 2:-2, 2:-2]
    assert torch.equal(result[far], plate[far])


def test_generated_background_is_calmed_along_the_camera(truth, plate, mask):
    """Flicker outside of the person goes, too, although the picture drifts."""
    nobody = torch.zeros(FRAMES, SIZE, SIZE)
    everywhere = torch.ones_like(nobody)
    flicker = flickering(truth, plate, everywhere, exposure=0.0)
    result = stabilise(flicker, plate, nobody, Dials(background="generated"), matte=nobody)
    assert error(result, truth, everywhere) < 0.7 * error(flicker, truth, everywhere)


def test_bad_input_is_one_sentence(flicker, plate, mask):
    with pytest.raises(ImageError, match=r"14 frames of the result and 13 of the plate.*Connect"):
        stabilise(flicker, plate[1:], mask)
    with pytest.raises(ImageError, match="96 x 96 pixels, the plate 96 x 90"):
        stabilise(flicker, plate[:, :90], mask)
    with pytest.raises(ImageError, match="mask is 90 x 96"):
        stabilise(flicker, plate, mask[..., :90])
    with pytest.raises(ImageError, match="images input has 1 channel"):
        stabilise(flicker[..., :1], plate, mask)
    with pytest.raises(ImageError, match="no matte"):
        stabilise(flicker, plate, mask, Dials(background="plate"))
    with pytest.raises(DynamicFaceError, match="from 0 to 1"):
        Dials(strength=1.5)
    with pytest.raises(DynamicFaceError, match="leave, plate, generated"):
        Dials(background="blur")


def test_a_shaken_clip_is_put_back_onto_the_plate(truth, plate, mask):
    """The mean of shaken frames lies beside the truth; measured on the plate, part of that is taken back. An unshaken one stays."""
    weight = mask[:1, None]
    there = truth[:1].movedim(-1, 1) * 0.3 + 0.7 * plate[:1].movedim(-1, 1)
    off = sample(there, (pixel_grid(SIZE, SIZE, there) + torch.tensor([0.5, -0.3]))[None], mode="bicubic")
    variance = torch.tensor([0.01, 0.01, 0.0, 0.0]).square()
    shift = anchor(off, plate[:1].movedim(-1, 1), weight, variance) * SIZE
    assert shift[:2].tolist() == pytest.approx([-0.5, 0.3], abs=0.1)
    assert (anchor(off, plate[:1].movedim(-1, 1), weight, torch.zeros(4)) == 0).all()
    little = torch.full((4,), 0.001)
    assert (anchor(off, plate[:1].movedim(-1, 1), weight, little.square()).abs() <= 2.001 * little).all()


# --- the parts --------------------------------------------------------------------------------------------------------------


def test_flow_finds_the_drift(plate):
    flow = plate_flow(plate[:3].movedim(-1, 1))
    inner = flow.forward[..., 20:-20, 20:-20]
    assert inner.mean((0, 2, 3)).tolist() == pytest.approx([-step for step in STEP], abs=0.15)
    assert flow.backward[..., 20:-20, 20:-20].mean((0, 2, 3)).tolist() == pytest.approx(STEP, abs=0.15)
    assert flow.forward_seen[..., 20:-20, 20:-20].mean() > 0.95


def test_flow_that_does_not_come_back_is_not_believed():
    there, back = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    there[:, 0, :, 4:] = 5  # leaves the picture, or meets what did not come from here
    sure = consistency(there, back)
    assert (sure[..., :4] == 1).all() and (sure[..., 4:] == 0).all()


def test_paths_add_up(plate):
    flow = plate_flow(plate[:5].movedim(-1, 1))
    pairs = [flow[i : i + 1] for i in range(4)]
    *_, (ahead, _) = paths(pairs, 0, 4)
    *_, (back, _) = paths(pairs, 4, -4)
    inner = (..., slice(24, -24), slice(24, -24))
    assert ahead[inner].mean((0, 2, 3)).tolist() == pytest.approx([-4 * step for step in STEP], abs=0.3)
    assert back[inner].mean((0, 2, 3)).tolist() == pytest.approx([4 * step for step in STEP], abs=0.3)


def test_a_network_of_raft_kind_is_accepted(plate):
    """Sides are padded to multiples of eight, values come as -1..1, the last of several flows is taken."""
    seen = []

    def network(a: Tensor, b: Tensor) -> list[Tensor]:
        seen.append((a.shape, float(a.amin()), float(a.amax())))
        return [torch.zeros(len(a), 2, *a.shape[-2:]), torch.ones(len(a), 2, *a.shape[-2:])]

    flow = RaftFlow(network)(plate[:2, :90].movedim(-1, 1), plate[1:3, :90].movedim(-1, 1))
    shape, low, high = seen[0]
    assert shape == (2, 3, 96, 96) and low >= -1 and high <= 1 and low < 0
    assert flow.shape == (2, 2, 90, 96) and (flow == 1).all()
    result = stabilise(plate, plate, estimator=RaftFlow(network))
    assert result.shape == plate.shape


def test_tiny_pictures_have_no_flow():
    assert (DisFlow()(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)) == 0).all()


def test_pyramid_round_trip():
    picture = texture(4, 77)[..., :61]
    bands = laplacian(picture, level_count(*picture.shape[-2:]))
    assert len(bands) == 3
    assert torch.allclose(collapse(bands), picture, atol=1e-6)


def test_far_from_the_person_a_neighbours_matte_has_no_say():
    own, other = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)
    own[..., 40:60, 40:60] = 1
    other[..., 38:62, 38:62] = 1
    other[..., 100:110, 100:110] = 1  # where the flow went astray
    steady = steady_matte(own, [Neighbour(1, other, torch.ones_like(own))])
    assert not steady[..., 90:, 90:].any() and 0 < float(steady[0, 0, 39, 50]) < 1
