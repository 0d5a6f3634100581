"""Two rows of teeth with gums, as smooth strips along a human dental arch. MakeHuman's own are plain bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MM = 1e-3
# Crown width, crown height and depth (labial to lingual) from the middle outwards, mm (Wheeler's Dental Anatomy, rounded).
UPPER = ((8.5, 10.5, 2.5), (6.5, 9.3, 2.5), (7.6, 10.3, 3.5), (7.0, 8.6, 8.0), (6.8, 8.3, 8.0), (10.0, 7.6, 9.5), (9.5, 7.3, 9.5))
LOWER = ((5.3, 9.0, 2.3), (5.8, 9.2, 2.3), (6.8, 10.0, 3.2), (7.0, 8.6, 7.0), (7.2, 8.0, 7.5), (11.0, 7.5, 9.0), (10.5, 7.2, 9.0))
ACROSS = (0.0, 0.14, 0.5, 0.86)  # columns within a tooth; the next tooth's first column closes it
CONTACT = np.array([1.0, 0.25, 0.0, 0.25])  # how far a column lies in the gap between two teeth
ROWS = ((0.0, 0), (0.30, 1), (0.55, 2), (0.78, 3), (0.86, 4), (1.0, 5))  # texture v of gum, neck, belly, edge, back edge, back gum


@dataclass(frozen=True)
class Row:
    vertices: np.ndarray  # (K, 3) metres
    quads: np.ndarray  # (Q, 4), outward
    mirror: np.ndarray  # (K,)
    texture: np.ndarray  # (K, 2) 0..1 along the arch and from the outer gum over the edge to the inner gum
    gap: np.ndarray  # (K,) 1 between two teeth


def _arch(length: np.ndarray, narrow: float) -> tuple[np.ndarray, np.ndarray]:
    """Arc length from the middle (signed) -> x and depth behind the front, metres."""
    x = np.linspace(0, 34 * MM, 400)
    depth = 8.5 * MM * (x / (17.5 * MM * narrow)) ** 2.6
    arc = np.r_[0, np.cumsum(np.hypot(np.diff(x), np.diff(depth)))]
    return np.sign(length) * np.interp(np.abs(length), arc, x), np.interp(np.abs(length), arc, depth)


def tooth_row(upper: bool, front: np.ndarray) -> Row:
    """front (3,): where the middle of the incisal edge lies, metres. Upper teeth grow downwards, lower upwards."""
    sizes = np.array(UPPER if upper else LOWER) * MM
    inner = np.r_[0, np.cumsum(sizes[:, 0])]
    half = np.concatenate([inner[i] + sizes[i, 0] * np.array(ACROSS) for i in range(len(sizes))] + [inner[-1:]])
    tooth = np.minimum(np.searchsorted(inner, half + 1e-9, side="right") - 1, len(sizes) - 1)
    gap = np.r_[np.tile(CONTACT, len(sizes)), 1.0]
    height, thick = sizes[tooth, 1], sizes[tooth, 2]
    boundary = np.flatnonzero(gap == 1.0)[1:-1]
    for value in (height, thick):
        value[boundary] = (value[boundary - 1] + value[boundary + 1]) / 2
    edge = np.interp(half, inner, np.array((0, 0, 0.7, 0.2, 0.8, 1.0, 1.2, 1.6) if upper else (0, 0, 0, 0, 0.2, 0.4, 0.4, 0.2)) * MM)

    columns = np.r_[-half[:0:-1], half]

    def both(values: np.ndarray) -> np.ndarray:
        return np.r_[values[:0:-1], values]

    gap, height, thick, edge = both(gap), both(height), both(thick), both(edge)
    x, depth = _arch(columns, 1.0 if upper else 0.93)
    tangent = np.stack([np.gradient(x), -np.gradient(depth)], -1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    inward = np.stack([tangent[:, 1], -tangent[:, 0]], -1)
    inward[len(columns) // 2] = [0, -1]
    outline = np.stack([x, -depth], -1)

    # Per row: distance into the mouth and distance from the incisal plane towards the gum.
    into = (
        *(0.6 * MM + 0 * gap, 0.3 * MM + 0.5 * MM * gap, 0.9 * MM * gap, 0.5 * MM + 1.0 * MM * gap),
        *(0.5 * MM + 0.75 * thick, thick + 2.0 * MM),
    )
    away = (
        *(height + 5.0 * MM, height - 2.2 * MM * gap, 0.5 * height, edge + 0.9 * MM * gap, edge + 1.0 * MM + 0.6 * MM * gap),
        height * 0.9 + 3.0 * MM,
    )
    up = 1.0 if upper else -1.0
    slant = 0.12 if upper else 0.18  # incisors lean outwards towards their edge
    points = []
    for i, a in zip(into, away, strict=True):
        ground = outline + inward * (i + slant * np.clip(a, 0, None) * np.exp(-((columns / (16 * MM)) ** 2)))[:, None]
        points.append(np.stack([front[0] + ground[:, 0], front[1] + up * a, front[2] + ground[:, 1]], -1))
    vertices = np.stack(points)  # (rows, columns, 3)
    rows, count = vertices.shape[:2]
    index = np.arange(rows * count).reshape(rows, count)
    quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    if not upper:
        quads = quads[:, ::-1]
    u = (np.arange(count) / (count - 1))[None].repeat(rows, 0)
    v = np.array([r[0] for r in ROWS])[:, None].repeat(count, 1)
    return Row(vertices.reshape(-1, 3), quads, index[:, ::-1].ravel(), np.stack([u, v], -1).reshape(-1, 2), np.tile(gap, rows))
