"""The mean face's albedo, painted texel by texel from positions on the template, and its ambient occlusion.

No open package ships a redistributable skin; this one is procedural and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor

from dynamicface.conventions import srgb_to_linear
from dynamicface.prior.atlas import AXIS_Z
from dynamicface.prior.embed import IRIS_RADIUS
from dynamicface.prior.raster import rasterise, vertex_normals

BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
PUPIL = 0.36  # of the iris


def _rgb(*value: int) -> np.ndarray:
    return srgb_to_linear(torch.tensor(value) / 255.0).numpy()


SKIN, RED, LIPS, BROW = _rgb(203, 160, 138), _rgb(205, 138, 120), _rgb(168, 100, 94), _rgb(70, 50, 38)
SCLERA, VEIN, IRIS_IN, IRIS_OUT, LIMBUS = _rgb(222, 216, 210), _rgb(205, 170, 160), _rgb(125, 88, 55), _rgb(88, 60, 38), _rgb(38, 28, 22)
ENAMEL, GUM, GAP = _rgb(238, 228, 215), _rgb(176, 104, 100), _rgb(150, 120, 100)
TONGUE, CAVITY, LASH = _rgb(178, 102, 98), _rgb(120, 52, 50), _rgb(30, 22, 18)


def _mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)[..., None]
    return a * (1 - t) + b * t


def _blob(points: np.ndarray, centre: np.ndarray, size: float) -> np.ndarray:
    return np.exp(-(((points - centre) ** 2).sum(-1)) / size**2)


def _edge_distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance of points (N, 3) to a densely resampled polyline (K, 3)."""
    place = np.linspace(0, len(line) - 1, 40 * len(line))
    dense = np.stack([np.interp(place, np.arange(len(line)), line[:, k]) for k in range(3)], -1)
    return cKDTree(dense).query(points)[0]


