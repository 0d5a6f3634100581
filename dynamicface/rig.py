"""The face as other programs take it: a neutral mesh with linear morph targets, two eyeballs that turn, a texture, an animation.

The head model is not linear everywhere (`prior/head.py`), and its fit leaves offsets that change from frame to frame. A linear rig keeps
the neutral face, every channel alone at 1, the eyeballs' turns, pose and camera. What is left over in the given frames (lids on their
way, channels that together push lids out of the eyeballs, offsets) becomes a few more targets, `corrective_0` and so on, with their own
animation, so that the frames themselves are kept. A face animated by hand has no correctives: `rig_error` says how far it is off then.
mouthClose is a corrective of jawOpen; the weights hold it back as far as the jaw is closed, and it means nothing without jawOpen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .conventions import linear_to_srgb
from .prior.camera import rotation_from_vector, to_camera
from .prior.geometry import offset_field
from .prior.head import HeadModel
from .prior.raster import vertex_normals
from .types import FacePrior

EYE_NAMES = ("eye_left", "eye_right")
CORRECTIVES = 8
"""Most targets spent on what the channels leave over."""
_EXACT = 2e-5  # metres


@dataclass(frozen=True)
class Mesh:
    """V vertices and T triangles."""

    points: Tensor  # (V, 3) metres
    normals: Tensor  # (V, 3) unit
    uv: Tensor  # (V, 2) v down
    faces: Tensor  # (T, 3) int64, counter-clockwise seen from outside
    origin: Tensor  # (V,) int64 the head model's vertex


@dataclass(frozen=True)
class FaceRig:
    """One person's linear face and F frames of animation."""

    skin: Mesh  # everything but the eyeballs, model axes
    eyes: tuple[Mesh, ...]  # [left, right] about their own centres, or none
    pivots: Tensor  # (2, 3) metres, centres of the eyeballs in the head
    names: tuple[str, ...]  # of the K morph targets
    targets: Tensor  # (K, V, 3) motion of the skin's vertices at full expression, metres
    target_normals: Tensor  # (K, V, 3) change of their normals
    texture: Tensor  # (U, U, 3) sRGB, 0..1
    weights: Tensor  # (F, K)
    eye_rotation: Tensor  # (F, 2, 3, 3)
    rotation: Tensor  # (F, 3, 3) head to camera
    translation: Tensor  # (F, 3) metres
    focal: Tensor  # (F,) px
    image_size: tuple[int, int]  # (H, W)
    fps: float

    def __len__(self) -> int:
        return len(self.weights)


