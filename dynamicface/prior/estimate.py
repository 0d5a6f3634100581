"""From a track to a prior: who, which expression, which pose, under which light."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError
from ..filters import pixel_grid
from ..images import crops_of_frames, transform
from ..types import FaceCrop, FaceMask, FacePrior, FaceTrack, Filmed, Identity
from ..windows import ahead, windows
from . import texture
from .camera import euler_from_rotation, image_centre
from .fit import MESH, FitSettings, LandmarkFit, fit_landmarks, landmark_normals
from .geometry import face_crop, pose_head
from .hair import without_hair
from .head import HeadModel
from .temporal import bridge_frames, hold_gaze

if TYPE_CHECKING:
    from ..io.clips import Clip

_IDENTITY_FRAMES = 8  # frames that decide a clip's identity
_TEXTURE_FRAMES = 4
_EXPRESSIVE = FitSettings(expression_sigma=0.4)  # once the identity is known the expression may follow the landmarks closely
_CHUNK = 64
_WINDOW = 8  # frames whose pixels are looked at together: more do not fit into caches
_TEXTURE_CROP = 512
_LIGHT_TEXTURE = 64
_MATTE_SIDE = 256
_OFFSET_LIMIT = 6e-3  # metres


def default_focal(track: FaceTrack) -> Tensor:
    """One focal length (F,) for the whole track, px: a portrait lens on the face, at least 1.2 picture sides."""
    extent = (track.landmarks[..., :2].amax(1) - track.landmarks[..., :2].amin(1)).amax(-1)
    focal = torch.maximum(5.4 * extent.median(), extent.new_tensor(1.2 * max(track.image_size)))
    return focal.expand(len(track))


def fit_prior(
    plate: Tensor | Clip,
    track: FaceTrack,
    head: HeadModel,
    *,
    shared_identity: bool = True,
    texture_size: int = 512,
    focal: Tensor | None = None,
    settings: FitSettings | None = None,
    matte: Tensor | None = None,
    occlusion: FaceMask | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FacePrior:
    """Fit the head model to a tracked face.

    plate: (F, H, W, 3) as tracked, or a clip on disk (`io.clips.Clip`), which is read window by window. shared_identity: the frames
    show one person (a clip, a photo set), who gets one shape and one albedo; otherwise the first frame decides. texture_size: side of
    the albedo texture, 0 = none. matte: (F, h, w) of the person, keeps new light off the background. occlusion: what is in front of
    the face (`occlusion.hidden_face`): landmarks, skin and light there are not believed. progress(done, total) is called.
    Frames without the face hold what lies between their neighbours and have confidence 0. The result's background is the plate itself.
    """
    if plate.shape[0] != len(track) or tuple(plate.shape[1:3]) != tuple(track.image_size):
        found = f"{plate.shape[0]} frames of {plate.shape[2]} x {plate.shape[1]}"
        wanted = f"{len(track)} frames of {track.image_size[1]} x {track.image_size[0]}"
        raise ImageError(f"The images ({found}) are not the ones that were tracked ({wanted}); connect the same images to both nodes.")
    landmarks = track.landmarks[..., :2]
    focal = default_focal(track) if focal is None else focal.expand(len(track)).to(landmarks)
    shown = None if occlusion is None else 1 - occlusion.at(landmarks)
    fit = _fit_frames(landmarks, track.presence, head, focal, track.image_size, settings, shared_identity, shown)
    prior = FacePrior(
        identity=Identity(fit.shape[0], embedding=track.embedding),
        expression=fit.expression[0],
        gaze=fit.gaze[0],
        rotation=fit.rotation[0],
        translation=fit.translation[0],
        focal=focal,
        illumination=_white_light(fit.expression[0]),
        offset=landmark_offset(fit, landmarks, head, focal) * (1.0 if shown is None else shown[..., None]),
        confidence=_confidence(fit, track) * (1.0 if shown is None else shown[:, :MESH].mean(1)),
        image_size=tuple(track.image_size),
    )
    prior = prior.replace(cuts=track.cuts)
    if texture_size:
        prior = _with_light_and_albedo(prior, plate, head, texture_size, shared_identity, occlusion, progress)
    prior = bridge_frames(prior, track.presence <= 0)
    if track.cuts is not None:  # a clip, not a batch of photos
        prior = hold_gaze(prior)
    if matte is not None and max(matte.shape[-2:]) > _MATTE_SIDE:
        matte = F.interpolate(matte[:, None], scale_factor=_MATTE_SIDE / max(matte.shape[-2:]), mode="area")[:, 0]
    return prior.replace(background=Filmed(plate, prior, matte))


def _fit_frames(
    landmarks: Tensor,
    presence: Tensor,
    head: HeadModel,
    focal: Tensor,
    image_size: tuple[int, int],
    settings: FitSettings | None,
    shared: bool,
    shown: Tensor | None,
) -> LandmarkFit:
    centre = image_centre(image_size, landmarks)
    frames = len(landmarks)
    weight = presence[:, None].expand(landmarks.shape[:2]) if shown is None else presence[:, None] * shown
    deciding = _best_frames(landmarks, presence, _IDENTITY_FRAMES) if shared else torch.zeros(1, dtype=torch.long)
    who = fit_landmarks(landmarks[None, deciding], head, focal[None, deciding], centre, weight=weight[None, deciding], settings=settings)
    parts = [
        fit_landmarks(
            landmarks[None, s],
            head,
            focal[None, s],
            centre,
            weight=None if shown is None else shown[None, s],
            shape=who.shape,
            settings=settings or _EXPRESSIVE,
        )
        for s in windows(frames, _CHUNK)
    ]
    joined = {
        k: torch.cat([getattr(p, k) for p in parts], 1) for k in ("expression", "rotation", "translation", "gaze", "projected", "error")
    }
    return LandmarkFit(who.shape, **joined)


def landmark_offset(fit: LandmarkFit, landmarks: Tensor, head: HeadModel, focal: Tensor) -> Tensor:
    """Residuals of one person's fit as metres in model space (F, 478, 3), parallel to the picture; 0 for points that face away.

    Points that slide over the surface (contour, large sigma) are no evidence of shape and stay 0.
    """
    residual = (landmarks - fit.projected[0]) * landmarks.new_tensor([1.0, -1.0])
    depth = -fit.translation[0, :, 2]
    offset = F.pad(residual * (depth / focal)[:, None, None], (0, 1)) @ fit.rotation[0]
    facing = (landmark_normals(head) @ fit.rotation[0].mT)[..., 2]
    trust = ((facing - 0.1) / 0.4).clamp(0, 1) * ((5e-3 - head.landmark_sigma) / 2e-3).clamp(0, 1)
    trust[:, MESH:] = 0
    return offset * trust[..., None] * (_OFFSET_LIMIT / offset.norm(dim=-1, keepdim=True).clamp_min(_OFFSET_LIMIT))


def _best_frames(landmarks: Tensor, presence: Tensor, count: int) -> Tensor:
    """Indices of the frames that show the face largest, most frontal and with the mouth closed, spread over the clip."""
    eyes = (landmarks[:, 33] - landmarks[:, 263]).norm(dim=-1)
    mouth = (landmarks[:, 13] - landmarks[:, 14]).norm(dim=-1)
    nose = landmarks[:, 1]
    left, right = (nose - landmarks[:, 234]).norm(dim=-1), (nose - landmarks[:, 454]).norm(dim=-1)
    frontal = torch.minimum(left, right) / torch.maximum(left, right).clamp_min(1e-6)
    score = presence * frontal * (1 - (mouth / eyes.clamp_min(1e-6)).clamp(0, 0.9)) * (eyes / eyes.max().clamp_min(1e-6))
    bins = torch.arange(len(score), device=score.device).tensor_split(min(count, len(score)))
    return torch.stack([b[score[b].argmax()] for b in bins])


def _confidence(fit: LandmarkFit, track: FaceTrack) -> Tensor:
    """(F,) presence, lowered by readings of the landmarks that disagree, a poor reprojection, and yaw beyond 45 degrees (0.3 at 80)."""
    yaw = euler_from_rotation(fit.rotation[0])[:, 0].abs()
    turned = 1 - 0.7 * ((yaw - 45) / 35).clamp(0, 1)
    agreed = 1.0 if track.agreement is None else 0.5 + 0.5 * track.agreement
    return track.presence * agreed * torch.exp(-((fit.error[0] / 0.05) ** 2)) * turned


def _white_light(like: Tensor) -> Tensor:
    """(F, 9, 3) even white light of shading 1."""
    out = like.new_zeros(len(like), 9, 3)
    out[:, 0] = 1 / 0.282095
    return out


def _with_light_and_albedo(
    prior: FacePrior,
    plate: Tensor | Clip,
    head: HeadModel,
    size: int,
    shared: bool,
    occlusion: FaceMask | None,
    progress: Callable[[int, int], None] | None,
) -> FacePrior:
    frames = len(prior)
    order = prior.confidence.argsort(descending=True) if shared else torch.arange(frames)
    chosen = order[: _TEXTURE_FRAMES if shared else 1].sort().values
    radiance, weight, normal = _textures(prior, _crops(prior, plate, size, chosen), head, size, chosen, occlusion)
    weight = weight * texture.skin_likelihood(radiance, weight, head)
    albedo, seen, _ = texture.separate(radiance, weight * prior.confidence[chosen].view(-1, 1, 1, 1).clamp_min(0.05), normal, head)
    skin = without_hair(albedo, seen, head)
    hair = F.interpolate((seen - skin)[None] / seen.clamp_min(1e-6), (_LIGHT_TEXTURE, _LIGHT_TEXTURE), mode="area")
    seen = skin
    albedo = texture.finish_albedo(albedo, seen, head)
    lights, parts = [], windows(frames, _WINDOW)
    read = (_crops(prior, plate, _LIGHT_TEXTURE, index) for index in parts)
    for index, crops in zip(parts, ahead(read) if len(parts) > 1 else read, strict=True):
        radiance, weight, normal = _textures(prior, crops, head, _LIGHT_TEXTURE, index, occlusion)
        lights.append(texture.light_under(radiance, weight * (1 - hair), normal, albedo, head))
        if progress is not None:
            progress(index.stop, frames)
    identity = Identity(prior.identity.shape, albedo, seen, prior.identity.embedding)
    return prior.replace(identity=identity, illumination=torch.cat(lights))


def _texture_crop(part: FacePrior, size: int) -> FaceCrop:
    return face_crop(part, min(_TEXTURE_CROP, 2 * size))


def _crops(prior: FacePrior, plate: Tensor | Clip, size: int, index: Tensor | slice) -> Tensor:
    """The linear pictures from which textures of a size are taken, of some frames."""
    crop = _texture_crop(select_frames(prior, index), size)
    return crops_of_frames(plate, index, crop.matrix, crop.size)


def _textures(
    prior: FacePrior, crops: Tensor, head: HeadModel, size: int, index: Tensor | slice, occlusion: FaceMask | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear radiance, weight and vertex normals of some frames, of which the crops are given."""
    part = select_frames(prior, index)
    crop = _texture_crop(part, size)
    posed = pose_head(part, head, crop)
    shown = None
    if occlusion is not None:
        grid = transform(pixel_grid(crop.size, crop.size, crop.matrix).view(1, -1, 2), crop.inverse)
        shown = 1 - occlusion.frames(index).at(grid).view(len(part), crop.size, crop.size)
    radiance, weight = texture.extract(crops, posed, size, shown)
    return radiance, weight, posed.normal


def select_frames(prior: FacePrior, index: Tensor | slice) -> FacePrior:
    """The prior of some of its frames; a slice gives a view of the plate, an index tensor a copy."""
    per_frame = ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset", "confidence")
    background = prior.background
    if background is not None:
        background = Filmed(
            background.plate[index],
            select_frames(background.prior, index),
            None if background.matte is None else background.matte[index],
        )
    cuts = None if prior.cuts is None else prior.cuts[index]
    return prior.replace(**{k: getattr(prior, k)[index] for k in per_frame}, background=background, cuts=cuts)