def _brow(points: np.ndarray, outline: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """0..1 hair density of an eyebrow whose landmarks (10, 3) run along its upper edge outwards-in and back along the lower one."""
    x = points[:, 0]

    def height(row: np.ndarray) -> np.ndarray:
        return np.polyval(np.polyfit(row[:, 0] - row[:, 0].mean(), row[:, 1], 2), x - row[:, 0].mean())

    upper, lower = height(outline[:5]), height(outline[5:])
    middle, half = (upper + lower) / 2, np.maximum((upper - lower) / 2, 1.8e-3)
    across = np.clip(1.35 - np.abs(points[:, 1] - middle) / half, 0, 1)
    low, high = outline[:, 0].min(), outline[:, 0].max()
    ends = np.clip(np.minimum(x - low, high - x) / 7e-3 + 0.15, 0, 1)
    return across * ends * np.clip(0.8 + 0.22 * noise, 0, 1) * (points[:, 2] > outline[:, 2].min() - 0.02)


def paint_albedo(
    size: int,
    *,
    template: Tensor,
    faces: Tensor,
    uv: Tensor,
    group: np.ndarray,
    lips: np.ndarray,
    eyes: dict[str, tuple[np.ndarray, float]],
    lid_lines: list[tuple[np.ndarray, float]],
    teeth: dict[str, tuple[np.ndarray, np.ndarray]],
    landmarks: np.ndarray | None,
) -> Tensor:
    """(3, size, size) linear RGB.

    group (T,) ingredient of a triangle; lips (V,) 0..1; eyes name -> (centre, radius); lid_lines (polyline (K, 3), strength) for lashes;
    teeth name -> (texture (V, 2), gap (V,)) full-length; landmarks (478, 3) for the brows, None = no brows yet.
    """
    rng = np.random.default_rng(7)
    out = 2 * size  # painted at twice the size
    radius = torch.hypot(template[:, 0], template[:, 2] - AXIS_Z)
    raster = rasterise(torch.cat([uv * out, 2 - radius[:, None]], 1)[None], faces, (out, out), cull=False)
    texel = np.unravel_index(raster.pixel.numpy(), (out, out))
    kind = group[raster.face.view(-1)[raster.pixel].numpy()]
    points = raster.gather(template).double().numpy()
    fine, broad = (gaussian_filter(rng.standard_normal((out, out)), s, mode="wrap") for s in ((1.6, 0.7), 14))
    fine, broad = (x[texel] / x.std() for x in (fine, broad))
    colour = np.zeros((len(points), 3))

    skin = kind == "skin"
    p, x = points[skin], np.abs(points[skin, 0])
    mirrored = np.stack([x, p[:, 1], p[:, 2]], -1)
    red = 0.55 * _blob(mirrored, np.array([0.040, -0.045, 0.005]), 0.024)
    red += 0.5 * _blob(mirrored, np.array([0.0, -0.042, 0.042]), 0.014) + 0.3 * _blob(mirrored, np.array([0.0, -0.108, 0.02]), 0.016)
    c = _mix(SKIN, RED, red + 0.05 * broad[skin]) * (1 + 0.025 * broad[skin] + 0.02 * fine[skin])[:, None]
    socket = _blob(mirrored * [1, 1.5, 1], np.array([0.030, -0.004, 0.012]) * [1, 1.5, 1], 0.022)
    c *= 1 - 0.16 * socket[:, None] * np.array([0.7, 1.0, 0.9])
    amount = raster.gather(torch.from_numpy(lips).float()[:, None])[:, 0].numpy()[skin]
    c = _mix(c, LIPS * (1 + 0.05 * fine[skin])[:, None], 0.85 * np.clip(1.6 * amount - 0.3, 0, 1))
    if landmarks is not None:
        hair = sum(_brow(p, landmarks[list(outline)], fine[skin]) for outline in BROWS)
        c = _mix(c, BROW, 0.72 * hair)
    for line, strength in lid_lines:
        c = _mix(c, LASH, strength * np.clip(1.5 - _edge_distance(p, line) / 0.8e-3, 0, 1))
    colour[skin] = c

    for name, (centre, eye_radius) in eyes.items():
        ball = kind == name
        arm = points[ball] - centre
        polar = np.arccos(np.clip(arm[:, 2] / np.linalg.norm(arm, axis=1), -1, 1)) / np.arcsin(IRIS_RADIUS / eye_radius)
        azimuth = np.arctan2(arm[:, 1], arm[:, 0])
        fibre = 0.5 + 0.25 * np.sin(37 * azimuth + 3 * np.sin(5 * azimuth)) + 0.25 * np.sin(71 * azimuth + 1)
        iris = _mix(IRIS_IN, IRIS_OUT, (polar - PUPIL) / (1 - PUPIL)) * (0.75 + 0.5 * fibre)[:, None]
        iris = _mix(iris, LIMBUS, (polar - 0.84) / 0.16)
        iris = _mix(np.full(3, 0.004), iris, (polar - PUPIL) / 0.06)
        colour[ball] = _mix(iris, _mix(SCLERA, VEIN, (polar - 1.3) / 1.5), (polar - 0.96) / 0.10)

    for name, (texture, gap) in teeth.items():
        here = kind == name
        s = raster.gather(torch.from_numpy(np.c_[texture, gap]).float())[here].numpy()
        v, between = s[:, 1], s[:, 2]
        c = _mix(ENAMEL, GAP, 0.75 * np.clip(between - 0.3, 0, 1) ** 1.5)
        c = _mix(c, ENAMEL * [0.9, 0.95, 1.0], np.clip((v - 0.62) / 0.2, 0, 1) * (v < 0.82) * 0.5)
        colour[here] = _mix(c, GUM, np.maximum((0.33 - v) / 0.05, (v - 0.93) / 0.03))
    for name, tone in (("tongue", TONGUE), ("inner_mouth", CAVITY)):
        here = kind == name
        colour[here] = tone * (1 + 0.04 * broad[here] + 0.03 * fine[here])[:, None]

    picture = np.zeros((out, out, 3))
    picture[texel] = colour
    _, nearest = distance_transform_edt(raster.face[0].numpy() < 0, return_indices=True)
    picture = torch.from_numpy(picture[nearest[0], nearest[1]]).permute(2, 0, 1).float()
    return F.avg_pool2d(picture.clamp(0, 1), 2)


def ambient_occlusion(vertices: Tensor, faces: Tensor, directions: int = 128, size: int = 384) -> Tensor:
    """(V,) cosine-weighted share of the sky each vertex of (V, 3) sees, by depth maps from evenly spread directions."""
    normal = vertex_normals(vertices[None], faces)[0]
    seen, total = torch.zeros(len(vertices)), torch.zeros(len(vertices))
    far = 10.0  # nearly orthographic
    for i in range(directions):
        height, turn = 1 - 2 * (i + 0.5) / directions, np.pi * (1 + 5**0.5) * i
        side = (1 - height**2) ** 0.5
        z = torch.tensor([side * np.sin(turn), height, side * np.cos(turn)], dtype=torch.float32)
        x = F.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), z), dim=0)
        local = vertices @ torch.stack([x, torch.linalg.cross(z, x), z]).T
        screen = torch.stack([local[:, 0] / 0.42 * size + size / 2, -local[:, 1] / 0.42 * size + size / 2, far - local[:, 2]], -1)
        raster = rasterise(screen[None], faces, (size, size), cull=False)
        depth = raster.interpolate(screen[:, 2:], 2 * far)[0, ..., 0]
        column, row = screen[:, :2].long().clamp(0, size - 1).unbind(-1)
        cosine = (normal @ z).clamp_min(0)
        seen += cosine * (screen[:, 2] < depth[row, column] + 0.003)
        total += cosine
    return seen / total.clamp_min(1e-6)


def mouth_open(shape: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> Tensor:
    """(V, 3) the mean head with its mouth open enough for light to fall in. shape: expression (E,) -> vertices."""
    expression = torch.zeros(len(names))
    for name, amount in (("jawOpen", 0.7), ("mouthUpperUpLeft", 0.5), ("mouthUpperUpRight", 0.5)):
        expression[names.index(name)] = amount
    return shape(expression)
