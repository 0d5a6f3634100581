"""eyeLook channels and angles say the same."""

from __future__ import annotations

import torch

from dynamicface.prior.gaze import LOOK_NAMES, gaze_of_look, look_of_gaze


def test_there_and_back():
    gaze = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    look = look_of_gaze(gaze)
    assert look.shape == (5, 3, 8) and look.min() >= 0
    torch.testing.assert_close(gaze_of_look(look), gaze)


def test_both_eyes_to_the_viewers_right_are_left_out_and_right_in():
    look = dict(zip(LOOK_NAMES, look_of_gaze(torch.tensor([[0.2, 0.1], [0.2, 0.1]])).tolist(), strict=True))
    assert {name for name, value in look.items() if value > 0} == {"eyeLookOutLeft", "eyeLookInRight", "eyeLookUpLeft", "eyeLookUpRight"}
