"""Heads seen from the side: pose from the detector's keypoints."""

from __future__ import annotations

import math

import pytest
import torch

from dynamicface import Identity, NoFaceError
from dynamicface.metrics import rotation_degrees
from dynamicface.perception.profile import mirrored
from dynamicface.prior.camera import euler_from_rotation, rotation_from_euler
from dynamicface.prior.light import directional
from dynamicface.render import render_prior
from dynamicface.types import FacePrior

KEYPOINTS = torch.tensor([[[60.0, 50.0], [66.0, 51.0], [74.0, 62.0], [64.0, 74.0], [28.0, 56.0], [52.0, 57.0]]])


def head_at(pipeline, yaw: float, pitch: float = 0.0) -> FacePrior:
    """A mean head in front of the camera."""
    light = torch.zeros(9)
    light[0] = 2.0
    lit = (light + 0.4 * directional(30 * math.copysign(1, yaw), 30, light))[:, None].expand(9, 3)
    return FacePrior(
        identity=Identity(torch.zeros(len(pipeline.head.shape_basis))),
        expression=torch.zeros(1, 52),
        gaze=torch.zeros(1, 2, 2),
        rotation=rotation_from_euler(yaw, pitch, 0.0)[None],
        translation=torch.tensor([[0.0, 0.0, -1.0]]),
        focal=torch.tensor([1200.0]),
        illumination=lit[None],
        offset=torch.zeros(1, 478, 3),
        confidence=torch.ones(1),
        image_size=(384, 384),
    )


def test_a_mirrored_profile_has_the_mirrored_pose(pipeline):
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    one, two = (pipeline.perception.profile(points) for points in (KEYPOINTS, mirrored(KEYPOINTS)))
    assert rotation_degrees(two[0], flip @ one[0] @ flip).max() < 0.01
    assert torch.allclose(one[1], two[1], atol=1e-4)


@pytest.mark.parametrize("angle", [-25.0, 20.0])
def test_a_turned_picture_rolls_the_head(pipeline, angle):
    """Clockwise on screen is a roll of the same angle; place and size do not matter."""
    a = math.radians(angle)
    turn = torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    one = pipeline.perception.profile(KEYPOINTS)[0]
    two = pipeline.perception.profile(3 * KEYPOINTS @ turn + 200)[0]
    expected = rotation_from_euler(0.0, 0.0, angle) @ one
    assert rotation_degrees(two, expected).max() < 0.01


@pytest.mark.parametrize("yaw", [-85.0, 82.0])
def test_a_profile_is_found_and_its_pose_is_about_right(pipeline, yaw):
    picture = render_prior(head_at(pipeline, yaw), pipeline.head, 384).clamp(0, 1)
    prior = pipeline.fit(picture, texture_size=0)
    assert abs(float(euler_from_rotation(prior.rotation)[0, 0]) - yaw) < 15
    assert 0.05 < float(prior.confidence) < 0.5


def test_the_back_of_a_head_is_no_profile(pipeline):
    behind = head_at(pipeline, 85.0)
    behind = behind.replace(rotation=rotation_from_euler(180.0, 0.0, 0.0)[None])
    with pytest.raises(NoFaceError):
        pipeline.track(render_prior(behind, pipeline.head, 384).clamp(0, 1))
