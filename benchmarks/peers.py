"""The naive prototypes the product is measured against, written anew as simply as they are meant.

- warp_expression   displacement of the fitted mesh, diffused to a dense flow, inverse warp of the photograph: no layer, no light
- swap_face         the source's pixels carried over by the mesh, colours matched in Lab, cloned in by OpenCV's Poisson solver

Both fit the same head model to the same landmarks as the product, with plain priors and without landmark offsets, and work in their
own 512 px crop; they return it and the matrix that cuts it out of the plate.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from dynamicface import FaceTrack, HeadModel
from dynamicface.conventions import PARTS
from dynamicface.images import sample_crops, square_matrix, transform
from dynamicface.landmark_sets import LIPS_INNER
from dynamicface.prior.camera import to_camera, to_screen
from dynamicface.prior.fit import FitSettings, LandmarkFit, fit_landmarks
from dynamicface.prior.raster import rasterise

from .faces import OVAL

SIZE = 512
_FOCAL = 3.0 * SIZE
_SETTINGS = FitSettings(shape_sigma=5**-0.5, expression_sigma=0.2)
_SKIN = PARTS.index("skin"), PARTS.index("lips"), PARTS.index("scalp"), PARTS.index("neck"), PARTS.index("ears")


def own_crop(track: FaceTrack) -> Tensor:
    """(1, 2, 3) plate to the prototypes' crop: upright, 1.8 times the landmarks' extent."""
    points = track.landmarks[:, :468, :2]
    low, high = points.amin(1), points.amax(1)
    side = (high - low).amax(-1) * 1.8
    return square_matrix((low + high) / 2, side, torch.zeros_like(side), SIZE)


def warp_expression(plate: Tensor, track: FaceTrack, like: FaceTrack, head: HeadModel) -> tuple[Tensor, Tensor]:
    """A photograph (1, H, W, 3) bent to the expression in another picture of the person: the crop (SIZE, SIZE, 3) and its matrix."""
    matrix = own_crop(track)
    fit, crop = _fit(track, matrix, head), _cut(plate, matrix)
    wanted = _fit(like, own_crop(like), head, fit.shape)
    before = _project(head, fit.shape[0], fit.expression[0, 0], fit)
    after = _project(head, fit.shape[0], wanted.expression[0, 0], fit)
    flow, known = _carry(before - after, after, head)
    flow = _diffuse(flow, cv2.erode(known, np.ones((5, 5))))
    return torch.from_numpy(_remap(crop, _grid() + flow)).to(plate), matrix


def swap_face(source: Tensor, source_track: FaceTrack, target: Tensor, target_track: FaceTrack, head: HeadModel) -> tuple[Tensor, Tensor]:
    """The source's face on the target (1, H, W, 3): the target's crop (SIZE, SIZE, 3) and its matrix."""
    matrices = own_crop(source_track), own_crop(target_track)
    giver, taker = _fit(source_track, matrices[0], head), _fit(target_track, matrices[1], head)
    face, ground = _bytes(_cut(source, matrices[0])), _bytes(_cut(target, matrices[1]))
    came_from = _project(head, giver.shape[0], giver.expression[0, 0], giver)
    composed = _project(head, giver.shape[0], taker.expression[0, 0], taker)
    read_at, known = _carry(came_from, composed, head)
    face = _remap(face, read_at)

    points = head.landmarks(composed[None])[0]
    mask = _polygon(points, OVAL) & _polygon(transform(target_track.landmarks[..., :2], matrices[1])[0], OVAL)
    mask = (cv2.erode(mask, np.ones((13, 13))) * known).astype(np.uint8)
    if not mask.any():
        return torch.from_numpy(ground.astype(np.float32) / 255).to(target), matrices[1]
    matched = _match_lab(face, ground, mask > 0)
    mouth = _polygon(points, LIPS_INNER)
    if mouth.sum() > 60:
        soft = cv2.GaussianBlur(mouth.astype(np.float32), (0, 0), 1.5)[..., None]
        matched = (matched * (1 - soft) + ground * soft).astype(np.uint8)
    pasted = np.where(mask[..., None] > 0, matched, ground)
    x, y, width, height = cv2.boundingRect(mask)
    cloned = cv2.seamlessClone(pasted, ground, mask * 255, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    return torch.from_numpy(cloned.astype(np.float32) / 255).to(target), matrices[1]


def _fit(track: FaceTrack, matrix: Tensor, head: HeadModel, shape: Tensor | None = None) -> LandmarkFit:
    points = transform(track.landmarks[..., :2], matrix)
    centre = points.new_full((2,), SIZE / 2)
    return fit_landmarks(points[None], head, points.new_full((1, 1), _FOCAL), centre, shape=shape, settings=_SETTINGS)


def _project(head: HeadModel, shape: Tensor, expression: Tensor, pose: LandmarkFit) -> Tensor:
    """(V, 3) screen positions in the crop."""
    camera = to_camera(head.vertices(shape, expression)[None], pose.rotation[0], pose.translation[0])
    return to_screen(camera, camera.new_full((1,), _FOCAL), camera.new_full((2,), SIZE / 2))[0]


def _carry(values: Tensor, screen: Tensor, head: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """The first two of vertex values (V, 3) as the pixels see them, (SIZE, SIZE, 2), and where there is a surface."""
    skin = head.faces[torch.isin(head.part, head.part.new_tensor(_SKIN))]
    raster = rasterise(screen[None], skin, (SIZE, SIZE))
    return raster.interpolate(values[None, :, :2])[0].cpu().numpy(), raster.mask[0].cpu().numpy().astype(np.float32)


def _diffuse(flow: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Continue a flow beyond the mesh by wider and wider averages; it dies out far away."""
    out, solid = flow * known[..., None], cv2.GaussianBlur(known, (0, 0), 1)[..., None]
    seed = out
    for sigma in (4, 10, 22):
        near = cv2.GaussianBlur(known, (0, 0), sigma)[..., None]
        fill = cv2.GaussianBlur(seed, (0, 0), sigma) / np.maximum(near, 1e-3) * np.clip(2 * near, 0, 1)
        out = np.where(known[..., None] > 0, flow, fill) if sigma == 4 else out * solid + fill * (1 - solid)
    return out


def _match_lab(face: np.ndarray, ground: np.ndarray, inside: np.ndarray) -> np.ndarray:
    a, b = (cv2.cvtColor(x, cv2.COLOR_RGB2LAB).astype(np.float32) for x in (face, ground))
    mean_a, mean_b, spread_a, spread_b = a[inside].mean(0), b[inside].mean(0), a[inside].std(0), b[inside].std(0)
    a = (a - mean_a) * (0.5 * spread_b / np.maximum(spread_a, 1) + 0.5) + mean_b
    return cv2.cvtColor(a.clip(0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)


def _cut(plate: Tensor, matrix: Tensor) -> np.ndarray:
    return sample_crops(plate[..., :3], matrix, SIZE)[0].permute(1, 2, 0).contiguous().cpu().numpy()


def _bytes(image: np.ndarray) -> np.ndarray:
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _grid() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5
    return np.stack([x, y], -1)


def _remap(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Read an image at positions (SIZE, SIZE, 2), pixel centres at halves."""
    x, y = (np.ascontiguousarray(at[..., i], dtype=np.float32) - 0.5 for i in range(2))
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _polygon(points: Tensor, ring: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    return cv2.fillPoly(mask, [points[list(ring), :2].cpu().numpy().astype(np.int32)], 1)
