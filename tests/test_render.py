"""Render Prior: the head fills its crop, follows pose and light, and needs no texture."""

from __future__ import annotations

import pytest
import torch

from dynamicface.edit import edit_light, edit_pose
from dynamicface.prior.head import HeadModel
from dynamicface.render import render_prior
from dynamicface.types import FacePrior, Identity


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def prior(head) -> FacePrior:
    """Two frames of the mean head, one metre and a half in front of a camera with a portrait lens, in even light."""
    illumination = torch.zeros(2, 9, 3)
    illumination[:, 0] = 1 / 0.282095
    return FacePrior(
        identity=Identity(torch.zeros(len(head.shape_basis))),
        expression=torch.zeros(2, 52),
        gaze=torch.zeros(2, 2, 2),
        rotation=torch.eye(3).expand(2, 3, 3),
        translation=torch.tensor([[0.0, 0.0, -1.5]]).expand(2, 3),
        focal=torch.full((2,), 1500.0),
        illumination=illumination,
        offset=torch.zeros(2, 478, 3),
        confidence=torch.ones(2),
        image_size=(480, 640),
    )


def test_fills_the_crop_symmetrically(prior, head):
    pictures = render_prior(prior, head, 128)
    assert pictures.shape == (2, 128, 128, 3) and torch.equal(pictures[0], pictures[1])
    backdrop = pictures[0, 0, 0]
    covered = (pictures[0] - backdrop).abs().amax(-1) > 1e-4
    assert 0.25 < covered.float().mean() < 0.8
    assert (pictures[0] - pictures[0].flip(1)).abs().mean() < 0.01


def test_a_turned_head_is_no_longer_symmetric(prior, head):
    picture = render_prior(edit_pose(prior, yaw=20), head, 128)[0]
    assert (picture - picture.flip(1)).abs().mean() > 0.02


def test_a_key_from_the_viewers_right_lights_that_side(prior, head):
    picture = render_prior(edit_light(prior, azimuth=80, elevation=0, strength=1.0), head, 128)[0].mean(-1)
    assert picture[40:90, 70:90].mean() > 1.3 * picture[40:90, 38:58].mean()
