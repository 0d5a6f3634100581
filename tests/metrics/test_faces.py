"""Metrics of faces: cases with a known answer, and real photographs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dynamicface import DynamicFaceError
from dynamicface.metrics import (
    cosine,
    factor_change,
    gaze_degrees,
    id_error,
    identity_drift,
    identity_variance,
    jitter_rms,
    landmark_jitter,
    light_change,
    pose_jitter,
    refit,
    rotation_degrees,
)
from dynamicface.prior.camera import rotation_from_euler
from dynamicface.prior.light import directional


def test_cosine_of_a_person_with_herself(pipeline, portrait, track):
    """The same face at another size and position is the same person; a mirrored direction is the opposite."""
    vector = pipeline.perception.identity.embed(portrait, track.landmarks)
    moved = pipeline.track(F.pad(portrait, (0, 0, 60, 0, 30, 0)))
    assert float(cosine(vector, moved.embedding[None])) > 0.98
    assert cosine(vector, -vector).tolist() == pytest.approx([-1])


def test_id_error_counts_who_is_nearest_to_another():
    gallery = torch.eye(4)
    queries = torch.tensor([[9.0, 1, 0, 0], [0, 2, 1, 0], [0, 3, 1, 0], [0, 0, 0, 0.1]])
    assert id_error(queries, gallery, torch.tensor([0, 1, 2, 3])) == 0.25
    with pytest.raises(DynamicFaceError, match="numbers run from 0 to 3"):
        id_error(queries, gallery, torch.tensor([0, 1, 2, 4]))
    with pytest.raises(DynamicFaceError, match="0 people"):
        id_error(queries, gallery[:0], torch.tensor([0, 1, 2, 3]))


def test_identity_over_a_clip():
    """Two people at right angles, frame by frame in turn: the mean lies at 45 degrees to each."""
    vectors = torch.tensor([[1.0, 0], [0, 1]]).repeat(4, 1)
    assert identity_drift(vectors).tolist() == pytest.approx([1 - math.cos(math.pi / 4)] * 8)
    assert identity_variance(vectors) == pytest.approx(1 - math.cos(math.pi / 4))
    assert identity_variance(vectors[::2] * torch.arange(1, 5)[:, None]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 0.01, 1.0, 60.0, 179.0])
def test_angles_are_exact_however_small(degrees):
    start = rotation_from_euler(20.0, -10.0, 5.0)
    turned = start @ rotation_from_euler(degrees, 0.0, 0.0)
    assert float(rotation_degrees(start, turned)) == pytest.approx(degrees, abs=1e-3)


def test_gaze_is_an_angle():
    ahead, aside = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    aside[0, 0, 0] = math.radians(10)  # the left eye only
    assert float(gaze_degrees(ahead, aside)) == pytest.approx(5, abs=1e-4)


def test_light_change_is_relative():
    lit = (directional(30, 20, torch.zeros(1))[:, None] * torch.tensor([1.0, 0.9, 0.8]))[None]
    assert float(light_change(lit, lit)) == 0
    assert float(light_change(lit, 1.1 * lit)) == pytest.approx(0.1, abs=1e-5)
    assert float(light_change(lit, lit.flip(-1))) > 0.1


def test_a_steady_motion_does_not_jitter():
    """Points that move 2 px a frame are quiet; an alternation of +-1 px has second differences of 4 px."""
    drawn = torch.Generator().manual_seed(0)
    points = (100 * torch.rand(478, 2, generator=drawn)).expand(6, -1, -1)
    steady = points + 2 * torch.arange(6.0)[:, None, None]
    assert landmark_jitter(steady).abs().max() < 1e-3
    shaken = steady.clone()
    shaken[..., 0] += torch.tensor([1.0, -1, 1, -1, 1, -1])[:, None]
    apart = float((points[0, 33] - points[0, 263]).norm())
    assert landmark_jitter(shaken).tolist() == pytest.approx([0, *[100 * 4 / apart] * 4, 0], rel=1e-3)
    assert jitter_rms(landmark_jitter(shaken)) == pytest.approx(100 * 4 / apart, rel=1e-3)
    assert [len(landmark_jitter(steady[:n])) for n in (1, 2, 3)] == [1, 2, 3]


def test_a_steady_turn_does_not_jitter():
    yaw = torch.tensor([0.0, 2, 4, 6, 8, 13])
    zero = torch.zeros(6)
    found = pose_jitter(rotation_from_euler(yaw, zero, zero))
    assert found.tolist() == pytest.approx([0, 0, 0, 0, 3, 0], abs=1e-3)
    assert [len(pose_jitter(rotation_from_euler(yaw, zero, zero)[:n])) for n in (1, 2, 3)] == [1, 2, 3]


def test_refit_of_the_filmed_face_finds_the_fit(pipeline, portrait, track, fitted):
    """Identity and focal length are held and nothing changed, so every factor comes back."""
    change = factor_change(fitted, refit(portrait, track, pipeline.head, fitted))
    assert float(change.pose) < 0.2 and float(change.expression) < 0.02 and float(change.gaze) < 1 and float(change.light) < 0.05


def test_refit_sees_what_was_edited(pipeline, portrait, fitted):
    """A smile is found as expression; the light dial as light."""

    def change(**dials):
        picture, _ = pipeline.render(pipeline.edit(fitted, **dials))
        return factor_change(fitted, refit(picture, pipeline.track(picture), pipeline.head, fitted))

    smile, lit = change(smile=-0.8), change(exposure=0.5)
    assert float(smile.expression) > 2 * float(lit.expression)
    assert float(lit.light) == pytest.approx(2**0.5 - 1, abs=0.1) and float(smile.light) < 0.1
