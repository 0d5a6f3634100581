"""The fit drawn over the photo: the head as blue clay, the tracked landmarks as green dots, the fitted ones as red dots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import plate_of
from .filters import pixel_grid
from .paste import paste_back
from .prior.camera import image_centre, to_camera, to_screen
from .prior.estimate import select_frames
from .prior.fit import MESH, OUTER_EYES
from .prior.geometry import face_crop, natural_crop_size, pose_head
from .prior.head import HeadModel
from .types import FacePrior, FaceTrack

_CLAY = 0.5  # opacity
_BLUE = (0.45, 0.65, 1.0)
_DOT = 0.012  # radius of a dot, of the distance between the outer corners of the eyes
_TRACKED, _FITTED = (0.2, 1.0, 0.3), (1.0, 0.15, 0.1)


def fitted_landmarks(prior: FacePrior, head: HeadModel) -> Tensor:
    """(F, 478, 2) plate px: where the model alone, without the residual offsets, puts the landmarks."""
    points = head.landmarks(head.vertices(prior.identity.shape[None], prior.expression, prior.gaze))
    camera = to_camera(points, prior.rotation, prior.translation)
    return to_screen(camera, prior.focal, image_centre(prior.image_size, camera))[..., :2]


def reprojection_error(prior: FacePrior, track: FaceTrack, head: HeadModel) -> Tensor:
    """(F,) mean distance of the fitted from the tracked mesh landmarks, as a share of the distance between the outer eye corners."""
    distance = (fitted_landmarks(prior, head) - track.landmarks[..., :2])[:, :MESH].norm(dim=-1).mean(-1)
    return distance / _eye_distance(track)


@torch.inference_mode()
def draw_fit(plate: Tensor, prior: FacePrior, track: FaceTrack, head: HeadModel) -> Tensor:
    """The plate (F, H, W, 3) with the fit of its prior drawn over it."""
    picture = _clay(plate, prior, head)
    radius = _DOT * _eye_distance(track)
    picture = _dots(picture, fitted_landmarks(prior, head), radius, _FITTED)
    return _dots(picture, track.landmarks[..., :2], radius, _TRACKED)


@torch.inference_mode()
def draw_prior(prior: FacePrior, head: HeadModel, frame: int = 0, count: int = 8) -> Tensor:
    """Up to `count` frames (N, H, W, 3) of the prior's plate, from `frame` on, with its head and landmarks drawn over them.

    The face as filmed is drawn, whatever was edited since; frames without the face are left as they are. The plate may be a clip on disk.
    Raises DynamicFaceError where there is none.
    """
    if prior.background is None:
        plate_of(prior)
    first = min(frame, len(prior) - 1)
    part = select_frames(prior, torch.arange(first, min(first + count, len(prior))))
    plate, filmed = part.background.plate[..., :3], part.filmed
    points = fitted_landmarks(filmed, head)
    picture = _clay(plate, filmed, head)
    a, b = OUTER_EYES
    picture = _dots(picture, points, _DOT * (points[:, a] - points[:, b]).norm(dim=-1), _FITTED)
    return torch.where((filmed.confidence > 0)[:, None, None, None], picture, plate)


def _clay(plate: Tensor, prior: FacePrior, head: HeadModel) -> Tensor:
    """The plate with the prior's head over it, half transparent, shaded by how it faces the camera."""
    crop = face_crop(prior, natural_crop_size(prior))
    posed = pose_head(prior, head, crop)
    normal = F.normalize(posed.raster.interpolate(posed.normal), dim=-1)
    clay = (0.25 + 0.75 * normal[..., 2:].clamp_min(0)) * normal.new_tensor(_BLUE)
    return paste_back(plate, clay, posed.raster.mask.to(plate.dtype) * _CLAY, crop, feather=0.0)[0]


def _eye_distance(track: FaceTrack) -> Tensor:
    """(F,) px between the outer corners of the eyes."""
    a, b = OUTER_EYES
    return (track.landmarks[:, a, :2] - track.landmarks[:, b, :2]).norm(dim=-1)


def _dots(pictures: Tensor, points: Tensor, radius: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Paint anti-aliased discs at points (F, N, 2) px with radius (F,) px, at least one pixel wide."""
    frames, height, width, _ = pictures.shape
    radius = radius.clamp_min(0.7)[:, None, None]
    reach = int(radius.max()) + 1
    square = pixel_grid(2 * reach + 1, 2 * reach + 1, points).view(1, 1, -1, 2) - reach - 0.5
    at = points.floor()[:, :, None] + square  # (F, N, K, 2) integer pixel positions
    cover = (radius + 0.5 - (at + 0.5 - points[:, :, None]).norm(dim=-1)).clamp(0, 1)
    x, y = at.long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = torch.where(inside, y * width + x, 0).flatten(1)
    alpha = pictures.new_zeros(frames, height * width).scatter_reduce(1, index, (cover * inside).flatten(1), "amax")
    return torch.lerp(pictures, pictures.new_tensor(colour), alpha.view(frames, height, width, 1))
