"""One step of Loop subdivision of a head model: four times the triangles, smooth normals, same coefficients.

The step is linear, so template, shapes and expressions go through one sparse matrix. Old vertices keep their ids, the middle of
edge k becomes vertex V + k. Open borders and UV seams use the boundary rule, so both sides of a seam stay together.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from .lids import Lids


@dataclass(frozen=True)
class Step:
    """Connectivity of one subdivision step of a mesh with V vertices and T triangles."""

    vertices: int
    edges: Tensor  # (K, 2) ascending ids
    face_edges: Tensor  # (T, 3) edge opposite to corner 2, 0, 1: ab, bc, ca
    rule: Tensor  # (V + K, V) sparse, Loop's smoothing

    def smooth(self, field: Tensor) -> Tensor:
        """(.., V, C) -> (.., V + K, C) by Loop's rule."""
        flat = field.movedim(-2, 0).flatten(1)
        return (self.rule @ flat).unflatten(1, (*field.shape[:-2], field.shape[-1])).movedim(0, -2)

    def linear(self, field: Tensor) -> Tensor:
        """(V, ..) -> (V + K, ..): old values stay, edges take the mean. For what must not shift over the surface (UV)."""
        return torch.cat([field, field[self.edges].mean(1)])

    def within(self, ids: Tensor) -> Tensor:
        """The given vertices and the middles of the edges between them."""
        return torch.cat([ids, self.vertices + torch.nonzero(torch.isin(self.edges, ids).all(1)).squeeze(1)])

    def middle(self, a: Tensor, b: Tensor) -> Tensor:
        """Vertex in the middle of the edges a-b, -1 where there is no such edge."""
        key = torch.minimum(a, b) * self.vertices + torch.maximum(a, b)
        known = self.edges[:, 0] * self.vertices + self.edges[:, 1]  # ascending
        place = torch.searchsorted(known, key.contiguous()).clamp_max(len(known) - 1)
        return torch.where(known[place] == key, self.vertices + place, -1)


def loop_step(faces: Tensor, vertices: int) -> Step:
    """The step for triangles (T, 3)."""
    sides = torch.stack([faces, faces.roll(-1, 1)], -1).flatten(0, 1).sort(-1).values  # (3 T, 2)
    key, owner, count = torch.unique(sides[:, 0] * vertices + sides[:, 1], return_inverse=True, return_counts=True)
    edges = torch.stack([torch.div(key, vertices, rounding_mode="floor"), key % vertices], 1)
    opposite = faces.roll(-2, 1).flatten()  # the corner that faces each side
    border = count == 1
    (a, b), k = edges.unbind(1), torch.arange(len(edges), device=faces.device) + vertices
    inner = ~border[owner]

    ends = torch.where(border, 0.5, 0.375)
    neighbour_count = torch.bincount(edges.flatten(), minlength=vertices)
    on_border = torch.zeros(vertices, dtype=torch.bool, device=faces.device).index_fill(0, edges[border].flatten(), True)
    beta = torch.where(neighbour_count == 3, 3 / 16, 3 / (8 * neighbour_count.clamp_min(1)))
    own = torch.where(on_border, 0.75, 1 - beta * neighbour_count)
    start, end = torch.cat([a, b]), torch.cat([b, a])
    pull = torch.where(on_border[start], torch.where(border.repeat(2), 0.125, 0.0), beta[start])

    row = torch.cat([k, k, k[owner][inner], torch.arange(vertices, device=faces.device), start])
    column = torch.cat([a, b, opposite[inner], torch.arange(vertices, device=faces.device), end])
    value = torch.cat([ends, ends, torch.full_like(ends, 0.125).repeat(3)[: int(inner.sum())], own, pull])
    shape = (vertices + len(edges), vertices)
    rule = torch.sparse_coo_tensor(torch.stack([row, column]), value, shape, check_invariants=False).coalesce()
    return Step(vertices, edges, owner.view(-1, 3), rule)


def subdivide(head):
    """The HeadModel with one Loop step applied to everything it holds."""
    step = loop_step(head.faces, len(head.template))
    a, b, c = head.faces.unbind(1)
    ab, bc, ca = (step.vertices + step.face_edges).unbind(1)
    children = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
    mirror = head.vertex_mirror
    twin = step.middle(*mirror[step.edges].unbind(1))
    own = step.vertices + torch.arange(len(step.edges), device=twin.device)
    index, weight = _descend(step, head.landmark_index, head.landmark_weight)
    return dataclasses.replace(
        head,
        template=step.smooth(head.template),
        shape_basis=step.smooth(head.shape_basis),
        expression_basis=step.smooth(head.expression_basis),
        faces=torch.stack([torch.stack(child, 1) for child in children], 1).flatten(0, 1),
        part=head.part.repeat_interleave(4),
        uv=step.linear(head.uv),
        ambient_occlusion=step.linear(head.ambient_occlusion),
        face_region=step.linear(head.face_region),
        vertex_mirror=torch.cat([mirror, torch.where(twin < 0, own, twin)]),
        landmark_index=index,
        landmark_weight=weight,
        eye_vertices=tuple(step.within(ids) for ids in head.eye_vertices),
        lids=tuple(_lids(step, lids) for lids in head.lids),
    )


def _descend(step: Step, index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Points in triangles index (N, 3) with barycentrics weight (N, 3), in the child triangle that holds them."""
    middle = step.middle(index, index.roll(-1, 1))  # ab, bc, ca
    corner = weight.argmax(1)
    lifted = 2 * weight
    out_index = middle.clone()  # the central child
    out_weight = 1 - 2 * weight.roll(-2, 1)  # ab takes what c does not have
    for k in range(3):
        here = (corner == k) & (weight[:, k] >= 0.5)
        child = torch.stack([index[:, k], middle[:, k], middle[:, k - 1]], 1)
        share = torch.stack([lifted[:, k] - 1, lifted[:, (k + 1) % 3], lifted[:, k - 1]], 1)
        out_index[here], out_weight[here] = child[here], share[here]
    return out_index, out_weight


def _lids(step: Step, lids: Lids) -> Lids:
    """The same rims; followers and shell take in the new vertices."""
    share = lids.follow.new_zeros(step.vertices, lids.follow.shape[1])
    share[lids.region] = lids.follow
    share = step.smooth(share)
    share[lids.upper] = torch.eye(len(lids.upper), device=share.device)
    share[lids.lower] = 0
    region = torch.nonzero((share > 1e-4).any(1)).squeeze(1)
    return dataclasses.replace(lids, region=region, follow=share[region], shell=step.within(lids.shell))
