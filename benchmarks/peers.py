"""The simple methods the product is measured against, written anew as plainly as they are meant.

- warp_expression   displacement of the fitted mesh, diffused to a dense flow, inverse warp of the photograph: no layer, no light
- swap_face         the source's pixels carried over by the mesh, colours matched in Lab, cloned in by OpenCV's Poisson solver
- swap_affine       the classic of 68 landmarks: one affine map, the hull of the landmarks, Poisson cloning; no 3D model
- swap_piecewise    as many affine maps as a Delaunay triangulation of 468 landmarks has triangles, Poisson cloning; no 3D model
- flow_expression   the optical flow from somebody else's neutral to their smiling photograph, moved over by the landmarks, as a warp
- pose_pnp          head pose from 468 landmarks and the mean head by OpenCV's iterative PnP

The first two fit the same head model to the same landmarks as the product, with plain priors and without landmark offsets. All edits
work in their own 512 px crop; they return it and the matrix that cuts it out of the plate.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from scipy.spatial import Delaunay
from torch import Tensor

from dynamicface import FaceTrack, HeadModel
from dynamicface.conventions import PARTS
from dynamicface.images import sample_crops, square_matrix, transform
from dynamicface.landmark_sets import LIPS_INNER
from dynamicface.prior.camera import to_camera, to_screen
from dynamicface.prior.fit import MESH, FitSettings, LandmarkFit, fit_landmarks, landmark_bases
from dynamicface.prior.raster import rasterise

from .faces import OVAL, RIGID, similarity

SIZE = 512
DLIB_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)
"""The face mesh's points nearest to the 68 of iBUG and dlib, in their order."""
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


def swap_affine(source: Tensor, source_track: FaceTrack, target: Tensor, target_track: FaceTrack) -> tuple[Tensor, Tensor]:
    """The source's face on the target (1, H, W, 3) by one affine map of 68 landmarks: the target's crop and its matrix."""
    face, ground, theirs, ours, matrix = _pair(source, source_track, target, target_track)
    design = np.concatenate([ours[list(DLIB_68)], np.ones((68, 1))], 1)
    back, *_ = np.linalg.lstsq(design, theirs[list(DLIB_68)], rcond=None)  # target to source, which is what a warp reads
    warped = _remap(face, _grid() @ back[:2].astype(np.float32) + back[2].astype(np.float32))
    hull = cv2.convexHull(ours[list(DLIB_68)].round().astype(np.int32))
    return _cloned(warped, ground, cv2.fillConvexPoly(np.zeros((SIZE, SIZE), np.uint8), hull, 1), target), matrix


def swap_piecewise(source: Tensor, source_track: FaceTrack, target: Tensor, target_track: FaceTrack) -> tuple[Tensor, Tensor]:
    """The source's face on the target (1, H, W, 3), triangle by triangle of 468 landmarks: the target's crop and its matrix."""
    face, ground, theirs, ours, matrix = _pair(source, source_track, target, target_track)
    triangles = torch.from_numpy(Delaunay(ours).simplices.astype(np.int64))
    flat = torch.from_numpy(np.concatenate([ours, np.ones((MESH, 1), np.float32)], 1))[None].float()
    raster = rasterise(flat, triangles, (SIZE, SIZE), cull=False)
    read_at = raster.interpolate(torch.from_numpy(theirs)[None].float())[0].numpy()
    mask = raster.mask[0].numpy().astype(np.uint8) * _polygon(torch.from_numpy(ours), OVAL)
    return _cloned(_remap(face, read_at), ground, mask, target), matrix


def flow_expression(
    plate: Tensor, track: FaceTrack, neutral: Tensor, neutral_track: FaceTrack, smile: Tensor, smile_track: FaceTrack
) -> tuple[Tensor, Tensor]:
    """A photograph (1, H, W, 3) bent by the flow between two photographs of somebody else: the crop and its matrix."""
    matrix = own_crop(track)
    crop, points = _cut(plate, matrix), _in_crop(track, matrix)
    there = own_crop(neutral_track)
    rest = _in_crop(neutral_track, there)
    still = list(RIGID)
    aligned = similarity(smile_track.landmarks[0, still, :2], torch.from_numpy(_in_crop(neutral_track, there)[still]).to(there))
    grey = [cv2.cvtColor(_bytes(_cut(image, cut)), cv2.COLOR_RGB2GRAY) for image, cut in ((neutral, there), (smile, aligned))]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[1], grey[0], None)  # where the smile's pixel was at rest
    onto = similarity(torch.from_numpy(points), torch.from_numpy(rest))[0].numpy()  # our crop to theirs
    moved = _remap(flow, _grid() @ onto[:, :2].T + onto[:, 2]) @ np.linalg.inv(onto[:, :2]).T
    return torch.from_numpy(_remap(crop, _grid() + moved.astype(np.float32))).to(plate), matrix


def pose_pnp(track: FaceTrack, head: HeadModel, focal: float) -> Tensor:
    """Head rotation (3, 3) of a one-frame track as OpenCV solves it for the mean head without expression."""
    mean = landmark_bases(head)[0][:MESH].cpu().numpy().astype(np.float64)
    points = track.landmarks[0, :MESH, :2].cpu().numpy().astype(np.float64)
    height, width = track.image_size
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    flip = np.diag([1.0, -1.0, -1.0])  # ours looks along -z with y up, OpenCV's along +z with y down
    _, turn, _ = cv2.solvePnP(mean, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    return torch.from_numpy(flip @ cv2.Rodrigues(turn)[0]).float()


def _pair(
    source: Tensor, source_track: FaceTrack, target: Tensor, target_track: FaceTrack
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """Both crops in eight bits, the landmarks in them (468, 2), and the target's matrix."""
    matrices = own_crop(source_track), own_crop(target_track)
    pictures = (_bytes(_cut(image, matrix)) for image, matrix in zip((source, target), matrices, strict=True))
    points = (_in_crop(track, matrix) for track, matrix in zip((source_track, target_track), matrices, strict=True))
    return *pictures, *points, matrices[1]


def _in_crop(track: FaceTrack, matrix: Tensor) -> np.ndarray:
    return transform(track.landmarks[:, :MESH, :2], matrix)[0].cpu().numpy()


def _cloned(face: np.ndarray, ground: np.ndarray, mask: np.ndarray, like: Tensor) -> Tensor:
    """Poisson cloning under a mask, (SIZE, SIZE, 3)."""
    mask = mask.astype(np.uint8)
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    if mask.any():
        x, y, width, height = cv2.boundingRect(mask)
        ground = cv2.seamlessClone(face, ground, mask * 255, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    return torch.from_numpy(ground.astype(np.float32) / 255).to(like)


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
