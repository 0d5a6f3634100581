"""Where the 478 landmarks lie on a head model: render it, run the landmark net on the renders, read off which triangle was hit.

Works for any :class:`HeadModel` (a studio's FLAME, BFM, ICT ...) and needs no annotation: the net itself says what it means by a
landmark. A point that slides over the surface with the pose (the jaw contour does) ends up with a large sigma.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conventions import LANDMARKS, PARTS, linear_to_srgb
from ..errors import NoFaceError
from ..perception.landmarks import LandmarkNet
from .camera import crop_screen, rotation_from_euler, to_camera, to_screen
from .head import HeadModel
from .raster import rasterise, vertex_normals

MESH = 468
IRIS_RADIUS = 5.9e-3
"""Metres; the visible iris hardly varies between people."""
IRIS_SIGMA = 0.8e-3
_SIDE = 384  # px of a render, twice the net's input
_DISTANCE, _WIDTH, _CENTRE = 0.9, 0.26, (0.0, -0.03, 0.0)  # metres: camera to face, width of the first crop, its centre
_FACING = 0.35  # cosine below which a hit is too grazing to count
_SURFACE = tuple(PARTS.index(p) for p in ("skin", "lips", "ears", "scalp", "neck"))


@dataclasses.dataclass(frozen=True)
class View:
    """N renders seen by the landmark net."""

    landmarks: Tensor  # (N, 478, 2) px of the render
    presence: Tensor  # (N,)
    screen: Tensor  # (N, V, 3)
    normal: Tensor  # (N, V, 3)
    face: Tensor  # (N, S, S) visible triangle


def look_at(head: HeadModel, net: LandmarkNet, vertices: Tensor, rotation: Tensor, light: Tensor) -> View:
    """Render heads (N, V, 3) turned by rotation (N, 3, 3) under a light from (N, 3), and detect landmarks twice: the second time in a crop
    aligned to the first answer."""
    n = len(vertices)
    centre = vertices.new_tensor(_CENTRE)
    camera = to_camera(vertices - centre, rotation, vertices.new_tensor([0, 0, -_DISTANCE]).expand(n, 3))
    focal = vertices.new_full((n,), _SIDE * _DISTANCE / _WIDTH)
    screen = to_screen(camera, focal, vertices.new_tensor([_SIDE / 2, _SIDE / 2]))
    normal = vertex_normals(camera, head.faces)
    direction = F.normalize(light, dim=-1)
    for _ in range(2):
        raster = rasterise(screen, head.faces, (_SIDE, _SIDE))
        frame = torch.div(raster.pixel, _SIDE * _SIDE, rounding_mode="floor")
        shade = 0.4 + 0.7 * (F.normalize(raster.gather(normal), dim=-1) * direction[frame]).sum(-1, keepdim=True).clamp_min(0)
        grid = 2 * raster.gather(head.uv) - 1
        albedo = F.grid_sample(head.albedo[None], grid[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        picture = raster.scatter(albedo * shade * raster.gather(head.ambient_occlusion[:, None]), 0.2).permute(0, 3, 1, 2)
        landmarks, presence = net(F.avg_pool2d(linear_to_srgb(picture).clamp(0, 1), _SIDE // net.size))
        landmarks = landmarks[..., :2] * (_SIDE / net.size)
        view = View(landmarks, presence, screen, normal, raster.face)
        screen = crop_screen(screen, _upright(landmarks))
    return view


def _upright(landmarks: Tensor) -> Tensor:
    """(N, 2, 3) that levels the eyes of landmarks (N, 478, 2) and centres the face at two thirds of the render."""
    across = landmarks[:, 263] - landmarks[:, 33]
    right = F.normalize(across, dim=-1)
    turn = torch.stack([right, torch.stack([-right[:, 1], right[:, 0]], -1)], 1)
    level = landmarks @ turn.mT
    low, high = level.amin(1), level.amax(1)
    linear = turn * (_SIDE / 1.5 / (high - low).amax(-1))[:, None, None]
    centre = (((low + high) / 2)[:, None] @ turn)[:, 0]
    return torch.cat([linear, _SIDE / 2 - linear @ centre[..., None]], -1)


def _unproject(view: View, head: HeadModel) -> tuple[Tensor, Tensor]:
    """Template positions the landmarks hit (N, 478, 3) and how squarely, the cosine (N, 478), 0 where the hit does not count."""
    n = len(view.screen)
    pixel = view.landmarks.long().clamp(0, _SIDE - 1)
    face = view.face[torch.arange(n)[:, None], pixel[..., 1], pixel[..., 0]]
    corner = head.faces[face.clamp_min(0)]  # (N, 478, 3)
    frame = torch.arange(n)[:, None, None]
    at = view.screen[frame, corner]
    d = at[..., :2] - view.landmarks[..., None, :]
    area = torch.stack([d[..., i, 0] * d[..., j, 1] - d[..., j, 0] * d[..., i, 1] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
    weight = area / at[..., 2]
    weight = (weight / weight.sum(-1, keepdim=True)).clamp(0, 1)
    weight = weight / weight.sum(-1, keepdim=True)
    facing = (view.normal[frame, corner] * weight[..., None]).sum(-2)[..., 2]
    counts = (face >= 0) & torch.isin(head.part[face.clamp_min(0)], torch.tensor(_SURFACE)) & (facing > _FACING)
    counts &= (view.presence > 0.5)[:, None]
    return (head.template[corner] * weight[..., None]).sum(-2), facing * counts


def _geometric_median(points: Tensor, weight: Tensor, rounds: int = 30) -> tuple[Tensor, Tensor]:
    """Weighted geometric median over the first axis of (N, K, 3), weights (N, K): (K, 3) and the median distance to it (K,)."""
    share = weight / weight.sum(0).clamp_min(1e-9)
    centre = (points * share[..., None]).sum(0)
    for _ in range(rounds):
        pull = weight / ((points - centre).norm(dim=-1) + 1e-4)
        centre = (points * (pull / pull.sum(0).clamp_min(1e-9))[..., None]).sum(0)
    distance = (points - centre).norm(dim=-1)
    return centre, torch.where(weight > 0, distance, torch.nan).nanmedian(0).values


def closest_on_mesh(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest surface points of (K, 3) on a mesh (V, 3), (T, 3): indices into faces (K,) and barycentrics (K, 3)."""
    a, b, c = vertices[faces].unbind(1)  # (T, 3)
    p = points[:, None]

    def along(s: Tensor, e: Tensor) -> Tensor:
        """(K, T) where on the edge s -> e the point is nearest, 0..1."""
        return (((p - s) * (e - s)).sum(-1) / (e - s).square().sum(-1).clamp_min(1e-20)).clamp(0, 1)

    ab, bc, ca = along(a, b), along(b, c), along(c, a)
    zero = torch.zeros_like(ab)
    normal = torch.linalg.cross(b - a, c - a)
    size = normal.square().sum(-1).clamp_min(1e-20)
    v = (torch.linalg.cross((p - a), (c - a).expand_as(p - a)) * normal).sum(-1) / size
    w = (torch.linalg.cross((b - a).expand_as(p - a), (p - a)) * normal).sum(-1) / size
    inside = torch.stack([1 - v - w, v, w], -1)
    inside = torch.where((inside >= 0).all(-1, keepdim=True), inside, torch.full_like(inside, torch.nan))
    options = torch.stack(
        [inside, torch.stack([1 - ab, ab, zero], -1), torch.stack([zero, 1 - bc, bc], -1), torch.stack([ca, zero, 1 - ca], -1)], 0
    )  # (4, K, T, 3)
    where = options[..., :1] * a + options[..., 1:2] * b + options[..., 2:] * c
    distance = (where - p).norm(dim=-1).nan_to_num(torch.inf)
    best = distance.permute(1, 0, 2).flatten(1).argmin(1)
    kind, face = torch.div(best, len(faces), rounding_mode="floor"), best % len(faces)
    return face, options[kind, torch.arange(len(points)), face]


