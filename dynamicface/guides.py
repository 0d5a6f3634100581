"""Attribute maps in crop space: what the guiders of DynamicFace, and any ControlNet, are shown (paper section 3.2).

- normal        shape of the composed identity under the composed pose and expression, camera space, black outside of the face
- pose          the mean head without expression under the composed pose, coloured by its own coordinates: no identity, no expression
- expression    brows, eyes, irises and lips only: no contour and no nose, so that no identity leaks
- illumination  the plate's light on skin as a blurred texture without identity, rendered on the composed shape
- background    the plate outside of the face
- composite     the prior path's picture
- mask          where the face is: the composed and the filmed face together, occluders left out
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_occlusion, plate_of
from .composite import apply_change, compute_change, is_unchanged
from .conventions import PARTS, linear_to_srgb
from .filters import blur, sample_each, unit
from .images import linear_crops, sample_crops
from .landmark_sets import BROWS, EYES, LIPS_INNER, LIPS_OUTER
from .prior.camera import crop_screen, euler_from_rotation, image_centre, to_camera, to_screen
from .prior.estimate import select_frames
from .prior.geometry import PosedHead, face_crop, pose_head
from .prior.head import HeadModel
from .prior.raster import rasterise
from .skin import SwapLook, illumination_texture
from .types import FaceCrop, FacePrior, Identity
from .windows import map_windows

_NORMAL_PARTS = tuple(PARTS.index(p) for p in ("skin", "lips", "eye_left", "eye_right", "inner_mouth", "teeth", "tongue", "ears"))
_IRIS_RIM = 12
_WINDOW = 4  # frames rendered at once; keeps memory flat over a clip
_COLOURS = {"brow": (1.0, 0.6, 0.1), "eye": (0.9, 0.9, 0.9), "iris": (0.1, 0.3, 1.0), "lips": (0.9, 0.15, 0.2), "mouth": (0.35, 0.0, 0.1)}


@dataclass(frozen=True)
class Guides:
    """Maps of F frames, (F, S, S, 3) in 0..1 except mask (F, S, S), the crop they live in, and how the head is turned there."""

    normal: Tensor
    pose: Tensor
    expression: Tensor
    illumination: Tensor
    background: Tensor
    composite: Tensor
    mask: Tensor
    crop: FaceCrop
    yaw: Tensor  # (F,) degrees, of the composed head
    confidence: Tensor  # (F,) 0..1, the fit's


def render_guides(
    prior: FacePrior,
    head: HeadModel,
    size: int = 512,
    *,
    zoom: float = 1.0,
    occlusion: Tensor | None = None,
    look: SwapLook | None = None,
    composed: Tensor | None = None,
) -> Guides:
    """Render every guide of a prior in its face crop.

    occlusion: (F, H, W) in the plate, 1 = something in front of the face. composed: (F, H, W, C) the composed plate, where it is at hand.
    """
    plate = plate_of(prior)
    check_occlusion(occlusion, plate)

    def render(index: slice) -> Guides:
        hidden, done = (None if frames is None else frames[index] for frames in (occlusion, composed))
        return _render_window(select_frames(prior, index), head, size, zoom, hidden, look, done)

    parts = map_windows(render, len(prior), _WINDOW, plate.device)
    joined = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Guides) if f.name != "crop"}
    return Guides(**joined, crop=FaceCrop(torch.cat([part.crop.matrix for part in parts]), size))


def _render_window(
    prior: FacePrior, head: HeadModel, size: int, zoom: float, occlusion: Tensor | None, look: SwapLook | None, composed: Tensor | None
) -> Guides:
    """:func:`render_guides` of a few frames."""
    plate = prior.background.plate
    crop = face_crop(prior.filmed, size, zoom)
    before, after = pose_head(prior.filmed, head, crop), pose_head(prior, head, crop)
    pictures = sample_crops(plate[..., :3], crop.matrix, size)
    mask = face_mask(before, after)
    if occlusion is not None:
        mask = mask * (1 - sample_crops(occlusion[..., None], crop.matrix, size)[:, 0])
    if composed is None:
        composed = plate if is_unchanged(prior) else apply_change(plate, compute_change(prior, head, plate, look=look), occlusion)[0]
    composite = sample_crops(composed[..., :3], crop.matrix, size)
    return Guides(
        normal=normal_map(after),
        pose=pose_map(prior, head, crop),
        expression=expression_map(prior, after, crop),
        illumination=illumination_map(prior, before, after, crop),
        background=(pictures * (1 - mask[:, None])).permute(0, 2, 3, 1).clamp(0, 1),
        composite=composite.permute(0, 2, 3, 1),
        mask=mask,
        crop=crop,
        yaw=euler_from_rotation(prior.rotation)[:, 0],
        confidence=prior.confidence,
    )


def normal_map(posed: PosedHead) -> Tensor:
    """(F, S, S, 3): camera-space normals / 2 + 0.5 on the face, eyes, mouth and ears; black elsewhere."""
    normal = unit(posed.raster.gather(posed.normal)) * 0.5 + 0.5
    shown = torch.isin(posed.covered_part, torch.tensor(_NORMAL_PARTS, device=normal.device))
    return posed.raster.scatter(normal * shown[:, None])


def pose_map(prior: FacePrior, head: HeadModel, crop: FaceCrop) -> Tensor:
    """(F, S, S, 3): the mean head at rest under the prior's pose; colour = its x, y, z in model space over the head's extent."""
    nobody = prior.replace(
        identity=Identity(torch.zeros_like(prior.identity.shape)),
        expression=torch.zeros_like(prior.expression),
        gaze=torch.zeros_like(prior.gaze),
        offset=torch.zeros_like(prior.offset),
    )
    raster = pose_head(nobody, head, crop).raster
    low, high = head.template.amin(0), head.template.amax(0)
    return raster.interpolate(((head.template - low) / (high - low)).clamp(0, 1))


def expression_map(prior: FacePrior, posed: PosedHead, crop: FaceCrop) -> Tensor:
    """(F, S, S, 3): brows, eye openings, irises, lips and the open mouth as flat colours on black."""
    points = posed.head.landmarks(posed.screen)
    triangles, colours = _expression_triangles()
    rim = _iris_rims(prior, posed, crop)
    mesh = torch.cat([points, rim], 1)
    layer = triangles[:, 3:].to(mesh)
    corner = triangles[:, :3].to(mesh.device)
    # Flat shapes painted in order: each triangle gets its own corners at the depth of its layer.
    screen = torch.cat([mesh[:, corner, :2], (10.0 - layer)[None, :, None].expand(len(mesh), -1, 3, 1)], -1).flatten(1, 2)
    own = torch.arange(screen.shape[1], device=mesh.device).view(-1, 3)
    raster = rasterise(screen, own, (posed.size, posed.size), cull=False)
    colour = torch.where(raster.mask[..., None], colours.to(mesh)[raster.face.clamp_min(0)], 0.0)
    inside = torch.isin(raster.face, torch.nonzero(layer[:, 0] == 2)[:, 0])
    eye = rasterise(screen[:, : 3 * _eye_count()], own[: _eye_count()], (posed.size, posed.size), cull=False).mask
    return torch.where((inside & ~eye)[..., None], 0.0, colour)


def illumination_map(prior: FacePrior, before: PosedHead, after: PosedHead, crop: FaceCrop) -> Tensor:
    """(F, S, S, 3): display-referred light on identity-free skin, black outside of the head; follows edits of pose and light."""
    ground, _ = illumination_texture(linear_crops(prior.background.plate, crop.matrix, crop.size), before, 128)
    raster = after.raster
    ratio = (after.shade(prior.illumination) / before.shade(prior.filmed.illumination)).clamp(0.25, 4)
    lit = sample_each(ground, raster.gather(after.head.uv) * 128, raster.frame) * raster.gather(ratio)
    return raster.scatter(linear_to_srgb(lit).clamp(0, 1))


def face_mask(before: PosedHead, after: PosedHead) -> Tensor:
    """(F, S, S) soft union of the filmed and the composed face region with eyes and mouth."""
    regions = []
    for posed in (before, after):
        inner = torch.isin(posed.covered_part, torch.tensor(_NORMAL_PARTS[2:-1], device=posed.screen.device))
        region = torch.maximum(posed.raster.gather(posed.head.face_region[:, None]), inner[:, None])
        regions.append(posed.raster.scatter(region)[..., 0])
    return blur(torch.maximum(*regions)[:, None], max(before.size // 256, 1), 2)[:, 0].clamp(0, 1)


def _iris_rims(prior: FacePrior, posed: PosedHead, crop: FaceCrop) -> Tensor:
    """Points (F, 2 * (rim + 1), 3): centre and rim of the left and the right iris on the turned eyeballs, in the crop."""
    angle = torch.arange(_IRIS_RIM, device=posed.screen.device) * (2 * torch.pi / _IRIS_RIM)
    out = []
    centres, radii = posed.head.eyes(prior.identity.shape)
    for side in range(2):
        centre = to_camera(centres[side].expand(len(prior), 1, 3), prior.rotation, prior.translation)[:, 0]
        yaw, pitch = prior.gaze[:, side].unbind(-1)
        look = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1)[:, :, None]
        look = (prior.rotation @ look)[..., 0]
        right = F.normalize(torch.linalg.cross(prior.rotation[..., 1], look), dim=-1)
        up = torch.linalg.cross(look, right)
        radius = radii[side]
        disc = 0.48 * radius * (torch.cos(angle)[:, None, None] * right + torch.sin(angle)[:, None, None] * up)
        points = torch.cat([centre[None] + look * radius, centre[None] + 0.87 * radius * look + disc]).transpose(0, 1)
        out.append(points)
    camera = torch.cat(out, 1)
    return crop_screen(to_screen(camera, prior.focal, image_centre(prior.image_size, camera)), crop.matrix)


def _fan(ring: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Triangles of a closed ring of landmarks whose two halves run opposite to each other (lids, lips, brows)."""
    half = len(ring) // 2
    upper, lower = ring[: half + 1], (ring[0], *ring[:half:-1], ring[half])
    strip = []
    for k in range(half):
        strip += [(upper[k], upper[k + 1], lower[k]), (upper[k + 1], lower[k + 1], lower[k])]
    return strip


