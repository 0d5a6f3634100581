"""Heads seen from the side, where the landmark net gives up: their pose from the face detector's six keypoints.

The detector still finds profiles, with eyes, nose, mouth and the nearer ear in their places; the farther ear it puts somewhere on the
cheek, always alike. So the keypoints, moved, scaled and turned upright, tell the pose by a linear map. It was fitted to renders of the head
model in known poses (`tools/learn_profile_pose.py`). The landmarks are then the mean head's, laid over eyes, nose and mouth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conventions import LANDMARKS

KEYPOINTS = 6
_MIRRORED = (1, 0, 2, 3, 5, 4)  # right and left eye, nose, mouth, right and left ear
_PLACED = (0, 1, 2, 3)  # the keypoints the mean head is laid over
_ANCHORS = ((33, 133), (362, 263), (1, 1), (13, 14))  # the landmarks they are the middle of


def upright(keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoints (N, 6, 2) px about their middle, of unit size, the mouth below the eyes; and the angle (N,) they were turned by,
    positive clockwise on screen."""
    local = keypoints - keypoints.mean(1, keepdim=True)
    local = local / local.square().sum(-1).mean(1).sqrt().clamp_min(1e-6)[:, None, None]
    down = local[:, 3] - (local[:, 0] + local[:, 1]) / 2
    angle = torch.atan2(-down[:, 0], down[:, 1])
    return local @ _turn(angle), angle


def _turn(angle: Tensor) -> Tensor:
    """(N, 2, 2) that takes rows of points back by a clockwise angle (N,)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def mirrored(keypoints: Tensor) -> Tensor:
    """Keypoints (N, 6, 2) of the face in a mirror, about x = 0."""
    return keypoints[:, _MIRRORED] * keypoints.new_tensor([-1.0, 1.0])


class ProfilePose(nn.Module):
    """Keypoints (N, 6, 2) to rotations (N, 3, 3) and how unlike a profile's they are (N,): about 1 for profiles."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2 * KEYPOINTS))
        self.register_buffer("spread", torch.ones(2 * KEYPOINTS))
        self.register_buffer("weight", torch.zeros(2 * KEYPOINTS + 1, 3))
        self.register_buffer("axes", torch.eye(3))  # the rotation the vectors are relative to
        self.register_buffer("head", torch.zeros(LANDMARKS, 3))  # landmarks of the mean head, metres

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        points, angle = upright(keypoints)
        left = points[:, 2, 0] < points[:, 4:, 0].mean(1)  # the nose lies left of the ears
        points = torch.where(left[:, None, None], mirrored(points), points)
        z = (points.flatten(1) - self.mean) / self.spread
        vector = F.pad(z, (0, 1), value=1.0) @ self.weight
        rotation = torch.linalg.matrix_exp(_skew(vector)) @ self.axes
        flip = torch.diag(rotation.new_tensor([-1.0, 1.0, 1.0]))
        rotation = torch.where(left[:, None, None], flip @ rotation @ flip, rotation)
        return about_view(-angle) @ rotation, z.square().mean(1)

    def landmarks(self, keypoints: Tensor, rotation: Tensor) -> Tensor:
        """The mean head's landmarks (N, 478, 3), px, laid over the keypoints in that pose; z grows away from the viewer."""
        turned = self.head @ rotation.mT * rotation.new_tensor([1.0, -1.0, -1.0])
        anchors = torch.stack([turned[:, list(pair), :2].mean(1) for pair in _ANCHORS], 1)
        targets = keypoints[:, list(_PLACED)]
        a, b = (x - x.mean(1, keepdim=True) for x in (anchors, targets))
        scale = ((a * b).sum((1, 2)) / a.square().sum((1, 2)).clamp_min(1e-12))[:, None, None]
        shift = targets.mean(1, keepdim=True) - scale * anchors.mean(1, keepdim=True)
        return scale * turned + F.pad(shift, (0, 1))


def about_view(angle: Tensor) -> Tensor:
    """(N, 3, 3) turn about the axis to the viewer, positive counter-clockwise on screen."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def _skew(v: Tensor) -> Tensor:
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