@torch.inference_mode()
def embed_landmarks(
    head: HeadModel, net: LandmarkNet, *, views: int = 192, seed: int = 0, spread: float = 1.0, expressions: Sequence[str] = ()
) -> HeadModel:
    """The head with landmark_index, landmark_weight and landmark_sigma found on renders; landmark_bias becomes zero.

    spread: standard deviation of the random shape coefficients. expressions: names that half of the views show at random strength (by
    default those of an opening, smiling mouth, which tell the lips apart). head.landmark_mirror must be right.

    Raises NoFaceError when the net sees no face in most of the renders (the head is not upright, looking along +z, in metres).
    """
    generator = torch.Generator().manual_seed(seed)
    names = [n for n in (expressions or ("jawOpen", "mouthSmileLeft", "mouthSmileRight")) if n in head.expression_names]
    columns = [head.expression_names.index(n) for n in names]
    points, weights = [], []
    for start in range(0, views, 8):
        count = min(8, views - start)
        shape = torch.randn(count, len(head.shape_basis), generator=generator) * spread
        expression = torch.zeros(count, len(head.expression_basis))
        expression[::2, columns] = torch.rand(expression[::2].shape[0], len(columns), generator=generator) * 0.6
        yaw, pitch, roll = (torch.rand(3, count, generator=generator) * 2 - 1) * torch.tensor([[40.0], [15.0], [8.0]])
        light = torch.tensor([0.2, 0.4, 0.9]) + torch.randn(count, 3, generator=generator) * torch.tensor([0.4, 0.2, 0.1])
        view = look_at(head, net, head.vertices(shape, expression), rotation_from_euler(yaw, pitch, roll), light)
        point, weight = _unproject(view, head)
        points.append(point)
        weights.append(weight)
    points, weights = torch.cat(points)[:, :MESH], torch.cat(weights)[:, :MESH]
    if int((weights > 0).any(1).sum()) < views // 2:
        raise NoFaceError(
            f"The landmark net recognised a face in fewer than half of {views} renders of the head model {head.name!r}. "
            "The model must be upright, look along +z, be in metres and have its origin between the eyes."
        )
    position, sigma = _geometric_median(points, weights)
    return place_landmarks(head, position, sigma)


