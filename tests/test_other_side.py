"""What a turn reveals comes from the other side of the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynamicface.edit import edit_pose
from dynamicface.other_side import other_side
from dynamicface.prior.geometry import face_crop, pose_head
from dynamicface.surface import surface_of
from dynamicface.types import FacePrior

SIZE = 256


@pytest.fixture(scope="module")
def turned(fitted) -> FacePrior:
    """A head filmed at 35 degrees of yaw in even light."""
    even = torch.zeros_like(fitted.illumination)
    even[:, 0] = 1.0
    away = edit_pose(fitted, yaw=35.0).replace(illumination=even, offset=torch.zeros_like(fitted.offset))
    return away.replace(background=None)


def borrowed(filmed: FacePrior, head, yaw: float) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, alpha and the truth for a head painted the same on both sides."""
    crop = face_crop(filmed, SIZE)
    before, after = pose_head(filmed, head, crop), pose_head(edit_pose(filmed, yaw=yaw), head, crop)
    x, y, z = (head.template * 5).unbind(-1)
    paint = torch.stack([0.5 + x.abs(), 0.5 + y, 0.5 + z / 2], -1).clamp(0.05, 1)
    pictures = [posed.raster.interpolate(paint, 0.5).permute(0, 3, 1, 2) for posed in (before, after)]
    colour, alpha = other_side(
        surface_of(before, after, filmed.illumination, filmed.illumination), filmed.illumination, pictures[0], torch.ones(1, 1, 8, 8)
    )
    return colour, alpha, pictures[1]


def test_the_hidden_side_is_the_shown_sides_mirror_image(turned, head):
    colour, alpha, truth = borrowed(turned, head, -35.0)
    whole = (alpha > 0.9).expand_as(truth)
    assert float((alpha > 0.9).float().mean()) > 0.02
    assert float((colour - truth)[whole].abs().mean()) < 0.02


def test_nothing_is_borrowed_where_both_sides_were_hidden_or_nothing_is_revealed(turned, head):
    frontal = edit_pose(turned, yaw=-35.0)
    assert float(borrowed(frontal, head, 20.0)[1].mean()) < 1e-3
    assert float(borrowed(turned, head, 0.0)[1].max()) == 0.0
