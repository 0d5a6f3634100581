"""Smoothing takes the noise and nothing else: no lag, no lost blinks, nothing across cuts, and nothing at all at 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynamicface.compose import compose_prior
from dynamicface.composite import is_unchanged
from dynamicface.conventions import ARKIT_NAMES
from dynamicface.edit import edit_expression
from dynamicface.prior.camera import euler_from_rotation, rotation_from_euler, rotation_from_vector, slerp, vector_from_rotation
from dynamicface.prior.estimate import select_frames
from dynamicface.prior.temporal import bridge_frames, fade_bad_frames, hold_bad_frames, hold_gaze, shot_numbers, smooth_prior
from dynamicface.types import FacePrior, Filmed, Identity

FRAMES = 120
NOISE = {"degrees": 0.15, "expression": 0.008, "millimetres": 0.3}  # as measured on clips of talking people
BLINK, JAW = ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("jawOpen")


def still(frames: int = FRAMES) -> FacePrior:
    """A face that rests, without noise, in front of a grey plate."""
    prior = FacePrior(
        identity=Identity(torch.zeros(4)),
        expression=torch.full((frames, 52), 0.1),
        gaze=torch.zeros(frames, 2, 2),
        rotation=rotation_from_euler(torch.full((frames,), 8.0), torch.full((frames,), -5.0), torch.zeros(frames)),
        translation=torch.tensor([0.01, 0.02, -0.8]).repeat(frames, 1),
        focal=torch.full((frames,), 900.0),
        illumination=torch.ones(frames, 9, 3),
        offset=torch.zeros(frames, 478, 3),
        confidence=torch.full((frames,), 0.95),
        image_size=(64, 64),
    )
    return prior.replace(background=Filmed(torch.full((frames, 4, 4, 3), 0.5), prior))


def noisy(prior: FacePrior) -> FacePrior:
    drawn = torch.Generator().manual_seed(3)

    def white(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=drawn)

    shaken = prior.filmed.replace(
        rotation=rotation_from_vector(torch.deg2rad(NOISE["degrees"] * white(prior.translation))) @ prior.rotation,
        translation=prior.translation + 1e-3 * NOISE["millimetres"] * white(prior.translation),
        expression=(prior.expression + NOISE["expression"] * white(prior.expression)).clamp_min(0),
        gaze=prior.gaze + 0.01 * white(prior.gaze),
        offset=prior.offset + 1e-4 * white(prior.offset),
        illumination=prior.illumination + 0.01 * white(prior.illumination),
    )
    return shaken.replace(background=Filmed(prior.background.plate, shaken))


def jitter(values: Tensor) -> float:
    return float(values.diff(n=2, dim=0).square().mean().sqrt())


def test_nothing_happens_at_zero(head):
    prior = noisy(still())
    assert smooth_prior(prior, head, 0.0) is prior


@pytest.mark.parametrize("frames", [1, 2])
def test_too_short_to_smooth(frames, head):
    prior = still(frames)
    assert smooth_prior(prior, head, 1.0) is prior


@pytest.mark.parametrize("frames", [3, 4, 9])
def test_as_many_frames_come_out(frames, head):
    prior = smooth_prior(noisy(still(frames)), head, 1.0)
    assert len(prior) == frames and all(torch.isfinite(getattr(prior, name)).all() for name in ("rotation", "expression", "offset"))


@pytest.mark.parametrize("factor", ["rotation", "translation", "expression", "gaze", "offset", "illumination"])
def test_a_resting_face_is_three_times_stiller(factor, head):
    before = noisy(still())
    after = smooth_prior(before, head, 0.5)
    assert jitter(getattr(before, factor)) > 3 * jitter(getattr(after, factor))


def test_a_higher_dial_is_stiller_also_beside_motion(head):
    """Coefficients that rest on their bound and leave it by noise are no motion, and a long time constant lets go of nothing."""
    truth = still()
    expression = 0.2 * truth.expression
    expression[60:72, JAW] += 0.5 * pulse(11)
    moving = truth.filmed.replace(expression=expression)
    before = noisy(moving.replace(background=Filmed(truth.background.plate, moving)))
    resting = torch.cat([torch.arange(2, 50), torch.arange(82, FRAMES - 2)])

    def trembling(prior: FacePrior) -> float:
        points = head.landmarks(head.vertices(prior.identity.shape, prior.expression)) + prior.offset
        return float(points.diff(n=2, dim=0)[resting - 1].square().mean().sqrt())

    before = before.replace(identity=Identity(torch.zeros(len(head.shape_basis))))
    levels = [trembling(smooth_prior(before, head, amount)) for amount in (0.0, 0.5, 0.75, 1.0)]
    assert levels[1] < 0.25 * levels[0] and levels[2] < levels[1] and levels[3] <= 1.02 * levels[2]


def pulse(length: int) -> Tensor:
    """A raised cosine over so many frames: 0, up to 1 and back."""
    return 0.5 - 0.5 * torch.cos(torch.arange(length + 1) / length * 2 * torch.pi)


@pytest.mark.parametrize(("channel", "length", "height"), [(BLINK, 6, 0.7), (BLINK, 4, 0.4), (JAW, 8, 0.35), (JAW, 12, 0.5)])
def test_blinks_and_syllables_keep_their_height_and_frame(channel, length, height, head):
    truth = still()
    expression = truth.expression.clone()
    tops = []
    for start in (20, 50, 90):
        expression[start : start + length + 1, channel] += height * pulse(length)
        tops.append(start + length // 2)
    moving = truth.filmed.replace(expression=expression)
    after = smooth_prior(noisy(moving.replace(background=Filmed(truth.background.plate, moving))), head, 0.5).expression[:, channel]
    kept = torch.stack([after[top - 1 : top + 2].max() for top in tops]) - 0.1
    assert kept.min() > 0.95 * height - NOISE["expression"]
    assert all(abs(int(after[top - 4 : top + 5].argmax()) - 4) <= 1 for top in tops)


def test_a_closure_of_the_lips_between_two_vowels_is_not_smoothed_over(head):
    truth = still()
    expression = truth.expression.clone()
    expression[40:80, JAW] = 0.45
    expression[59:61, JAW] = 0.02  # a plosive: two frames
    moving = truth.filmed.replace(expression=expression)
    after = smooth_prior(noisy(moving.replace(background=Filmed(truth.background.plate, moving))), head, 0.5).expression[:, JAW]
    assert after[59:61].max() < 0.02 + 0.05 * 0.43 + 2 * NOISE["expression"]


def test_there_is_no_lag(head):
    """A head that turns to and fro: the smoothed turn correlates best with the true one at no shift."""
    truth = still()
    yaw = 20 * torch.sin(torch.arange(FRAMES) / 12)
    moving = truth.filmed.replace(rotation=rotation_from_euler(yaw, torch.zeros(FRAMES), torch.zeros(FRAMES)))
    after = smooth_prior(noisy(moving.replace(background=Filmed(truth.background.plate, moving))), head, 0.7)
    found = euler_from_rotation(after.rotation)[:, 0]
    errors = [float((found[5 + shift : -5 + shift or None] - yaw[5:-5]).square().mean()) for shift in (-1, 0, 1)]
    assert errors[1] == min(errors) and errors[1] < NOISE["degrees"] ** 2


def test_nothing_is_smoothed_across_a_cut(head):
    prior = noisy(still())
    turned = rotation_from_euler(30.0, 0.0, 0.0)
    half = FRAMES // 2
    cuts = torch.zeros(FRAMES, dtype=torch.bool)
    cuts[half] = True
    filmed = prior.filmed.replace(rotation=torch.cat([prior.rotation[:half], turned @ prior.rotation[half:]]), cuts=cuts)
    joined = smooth_prior(filmed.replace(background=Filmed(prior.background.plate, filmed)), head, 1.0)
    alone = [filmed.replace(cuts=None) for _ in range(2)]
    parts = [
        select_frames(one.replace(background=None), torch.arange(FRAMES)[part])
        for one, part in zip(alone, (slice(half), slice(half, None)), strict=True)
    ]
    for part, frames in zip(parts, (slice(half), slice(half, None)), strict=True):
        torch.testing.assert_close(joined.rotation[frames], smooth_prior(part, head, 1.0).rotation, atol=1e-5, rtol=0)
    assert shot_numbers(joined).tolist() == [0] * half + [1] * half


def test_an_unedited_face_stays_unedited_and_an_edit_stays(head):
    prior = noisy(still())
    assert is_unchanged(smooth_prior(prior, head, 0.5))
    smiling = smooth_prior(edit_expression(prior, {"smile": 0.8}), head, 0.5)
    assert smiling.rotation is smiling.filmed.rotation and not is_unchanged(smiling)
    lifted = (smiling.expression - smiling.filmed.expression)[:, ARKIT_NAMES.index("mouthSmileLeft")]
    assert lifted.min() > 0.6
    borrowed = compose_prior(prior, pose=select_frames(prior.filmed.replace(background=None), torch.tensor([7])))
    assert smooth_prior(borrowed, head, 0.5).expression is smooth_prior(borrowed, head, 0.5).filmed.expression or not is_unchanged(borrowed)


def test_frames_of_low_confidence_pull_less(head):
    prior = noisy(still())
    rotation = prior.rotation.clone()
    rotation[60] = rotation_from_euler(20.0, 0.0, 0.0)  # a hand passed by
    confidence = prior.confidence.clone()
    confidence[60] = 0.0
    filmed = prior.filmed.replace(rotation=rotation, confidence=confidence)
    after = smooth_prior(filmed, head, 0.5)
    assert abs(float(euler_from_rotation(after.rotation)[60, 0]) - 8.0) < 1.0


def test_slerp_keeps_an_even_speed():
    a, b = rotation_from_euler(-60.0, 10.0, 5.0), rotation_from_euler(50.0, -20.0, 15.0)
    steps = slerp(a.expand(9, 3, 3), b.expand(9, 3, 3), torch.linspace(0, 1, 9))
    torch.testing.assert_close(steps[0], a)
    torch.testing.assert_close(steps[-1], b, atol=1e-5, rtol=0)
    angles = vector_from_rotation(steps[1:] @ steps[:-1].mT).norm(dim=-1)
    torch.testing.assert_close(angles, angles.mean().expand(8), atol=1e-4, rtol=0)


def gap(first: int, last: int) -> tuple[FacePrior, Tensor]:
    """A turning head that was not seen from frame `first` to `last`."""
    prior = still()
    yaw = torch.linspace(-40, 40, FRAMES)
    rotation = rotation_from_euler(yaw, torch.zeros(FRAMES), torch.zeros(FRAMES))
    bad = torch.zeros(FRAMES, dtype=torch.bool)
    bad[first : last + 1] = True
    confidence = torch.where(bad, 0.0, prior.confidence)
    broken = torch.where(bad[:, None, None], torch.eye(3), rotation)
    filmed = prior.filmed.replace(rotation=broken, confidence=confidence)
    return filmed.replace(background=Filmed(prior.background.plate, filmed)), bad


def test_a_gap_is_bridged_on_the_great_circle():
    prior, bad = gap(30, 59)
    yaw = euler_from_rotation(bridge_frames(prior, bad).rotation)[:, 0]
    torch.testing.assert_close(yaw, torch.linspace(-40, 40, FRAMES), atol=1e-2, rtol=0)
    whole = bridge_frames(prior, bad)
    assert torch.equal(whole.rotation[~bad], prior.rotation[~bad]) and is_unchanged(whole)


def test_a_gap_at_a_cut_holds_its_own_shot():
    prior, bad = gap(50, 69)
    cuts = torch.zeros(FRAMES, dtype=torch.bool)
    cuts[60] = True
    yaw = euler_from_rotation(bridge_frames(prior.replace(cuts=cuts), bad).rotation)[:, 0]
    truth = torch.linspace(-40, 40, FRAMES)
    torch.testing.assert_close(yaw[50:60], truth[49].expand(10), atol=1e-2, rtol=0)
    torch.testing.assert_close(yaw[60:70], truth[70].expand(10), atol=1e-2, rtol=0)


def test_nothing_to_bridge_and_nothing_to_bridge_with():
    prior, bad = gap(0, 3)
    assert bridge_frames(prior, torch.zeros_like(bad)) is prior
    assert bridge_frames(prior, torch.ones_like(bad)) is prior
    assert torch.equal(bridge_frames(prior, bad).rotation[0], prior.rotation[4])


def test_short_bad_stretches_are_held_and_long_ones_are_not():
    prior, _ = gap(30, 35)
    held = hold_bad_frames(prior, 0.3, longest=6)
    assert held.confidence.min() > 0.9 and held.filmed.confidence.min() > 0.9
    assert abs(float(euler_from_rotation(held.rotation)[33, 0]) - float(torch.linspace(-40, 40, FRAMES)[33])) < 0.1
    assert hold_bad_frames(prior, 0.3, longest=5) is prior
    assert hold_bad_frames(still(), 0.3) is not None and torch.equal(held.rotation[:30], prior.rotation[:30])


def test_the_change_fades_around_bad_frames():
    prior, bad = gap(30, 35)
    faded = fade_bad_frames(prior, 0.3, frames=4).confidence
    assert (faded[bad] == 0).all() and torch.equal(faded[:26], prior.confidence[:26])
    around = faded[26:30]
    assert (around.diff() < 0).all() and 0 < around[-1] < around[0] < prior.confidence[0]
    assert fade_bad_frames(still(), 0.3).confidence.min() > 0.9


def test_the_gaze_is_held_while_the_lids_are_closed():
    """The dip in a blink goes, the other eye and a long look down stay."""
    prior = still()
    expression, gaze = prior.expression.clone(), prior.gaze.clone()
    expression[30:36, BLINK] = 0.9
    gaze[30:36, 0, 1] = -0.4
    expression[70:100, BLINK] = 0.6
    gaze[70:100, :, 1] = -0.3
    found = hold_gaze(prior.replace(expression=expression, gaze=gaze)).gaze
    assert found[28:38, 0].abs().max() == 0
    assert torch.equal(found[:, 1], gaze[:, 1])
    assert torch.equal(found[70:100], gaze[70:100])
