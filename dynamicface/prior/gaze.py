"""Where the eyes look, and the lids that follow them: the eyeLook channels of ARKit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOOK_NAMES = tuple(f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right"))
_FULL_LOOK = math.radians(30.0)
"""How far an eye has turned when its eyeLook is 1."""


def look_of_gaze(gaze: Tensor) -> Tensor:
    """Channels (.., 8), in the order of LOOK_NAMES, of eyes turned by (.., 2, 2) radians. The left eye looks out towards +x."""
    yaw, pitch = (gaze / _FULL_LOOK).unbind(-1)
    outward = yaw * yaw.new_tensor([1.0, -1.0])
    return torch.cat([-outward, outward, pitch, -pitch], -1).clamp_min(0)


def gaze_of_look(look: Tensor) -> Tensor:
    """The way back: (.., 8) to (.., 2, 2) radians."""
    inward, outward, up, down = look.unflatten(-1, (4, 2)).unbind(-2)
    return torch.stack([(outward - inward) * look.new_tensor([1.0, -1.0]), up - down], -1) * _FULL_LOOK
