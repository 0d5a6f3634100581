"""The rims of eyes and mouth: edge loops of the quad mesh, which point of one lip or lid meets which of the other, and who follows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np


class Loops:
    """Walks along edge loops of a quad mesh."""

    def __init__(self, quads: np.ndarray):
        self._neighbours: dict[int, set[int]] = defaultdict(set)
        self._beside: dict[int, list[set[int]]] = defaultdict(list)
        for quad in quads.tolist():
            for i, v in enumerate(quad):
                self._neighbours[v] |= {quad[i - 1], quad[(i + 1) % 4]}
                self._beside[v].append(set(quad))

    def __contains__(self, vertex: int) -> bool:
        return vertex in self._neighbours

    def walk(self, points: np.ndarray, start: int, direction: np.ndarray) -> list[int]:
        """Vertices from start straight on, first towards direction (3,), until the loop closes or meets an irregular vertex."""

        def along(v: int) -> float:
            arm = points[v] - points[start]
            return float(arm @ direction / np.linalg.norm(arm))

        path = [start, max(self._neighbours[start], key=along)]
        while len(self._neighbours[path[-1]]) == 4:
            behind = set().union(*(quad for quad in self._beside[path[-1]] if path[-2] in quad))
            (ahead,) = self._neighbours[path[-1]] - behind
            if ahead == start:
                break
            path.append(ahead)
        return path

    def beside(self, loop: np.ndarray) -> list[np.ndarray]:
        """The two rows of vertices along a closed loop."""
        loop_set = set(loop.tolist())
        sides: list[set[int]] = []
        for v in loop.tolist():
            for n in self._neighbours[v] - loop_set:
                touching = [s for s in sides if s & (self._neighbours[n] | {n})]
                merged = {n}.union(*touching)
                sides = [s for s in sides if s not in touching] + [merged]
        return [np.array(sorted(s)) for s in sides]


def pair_rims(points: np.ndarray, rim: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split a closed rim (K,) at its leftmost and rightmost vertex. Upper ids (P,), and for each the two lower ids (P, 2) and weights
    (P, 2) of the point of the lower rim straight below it."""
    x = points[rim, 0]
    first, last = sorted((int(x.argmin()), int(x.argmax())))
    arcs = [np.r_[rim[first : last + 1]], np.r_[rim[last:], rim[: first + 1]]]
    arcs.sort(key=lambda arc: points[arc, 1].mean())
    lower, upper = (arc[np.argsort(points[arc, 0], kind="stable")] for arc in arcs)
    place = np.interp(points[upper, 0], points[lower, 0], np.arange(len(lower)))
    below = np.clip(place.astype(int), 0, len(lower) - 2)
    blend = place - below
    keep = slice(1, -1)  # the corners belong to both
    return upper[keep], np.stack([lower[below], lower[below + 1]], 1)[keep], np.stack([1 - blend, blend], 1)[keep]


