"""Conventions of DynamicFace, stated once. Every other file refers to this page and does not restate it.

Images      torch float32, shape (F, H, W, 3), RGB, display-referred sRGB, nominal range 0..1. Values below 0 and above 1
            (linear EXR plates, scene highlights) are carried, never clamped. F is the frame axis; a photo has F = 1.
            Networks work on (F, 3, H, W); the permutation happens inside the function that runs the network.
Masks       (F, H, W), 0..1, 1 = "the face / what may change".
Pixels      x to the right, y down, continuous; the centre of the first pixel is (0.5, 0.5) and an image spans
            [0, W] x [0, H]. So `grid_sample` runs with align_corners=False and grid = 2 * x / W - 1.
Crop matrix (F, 2, 3) affine in pixels that maps PLATE to CROP: crop_xy = A @ [plate_x, plate_y, 1].
Space       metres, right-handed: x to the viewer's right, y up, z towards the viewer. The head model's origin is the point midway
            between the centres of the mean head's eyeballs. Left and right in names are the character's own.
Camera      pinhole at the origin looking along -z. X_camera = R @ X_model + t with t_z < 0; with depth d = -z,
            pixel = (focal * x / d + cx, -focal * y / d + cy). Focal in pixels. (cx, cy) is the plate's centre.
Rotation    (.., 3, 3), acting on column vectors. Euler angles in degrees where an artist sees them: yaw > 0 turns the character's face
            towards the viewer's right, pitch > 0 looks up, roll > 0 tips the head clockwise as seen by the viewer.
            R = Rz(-roll) @ Ry(yaw) @ Rx(-pitch).
Gaze        (F, 2, 2) radians: [left, right eye] x [yaw, pitch] of the eyeball in the head, same signs as the head's yaw and pitch.
Normals     camera space; a normal MAP stores n / 2 + 0.5.
Light       9 real spherical harmonics of the irradiance over pi, per RGB channel, order (0,0), (1,-1), (1,0), (1,1), (2,-2) .. (2,2), as
            polynomials of the unit CAMERA-space normal; shade = basis(n) @ coefficients; radiance = albedo * shade, all in LINEAR light.
UV          [0, 1]^2, u to the right, v down. Skin: a cylinder map of the template's front in v < 0.875; eyeballs: discs in the strip
            below. Textures are (3, U, U), linear RGB.
Expression  coefficients in the order and with the names of ARKit's 52 blend shapes, 0 = rest, 1 = full; values up to 1.5 are accepted.
"""

from __future__ import annotations

import torch
from torch import Tensor

ARKIT_NAMES: tuple[str, ...] = (
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
    *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker"),
    *("mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""ARKit-52 in Apple's alphabetical order."""

PARTS: tuple[str, ...] = (
    *("skin", "lips", "eye_left", "eye_right", "inner_mouth", "teeth", "tongue"),
    *("ears", "scalp", "neck", "lashes"),
)
"""Part labels of the head model's triangles; a part mask stores the index, background is -1."""

LANDMARKS = 478
"""MediaPipe face mesh order: 468 mesh points, then 5 points of the right and 5 of the left iris."""


def srgb_to_linear(x: Tensor) -> Tensor:
    """sRGB transfer function, extended as an odd function so that negative values survive the round trip."""
    a = x.abs()
    return torch.copysign(torch.where(a <= 0.04045, a / 12.92, ((a + 0.055) / 1.055) ** 2.4), x)


def linear_to_srgb(x: Tensor) -> Tensor:
    """Inverse of :func:`srgb_to_linear`."""
    a = x.abs()
    return torch.copysign(torch.where(a <= 0.0031308, a * 12.92, 1.055 * a.clamp_min(0.0031308) ** (1 / 2.4) - 0.055), x)
