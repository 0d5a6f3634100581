"""The drawn fit lies on the face, and its error is the one stated."""

from __future__ import annotations

import torch

from dynamicface.overlay import draw_fit, fitted_landmarks, reprojection_error


def test_the_fit_lies_on_the_tracked_points(fitted, track, head):
    apart = (fitted_landmarks(fitted, head) - track.landmarks[..., :2]).norm(dim=-1)
    assert apart.shape == (1, 478) and apart.mean() < 3
    assert 0 < reprojection_error(fitted, track, head).item() < 0.015


def test_only_the_head_is_drawn_over(portrait, fitted, track, head):
    drawn = draw_fit(portrait, fitted, track, head)
    changed = (drawn != portrait).any(-1)[0]
    assert drawn.shape == portrait.shape and 0.02 < changed.float().mean() < 0.15
    rows, columns = changed.nonzero().T
    x0, y0, x1, y1 = track.boxes[0].tolist()
    margin = 0.6 * (y1 - y0)
    assert rows.min() > y0 - margin and rows.max() < y1 + margin and columns.min() > x0 - margin and columns.max() < x1 + margin
    green = (drawn[0] - torch.tensor([0.2, 1.0, 0.3])).abs().amax(-1) < 0.05
    assert green.sum() > 100


def test_points_outside_the_picture_are_left_out(portrait, fitted, track, head):
    far = type(track)(track.image_size, track.boxes, track.landmarks + 1e4, track.presence)
    assert torch.isfinite(draw_fit(portrait, fitted, far, head)).all()
