"""How far two fits of a face lie apart, factor by factor, in natural units; and the fit anew that such a comparison needs.

What is compared must be measured the same way: a result is tracked and fitted again as if it were a photograph, with the identity and
the focal length of the fit it is compared to held, so that one factor cannot hide in another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conventions import srgb_to_linear
from ..images import sample_crops
from ..prior import light, texture
from ..prior.camera import image_centre
from ..prior.fit import FitSettings, fit_landmarks
from ..prior.geometry import face_crop, pose_head
from ..prior.head import HeadModel
from ..types import FacePrior, FaceTrack

_EXPRESSIVE = FitSettings(expression_sigma=0.4)  # the identity is known, so the expression may follow the landmarks closely
_KNOWN = 0.05
_LIGHT_TEXTURE = 128


@dataclass(frozen=True)
class FactorChange:
    """Differences (F,) per frame; 0 = the same."""

    expression: Tensor  # root mean square over the 52 coefficients
    gaze: Tensor  # degrees, the mean of both eyes
    pose: Tensor  # degrees between the head rotations
    light: Tensor  # RMS difference of the shading of all normals the camera sees, as a share of the RMS shading


def factor_change(before: FacePrior, after: FacePrior) -> FactorChange:
    """Compare two priors of the same frames; a prior of one frame is compared with every frame of the other."""
    return FactorChange(
        expression=(after.expression - before.expression).square().mean(-1).sqrt(),
        gaze=gaze_degrees(before.gaze, after.gaze),
        pose=rotation_degrees(before.rotation, after.rotation),
        light=light_change(before.illumination, after.illumination),
    )


def rotation_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Angle (..,) between rotations (.., 3, 3); exact for small angles too, where the arc cosine of the trace loses all digits."""
    chord = torch.linalg.matrix_norm(a - b) / 8**0.5
    return torch.rad2deg(2 * torch.asin(chord.clamp(0, 1)))


def gaze_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Angle (F,) between lines of sight (F, 2, 2) in radians, the mean of both eyes."""
    return torch.rad2deg(torch.atan2(torch.linalg.cross(_sight(a), _sight(b)).norm(dim=-1), (_sight(a) * _sight(b)).sum(-1))).mean(-1)


def light_change(before: Tensor, after: Tensor) -> Tensor:
    """(F,) relative difference of lights (F, 9, 3) as skin shows it: RMS over the normals that face the camera and the colours."""
    basis = light.basis(_hemisphere(before))
    shades = [torch.einsum("nk,fkc->fnc", basis, value) for value in (before, after)]
    return ((shades[1] - shades[0]).square().mean((1, 2)) / shades[0].square().mean((1, 2)).clamp_min(1e-8)).sqrt()


@torch.inference_mode()
def refit(plate: Tensor, track: FaceTrack, head: HeadModel, like: FacePrior) -> FacePrior:
    """Expression, gaze, pose and light of tracked frames (F, H, W, 3), measured anew with the identity and focal length of `like` held.

    The light is measured where `like` has a texture, otherwise it is `like`'s own. The result has no background and no offsets.
    """
    points, frames = track.landmarks[..., :2], len(track)
    focal = like.focal[:1].expand(frames)
    centre, shape = image_centre(track.image_size, points), like.identity.shape
    fit = fit_landmarks(points[None], head, focal[None], centre, weight=track.presence[None], shape=shape[None], settings=_EXPRESSIVE)
    prior = FacePrior(
        identity=like.identity,
        expression=fit.expression[0],
        gaze=fit.gaze[0],
        rotation=fit.rotation[0],
        translation=fit.translation[0],
        focal=focal,
        illumination=like.illumination[:1].expand(frames, -1, -1),
        offset=torch.zeros_like(track.landmarks),
        confidence=track.presence,
        image_size=track.image_size,
    )
    if like.identity.albedo is None:
        return prior
    crop = face_crop(prior, 2 * _LIGHT_TEXTURE)
    posed = pose_head(prior, head, crop)
    radiance, weight = texture.extract(srgb_to_linear(sample_crops(plate[..., :3], crop.matrix, crop.size)), posed, _LIGHT_TEXTURE)
    if like.identity.albedo_weight is not None:  # what was no skin to the albedo, as hair, tells nothing of the light
        known = F.interpolate(like.identity.albedo_weight[None], (_LIGHT_TEXTURE, _LIGHT_TEXTURE), mode="area")
        weight = weight * (known > _KNOWN)
    return prior.replace(illumination=texture.light_under(radiance, weight, posed.normal, like.identity.albedo, head))


def _sight(gaze: Tensor) -> Tensor:
    """Unit vectors (.., 3) of yaw and pitch (.., 2)."""
    yaw, pitch = gaze.unbind(-1)
    return torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1)


def _hemisphere(like: Tensor) -> Tensor:
    """Normals (N, 3) that face the camera, each standing for the same area of the picture of a ball."""
    step = torch.linspace(-0.95, 0.95, 20, dtype=like.dtype, device=like.device)
    x, y = torch.meshgrid(step, step, indexing="xy")
    disc = torch.stack([x, y], -1)[x**2 + y**2 < 0.95]
    return torch.cat([disc, (1 - disc.square().sum(-1, keepdim=True)).sqrt()], -1)