def follow(points: np.ndarray, followers: np.ndarray, rim: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """(F, P) weights with which followers (F,) take over motions of the rim vertices (P,): linear between the two rim vertices beside it
    in x, times strength (F,). A rim vertex follows itself entirely."""
    x = points[rim, 0]
    place = np.interp(points[followers, 0], x, np.arange(len(rim)))
    out = strength[:, None] * np.clip(1 - np.abs(place[:, None] - np.arange(len(rim))), 0, 1)
    for i, v in enumerate(rim):
        out[followers == v] = np.eye(len(rim))[i]
    return out


def eye_lids(
    loops: Loops, points: np.ndarray, skin: np.ndarray, centre: np.ndarray, radius: float, blink: np.ndarray
) -> dict[str, np.ndarray]:
    """The left eye's lids as fields of ``dynamicface.prior.lids.Lids``.

    points (V, 3) template; skin (N,) ids; centre, radius of the eyeball; blink (V, 3) the linear blink, which tells who follows.
    """
    arm = points - centre
    distance = np.linalg.norm(arm, axis=1) / radius
    x, y, z = arm[skin].T / radius
    above = (np.abs(x - 0.25) < 0.15) & (y > -0.05) & (z > 0.5) & (distance[skin] > 1) & (distance[skin] < 1.3)
    start = skin[above][points[skin[above], 1].argmin()]  # the lowest point of the upper lid
    rim = np.array(loops.walk(points, int(start), np.array([1.0, 0.0, 0.0])))
    upper, lower, weight = pair_rims(points, rim)

    travel = np.linalg.norm(blink, axis=1)
    moving = skin[(travel[skin] > 2e-4) & (distance[skin] < 2.2) & (points[skin, 0] > 0)]
    own = np.interp(points[moving, 0], points[upper, 0], travel[upper])
    strength = np.clip(travel[moving] / own, 0, 1) * np.clip((2.2 - distance[moving]) / 0.4, 0, 1)
    strength[np.isin(moving, lower)] = 0
    return {
        "upper": upper,
        "lower": lower,
        "lower_weight": weight,
        "region": moving,
        "follow": follow(points, moving, upper, strength),
        "shell": _shell(loops, rim, distance),
    }


def _shell(loops: Loops, rim: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The lids outside the eyeball: the rim, one ring inwards (the rim's thickness) and the rings outwards that stay near the ball."""
    inner = min((r for r in loops.beside(rim) if len(r) == len(rim)), key=lambda r: distance[r].mean())
    shell, last, ring = [inner, rim], inner, rim
    for _ in range(8):
        (outer,) = [r for r in loops.beside(ring) if not np.isin(r, last).any()][:1]
        if distance[outer].min() > 1.35:
            break
        shell.append(outer)
        last, ring = ring, outer
    return np.unique(np.concatenate(shell))


@dataclass(frozen=True)
class LipSeal:
    """Lips that stay together: takes the gap out of a displacement, half from the upper and half from the lower lip."""

    upper: np.ndarray  # (P,)
    lower: np.ndarray  # (P, 2)
    weight: np.ndarray  # (P, 2)
    region: np.ndarray  # (R,)
    share: np.ndarray  # (R, P) signed: + for the upper lip's followers, - for the lower's

    def gap(self, field: np.ndarray) -> np.ndarray:
        """Field (V, 3) -> lower minus upper rim, (P, 3)."""
        return (field[self.lower] * self.weight[..., None]).sum(1) - field[self.upper]

    def __call__(self, field: np.ndarray, wanted: float = 0.0) -> np.ndarray:
        """Field (V, 3), positions or displacements, with the lower rim ``wanted`` metres above the upper."""
        field = field.copy()
        for _ in range(8):
            field[self.region] += 0.5 * self.share @ (self.gap(field) - [0, wanted, 0])
        return field


def lip_seal(loops: Loops, points: np.ndarray, lips: np.ndarray, reach: float = 6e-3) -> LipSeal:
    """Find the ring of the mouth whose upper and lower half touch at rest.

    points (V, 3) template; lips (N,) ids of skin and mouth cavity; reach, metres: how far the neighbourhood follows.
    """
    middle = [v for v in lips[np.abs(points[lips, 0]) < 1e-6].tolist() if v in loops]
    rims = [np.array(loops.walk(points, v, np.array([1.0, 0.0, 0.0]))) for v in middle]
    rims = [r for r in rims if np.ptp(points[r, 0]) > 0.03 and np.ptp(points[r, 1]) < 0.02]

    def openness(rim: np.ndarray) -> float:
        upper, lower, weight = pair_rims(points, rim)
        return float(np.linalg.norm((points[lower] * weight[..., None]).sum(1) - points[upper], axis=1).mean())

    rim = min(rims, key=openness)
    upper, lower, weight = pair_rims(points, rim)
    near = np.linalg.norm(points[lips][:, None] - points[rim], axis=-1)
    strength, belongs = np.exp(-((near.min(1) / reach) ** 2)), rim[near.argmin(1)]
    keep = strength > 0.01
    region, strength, belongs = lips[keep], strength[keep], belongs[keep]
    side = np.where(np.isin(belongs, upper), 1.0, np.where(np.isin(belongs, lower), -1.0, 0.0))
    x = points[upper, 0]
    place = np.interp(points[region, 0], x, np.arange(len(upper)))
    share = np.clip(1 - np.abs(place[:, None] - np.arange(len(upper))), 0, 1) * (strength * side)[:, None]
    return LipSeal(upper, lower, weight, region, share)