def place_landmarks(head: HeadModel, position: Tensor, sigma: Tensor) -> HeadModel:
    """Put the 468 mesh landmarks at the surface points nearest to position (468, 3), made symmetric, and the irises on the eyeballs.

    sigma (468,): metres, NaN where a landmark was never seen.
    """
    flip, mirror = position.new_tensor([-1.0, 1.0, 1.0]), head.landmark_mirror[:MESH]
    sigma = sigma.nan_to_num(0.02)
    trust = 1 / (sigma.square() + 1e-6)
    position = position.nan_to_num()
    own, other = trust[:, None], trust[mirror][:, None]
    position = (own * position + other * position[mirror] * flip) / (own + other)
    surface = head.faces[torch.isin(head.part, torch.tensor(_SURFACE))]
    index, weight = _snap(position, head.template, surface)
    if (head.template[head.vertex_mirror] * flip - head.template).abs().max() < 1e-6:
        index, weight = _symmetric(head, position, surface, index, weight)
    for ids, centre, radius in reversed(list(zip(head.eye_vertices, head.eye_centre, head.eye_radius, strict=True))):  # right eye first
        ball = head.faces[torch.isin(head.faces, ids).all(1)] if len(ids) else surface
        iris = _snap(centre + _iris(radius), head.template, ball)
        index, weight = torch.cat([index, iris[0]]), torch.cat([weight, iris[1]])
    sigma = torch.cat([torch.minimum(sigma, sigma[mirror]), sigma.new_full((LANDMARKS - MESH,), IRIS_SIGMA)])
    return dataclasses.replace(
        head,
        landmark_index=index,
        landmark_weight=weight,
        landmark_sigma=sigma,
        landmark_bias=torch.zeros_like(head.landmark_bias),
    )


def _snap(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Vertex ids (K, 3) and barycentrics (K, 3) of the surface points nearest to points (K, 3)."""
    found = [closest_on_mesh(chunk, vertices, faces) for chunk in points.split(32)]
    return torch.cat([faces[face] for face, _ in found]), torch.cat([weight for _, weight in found])


def _symmetric(head: HeadModel, position: Tensor, surface: Tensor, index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """On a symmetric mesh: middle landmarks on the edges of the middle, right landmarks as the mirror image of the left ones."""
    mirror = head.landmark_mirror[:MESH]
    own = torch.arange(MESH)
    middle = torch.nonzero(mirror == own).squeeze(1)
    central = (head.vertex_mirror[surface] == surface).long()
    ridge = surface[central.sum(1) == 2]
    side = central[central.sum(1) == 2].argmin(1, keepdim=True)  # the corner off the middle
    a, b, off = (ridge.gather(1, (side + k) % 3).squeeze(1) for k in (1, 2, 0))
    face, share = closest_on_mesh(position[middle], head.template, torch.stack([a, b, a], 1))
    index, weight = index.clone(), weight.clone()
    index[middle] = torch.stack([a, b, off], 1)[face]
    weight[middle] = torch.stack([share[:, 0] + share[:, 2], share[:, 1], torch.zeros(len(face))], 1)
    second = torch.nonzero(mirror < own).squeeze(1)
    index[second], weight[second] = head.vertex_mirror[index[mirror[second]]], weight[mirror[second]]
    return index, weight


@torch.inference_mode()
def render_landmarks(head: HeadModel, size: int = 768) -> Tensor:
    """(size, size, 3) linear picture of the mean head with its landmarks marked, to check an embedding by eye."""
    vertices = head.vertices(torch.zeros(len(head.shape_basis)), torch.zeros(len(head.expression_basis)))

    def screen(points: Tensor) -> Tensor:
        camera = (points - points.new_tensor(_CENTRE))[None] + points.new_tensor([0, 0, -_DISTANCE])
        return to_screen(camera, points.new_tensor([size * _DISTANCE / _WIDTH]), points.new_tensor([size / 2, size / 2]))

    raster = rasterise(screen(vertices), head.faces, (size, size))
    shade = 0.35 + 0.65 * raster.interpolate(vertex_normals(vertices[None], head.faces))[0, ..., 2:].clamp_min(0)
    picture = shade * torch.tensor([0.5, 0.35, 0.28]) * raster.mask[0, ..., None]
    column, row = screen(head.landmarks(vertices))[0, :, :2].long().clamp(1, size - 2).unbind(-1)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            picture[row + dy, column + dx] = torch.tensor([0.0, 0.9, 0.1])
    return picture


def _iris(radius: Tensor) -> Tensor:
    """(5, 3) pupil and the iris's edge at +x, +y, -x, -y on an eyeball of this radius that looks along +z."""
    edge = (radius**2 - IRIS_RADIUS**2).sqrt()
    out = torch.zeros(5, 3)
    out[0, 2], out[1:, 2] = radius, edge
    out[1, 0], out[2, 1], out[3, 0], out[4, 1] = IRIS_RADIUS, IRIS_RADIUS, -IRIS_RADIUS, -IRIS_RADIUS
    return out