@torch.inference_mode()
def rig_of(prior: FacePrior, head: HeadModel, fps: float = 24.0, *, correctives: int = CORRECTIVES) -> FaceRig:
    """The linear rig of a prior's face, with at most so many corrective targets for its own frames."""
    shape, names = prior.identity.shape[None], head.expression_names
    full = torch.eye(len(names), device=shape.device, dtype=shape.dtype)
    rest = torch.zeros_like(full)
    if {"mouthClose", "jawOpen"} <= set(names):  # the corrective is taken where it works: on an open jaw
        close, jaw = names.index("mouthClose"), names.index("jawOpen")
        full[close, jaw] = rest[close, jaw] = 1
    owner = torch.zeros(len(head.template), dtype=torch.long, device=shape.device)
    for eye, ids in enumerate(head.eye_vertices):
        owner[ids] = eye + 1
    targets = head.vertices(shape, full) - head.vertices(shape, rest)
    neutral = head.vertices(shape, rest.new_zeros(1, len(names))) + offset_field(head) @ prior.offset.mean(0)
    weights = head.corrected(prior.expression)
    seen = _model_vertices(prior, head)
    shown = neutral + torch.einsum("fk,kvc->fvc", weights, targets)
    extra, extra_weights = _principal(torch.where((owner == 0)[:, None], seen - shown, 0.0), correctives)
    targets, weights = torch.cat([targets, extra]), torch.cat([weights, extra_weights], 1)
    normals = vertex_normals(neutral, head.faces)
    turned = vertex_normals(neutral + targets, head.faces) - normals
    pivots = head.eyes(prior.identity.shape)[0]
    yaw, pitch = prior.gaze.unbind(-1)
    zero = torch.zeros_like(yaw)
    turn = rotation_from_vector(torch.stack([zero, yaw, zero], -1)) @ rotation_from_vector(torch.stack([-pitch, zero, zero], -1))
    albedo = head.albedo if prior.identity.albedo is None else prior.identity.albedo
    skin, *eyes = (_part(neutral[0], normals[0], head, owner == k) for k in range(3) if (owner == k).any())
    return FaceRig(
        skin=skin,
        eyes=tuple(Mesh(eye.points - pivot, eye.normals, eye.uv, eye.faces, eye.origin) for eye, pivot in zip(eyes, pivots, strict=False)),
        pivots=pivots,
        names=(*names, *(f"corrective_{k}" for k in range(len(extra)))),
        targets=targets[:, skin.origin],
        target_normals=turned[:, skin.origin],
        texture=linear_to_srgb(albedo).clamp(0, 1).permute(1, 2, 0),
        weights=weights,
        eye_rotation=turn,
        rotation=prior.rotation,
        translation=prior.translation,
        focal=prior.focal,
        image_size=prior.image_size,
        fps=fps,
    )


def rig_vertices(rig: FaceRig) -> Tensor:
    """What a program that plays the rig shows: (F, V', 3) camera space, metres; the skin's vertices, then each eye's."""
    skin = rig.skin.points + torch.einsum("fk,kvc->fvc", rig.weights, rig.targets)
    eyes = [eye.points @ rig.eye_rotation[:, k].mT + rig.pivots[k] for k, eye in enumerate(rig.eyes)]
    return to_camera(torch.cat([skin, *eyes], 1), rig.rotation, rig.translation)


@torch.inference_mode()
def rig_error(rig: FaceRig, prior: FacePrior, head: HeadModel) -> Tensor:
    """(F, V') metres between the rig's vertices and the head model's."""
    origin = torch.cat([mesh.origin for mesh in (rig.skin, *rig.eyes)])
    return (rig_vertices(rig) - posed_vertices(prior, head)[:, origin]).norm(dim=-1)


@torch.inference_mode()
def posed_vertices(prior: FacePrior, head: HeadModel) -> Tensor:
    """(F, V, 3) camera space, metres: the head exactly as the renderer sees it."""
    return to_camera(_model_vertices(prior, head), prior.rotation, prior.translation)


def _model_vertices(prior: FacePrior, head: HeadModel) -> Tensor:
    return head.vertices(prior.identity.shape[None], prior.expression, prior.gaze) + offset_field(head) @ prior.offset


def _principal(residual: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The fewest targets (K, V, 3) and weights (F, K), of size 1 at most, that sum up to residual (F, V, 3) within _EXACT."""
    flat = residual.flatten(1)
    left, size, right = torch.linalg.svd(flat, full_matrices=False)
    for kept in range(min(most, len(size)) + 1):
        if (flat - left[:, :kept] * size[:kept] @ right[:kept]).abs().max() < _EXACT:
            break
    weights = left[:, :kept] * size[:kept]
    scale = weights.abs().amax(0).clamp_min(1e-9)
    return (right[:kept] * scale[:, None]).unflatten(1, (-1, 3)), weights / scale


def _part(points: Tensor, normals: Tensor, head: HeadModel, chosen: Tensor) -> Mesh:
    """The chosen vertices (V,) bool and the triangles between them."""
    origin = chosen.nonzero()[:, 0]
    place = chosen.cumsum(0) - 1
    return Mesh(points[origin], normals[origin], head.uv[origin], place[head.faces[chosen[head.faces].all(1)]], origin)