def _band(outer: tuple[int, ...], inner: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Triangles between two rings of equal length."""
    n = len(outer)
    return [t for k in range(n) for t in ((outer[k], outer[(k + 1) % n], inner[k]), (outer[(k + 1) % n], inner[(k + 1) % n], inner[k]))]


@lru_cache(maxsize=1)
def _expression_triangles() -> tuple[Tensor, Tensor]:
    """Triangles (T, 4) over 478 landmarks and the iris rims with their layer, and colours (T, 3). Eyes come first."""
    shapes = [("eye", 1, [t for e in EYES for t in _fan(e)]), ("brow", 1, [t for b in BROWS for t in _fan(b)])]
    shapes += [("mouth", 1, _fan(LIPS_INNER)), ("lips", 3, _band(LIPS_OUTER, LIPS_INNER))]
    irises = []
    for side in range(2):
        hub = 478 + side * (_IRIS_RIM + 1)
        irises += [(hub, hub + 1 + k, hub + 1 + (k + 1) % _IRIS_RIM) for k in range(_IRIS_RIM)]
    shapes.append(("iris", 2, irises))
    rows = [(*t, layer) for _, layer, triangles in shapes for t in triangles]
    colours = [_COLOURS[name] for name, _, triangles in shapes for _ in triangles]
    return torch.tensor(rows), torch.tensor(colours)


def _eye_count() -> int:
    """How many of the expression triangles are eye openings."""
    return sum(len(_fan(e)) for e in EYES)
