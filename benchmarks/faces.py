"""How two pictures of faces differ: alignment, looks and expression, measured anew on the pictures themselves."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from dynamicface import FacePipeline, FaceTrack, HeadModel, NoFaceError
from dynamicface.conventions import ARKIT_NAMES
from dynamicface.images import invert, sample_crops, square_matrix, transform
from dynamicface.landmark_sets import EYES, FACE_OVAL, LIPS_INNER, LIPS_OUTER
from dynamicface.metrics import rotation_degrees
from dynamicface.perception import IdentityNet
from dynamicface.prior.estimate import default_focal
from dynamicface.prior.fit import FitSettings, LandmarkFit, fit_landmarks

RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4)
"""Eye corners and the ridge of the nose: what an expression hardly moves."""
FOREHEAD = (10, 338, 297, 332, 284, 251, 109, 67, 103, 54, 21, 151, 9)
OVAL = FACE_OVAL
LIPS = (*LIPS_OUTER, *LIPS_INNER)
LIDS = (*EYES[0], *EYES[1])
SMILE = tuple(ARKIT_NAMES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight"))
degrees_between = rotation_degrees
FRAME = 224  # side of the frame faces are compared in, px
_FREE = FitSettings(expression_sigma=0.4)
_STAGES = (1, 3, 5, 11)  # blocks of the identity net whose features are compared: 1/4, 1/8, 1/16 and 1/32 of the frame


def retrack(pipe: FacePipeline, pictures: Tensor) -> FaceTrack | None:
    """Find the face in results (F, H, W, 3) as if they were photographs; None where there is none any more."""
    try:
        return pipe.track(pictures)
    except NoFaceError:
        return None


def refit(head: HeadModel, track: FaceTrack, shape: Tensor, weight: Tensor | None = None) -> LandmarkFit:
    """Expression, pose and gaze of a tracked face whose identity (S,) is known; weight (F, 478) of the landmarks."""
    centre = track.landmarks.new_tensor([track.image_size[1] / 2, track.image_size[0] / 2])
    points, focal = track.landmarks[None, ..., :2], default_focal(track)[None]
    return fit_landmarks(points, head, focal, centre, weight=None if weight is None else weight[None], shape=shape[None], settings=_FREE)


def in_plate(track: FaceTrack, matrix: Tensor, image_size: tuple[int, int]) -> FaceTrack:
    """A track found in a crop, in the plate's pixels; matrix (1, 2, 3): plate to crop."""
    back = invert(matrix)
    xy = transform(track.landmarks[..., :2], back)
    z = track.landmarks[..., 2:] * back[0, :, 0].norm()
    boxes = transform(track.boxes.unflatten(-1, (2, 2)), back).flatten(1)
    return replace(track, image_size=image_size, boxes=boxes, landmarks=torch.cat([xy, z], -1))


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The (1, 2, 3) rotation, scale and shift that takes points (K, 2) to others, least squares."""
    a, b = (points - points.mean(0) for points in (source, target))
    cosine, sine = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    turn = torch.stack([cosine, -sine, sine, cosine]).view(2, 2) / a.square().sum()
    return torch.cat([turn, (target.mean(0) - turn @ source.mean(0))[:, None]], 1)[None]


def chain(*matrices: Tensor) -> Tensor:
    """The affine map (1, 2, 3) of several, the first one applied first."""
    bottom = matrices[0].new_tensor([[[0, 0, 1]]])
    return reduce(lambda first, second: second @ torch.cat([first, bottom], 1), matrices)


def frame_matrix(landmarks: Tensor) -> Tensor:
    """(1, 2, 3) plate to the frame of comparison, around landmarks (478, 2..)."""
    points = landmarks[:468, :2]
    low, high = points.amin(0), points.amax(0)
    side = (high - low).amax()[None] * 1.15
    return square_matrix((low + high)[None] / 2, side, torch.zeros_like(side), FRAME)


def framed(picture: Tensor, matrix: Tensor) -> Tensor:
    """The face of a plate (1, H, W, 3) in the frame, (1, 3, FRAME, FRAME)."""
    return sample_crops(picture[..., :3], matrix, FRAME).clamp(0, 1)


def polygon(points: Tensor, ring: tuple[int, ...], grow: int = 0) -> np.ndarray:
    """(FRAME, FRAME) bool: the convex hull of some landmarks (478, 2), grown by some pixels."""
    hull = cv2.convexHull(points[list(ring)].cpu().numpy().round().astype(np.int32))
    mask = cv2.fillConvexPoly(np.zeros((FRAME, FRAME), np.uint8), hull, 1)
    return cv2.dilate(mask, np.ones((2 * grow + 1, 2 * grow + 1))) > 0


def ssim(a: Tensor, b: Tensor, *masks: np.ndarray) -> list[float]:
    """Structural similarity of two framed pictures, averaged over each mask."""
    one, two = (x[0].permute(1, 2, 0).cpu().numpy() for x in (a, b))
    _, local = structural_similarity(one, two, channel_axis=-1, data_range=1.0, gaussian_weights=True, full=True)
    return [float(local[mask].mean()) for mask in masks]


@torch.inference_mode()
def feature_distance(net: IdentityNet, a: Tensor, b: Tensor, mask: np.ndarray) -> float:
    """Distance of two framed pictures in four stages of the product's identity net: unit features, squared, averaged under the mask."""
    x = torch.cat([a, b]).flip(1) * 255 - net.mean
    x = F.relu6(net.stem(x))
    weight = torch.from_numpy(mask).to(a)[None, None]
    total = 0.0
    for number, block in enumerate(net.blocks):
        x = block(x)
        if number in _STAGES:
            unit = F.normalize(x, dim=1)
            difference = (unit[:1] - unit[1:]).square().sum(1, keepdim=True)
            inside = F.interpolate(weight, difference.shape[-2:], mode="area")
            total += float((difference * inside).sum() / inside.sum()) / len(_STAGES)
    return total


def landmark_error(a: Tensor, b: Tensor, *groups: tuple[int, ...], centred: bool = False) -> float:
    """Mean distance of groups of landmarks (478, 2..) of two pictures, % of the outer-eye distance, after aligning what is rigid.

    centred: each group is moved onto the other's centre, so that only its form counts (for different people).
    """
    a, b = a[:, :2], b[:, :2]
    a = transform(a[None], similarity(a[list(RIGID)], b[list(RIGID)]))[0]
    errors = []
    for group in groups:
        one, two = a[list(group)], b[list(group)]
        if centred:
            one, two = one - one.mean(0), two - two.mean(0)
        errors.append((one - two).norm(dim=-1))
    return 100 * float(torch.cat(errors).mean() / outer_eyes(b))


def openings(landmarks: Tensor) -> Tensor:
    """(3,) how far mouth, right and left eye are open: height over width."""
    gaps, widths = ((13, 14), (159, 145), (386, 374)), ((61, 291), (33, 133), (362, 263))
    gap, width = ((landmarks[[a for a, _ in x], :2] - landmarks[[b for _, b in x], :2]).norm(dim=-1) for x in (gaps, widths))
    return gap / width


def outer_eyes(landmarks: Tensor) -> Tensor:
    """Distance of the outer eye corners of landmarks (.., 478, 2..)."""
    return (landmarks[..., 33, :2] - landmarks[..., 263, :2]).norm(dim=-1)


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())
