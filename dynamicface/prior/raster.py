"""A z-buffer rasteriser in plain torch: batched, CPU and CUDA, no compiler.

Unusual here:
- triangles of all frames become one flat list of spans (the pixels of one row between two edges), these one flat list of fragments; there
  is no loop over triangles, pixels or frames, and no fragment is made that the triangle does not cover;
- the depth test is one `scatter_reduce(amin)` on int64 keys that hold the bits of the depth above the triangle's index
  (positive floats sort like their bits);
- edge functions are evaluated in coordinates local to each triangle, so float32 leaves no pinholes between small triangles;
- attributes are interpolated by `embedding_bag`, whose sum of weighted table rows is just that: one pass, no temporaries;
- visibility is not differentiable, the barycentrics recomputed at the visible triangle are (for analysis by synthesis).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import unit

_FAR = torch.iinfo(torch.int64).max
_TOLERANCE = 1e-5
_MAX_FRAGMENTS = 16_000_000


@dataclass(frozen=True)
class Raster:
    """What each pixel of F pictures sees of a triangle mesh shared by the frames."""

    face: Tensor  # (F, H, W) int64 index of the visible triangle, -1 = nothing
    pixel: Tensor  # (P,) covered pixels as flat indices into F*H*W
    frame: Tensor  # (P,) their frames
    corner: Tensor  # (P, 3) the visible triangle's vertices, indices into V
    weight: Tensor  # (P, 3) perspective-correct barycentrics
    vertices: int  # V

    @cached_property
    def _corner_of_frame(self) -> Tensor:
        """(P, 3) the corners as flat indices into F*V."""
        return self.corner if len(self.face) == 1 else self.corner + (self.frame * self.vertices)[:, None]

    @property
    def mask(self) -> Tensor:
        """(F, H, W) bool, covered pixels."""
        return self.face >= 0

    def gather(self, attribute: Tensor) -> Tensor:
        """Interpolate a vertex attribute (F, V, C) or (V, C) at the covered pixels: (P, C)."""
        shared = attribute.dim() == 2 or attribute.shape[0] == 1
        table = attribute.reshape(-1, attribute.shape[-1])
        return F.embedding_bag(self.corner if shared else self._corner_of_frame, table, per_sample_weights=self.weight, mode="sum")

    def scatter(self, values: Tensor, background: float = 0) -> Tensor:
        """Place values at the covered pixels, (P, C) -> (F, H, W, C)."""
        frames, height, width = self.face.shape
        out = values.new_full((frames * height * width, values.shape[-1]), background)
        return out.index_copy(0, self.pixel, values).view(frames, height, width, -1)

    def interpolate(self, attribute: Tensor, background: float = 0.0) -> Tensor:
        """Interpolate a vertex attribute (F, V, C) or (V, C) into pictures (F, H, W, C)."""
        return self.scatter(self.gather(attribute), background)


def rasterise(screen: Tensor, faces: Tensor, size: tuple[int, int], *, cull: bool = True) -> Raster:
    """Rasterise one mesh in F positions.

    screen: (F, V, 3) pixel x, pixel y, depth (> 0, smaller is nearer), as :func:`camera.project` returns.
    faces: (T, 3) vertex indices, counter-clockwise seen from outside in space (so clockwise on the y-down screen).
    size: (H, W) of the picture in pixels. cull: leave out triangles that face away.
    """
    height, width = size
    triangles = screen.index_select(1, faces.flatten()).reshape(-1, 9)  # (F*T, 9) x, y, depth of each corner
    face = _visible_faces(triangles.detach(), len(screen), size, cull)
    seen = face.view(-1)
    pixel = torch.nonzero(seen >= 0).squeeze(1)
    seen = seen.index_select(0, pixel)
    frame = torch.div(pixel, height * width, rounding_mode="floor")
    x, y, depth = triangles.index_select(0, frame * len(faces) + seen).unflatten(1, (3, 3)).unbind(-1)
    row = torch.div(pixel, width, rounding_mode="floor")
    dx = x - ((pixel - row * width).to(x.dtype) + 0.5)[:, None]
    dy = y - ((row - frame * height).to(x.dtype) + 0.5)[:, None]
    (ax, bx, cx), (ay, by, cy) = dx.unbind(1), dy.unbind(1)
    weight = torch.stack([bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay], 1) / depth
    weight = weight / weight.sum(1, keepdim=True)
    return Raster(face, pixel, frame, faces.index_select(0, seen), weight, screen.shape[1])


@torch.no_grad()
def _visible_faces(triangles: Tensor, frames: int, size: tuple[int, int], cull: bool) -> Tensor:
    """Index of the nearest triangle at each pixel centre, (F, H, W) int64, -1 where none; triangles (F*T, 9)."""
    height, width = size
    count = len(triangles) // frames
    corners = triangles.T.contiguous().view(3, 3, -1)  # corner, coordinate, triangle
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = corners
    low, high = corners.amin(0), corners.amax(0)
    left, top = (torch.ceil(low[k] - 0.5).clamp(0, n).long() for k, n in ((0, width), (1, height)))
    right, bottom = (torch.floor(high[k] - 0.5).clamp(-1, n - 1).long() for k, n in ((0, width), (1, height)))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    facing = area < -1e-9 if cull else area.abs() > 1e-9
    triangle = torch.nonzero((right >= left) & (bottom >= top) & facing & (low[2] > 1e-6)).squeeze(1)

    corners = corners.index_select(2, triangle)
    left, right, top, bottom = (edge.index_select(0, triangle) for edge in (left, right, top, bottom))
    # Everything per triangle in coordinates relative to its first pixel: the weight of corner k is a_k i + b_k j + c_k at column i, row j.
    x, y = corners[:, 0] - left - 0.5, corners[:, 1] - top - 0.5
    scale = 1 / area.index_select(0, triangle)
    after, behind = [1, 2, 0], [2, 0, 1]
    a, b = (y[after] - y[behind]) * scale, (x[behind] - x[after]) * scale
    c = (x[after] * y[behind] - x[behind] * y[after]) * scale
    nearness = 1 / corners[:, 2]
    slope, rise, start = ((weights * nearness).sum(0) for weights in (a, b, c))
    plane = torch.stack([*a, *b, *c, slope, rise, start])
    rows = bottom - top + 1
    frame = torch.div(triangle, count, rounding_mode="floor")
    first = (frame * height + top) * width + left
    identity = triangle - frame * count

    nearest = torch.full((frames * height * width,), _FAR, dtype=torch.int64, device=triangles.device)
    for part in _chunks(rows * (right - left + 1)):
        _deposit(nearest, rows[part], (right - left)[part], plane[:, part], first[part], identity[part], width)
    return torch.where(nearest == _FAR, -1, nearest & 0xFFFFFFFF).view(frames, height, width)


def _chunks(count: Tensor) -> list[slice]:
    """Slices of the triangle list that each make at most about _MAX_FRAGMENTS fragments."""
    total = torch.cumsum(count, 0)
    if len(total) == 0:
        return []
    limits = torch.arange(1, int(total[-1]) // _MAX_FRAGMENTS + 1, device=total.device) * _MAX_FRAGMENTS
    cuts = torch.searchsorted(total, limits).tolist()
    edges = sorted({0, *cuts, len(count)})
    return [slice(lo, hi) for lo, hi in pairwise(edges)]


def _deposit(nearest: Tensor, rows: Tensor, last: Tensor, plane: Tensor, first: Tensor, identity: Tensor, width: int) -> None:
    """Enter triangles into the depth buffer: rows each covers, its last column, its planes, flat first pixel, and index."""
    owner, row = _expand(rows)
    j = row.to(plane.dtype)
    a, b, c = plane[:9].index_select(1, owner).view(3, 3, -1)
    edge = b * j + c + _TOLERANCE  # inside where a i + edge >= 0 for all three corners
    crossing = -edge / a
    low = torch.where(a > 0, crossing, 0.0).amax(0).ceil()
    high = torch.where(a < 0, crossing, torch.inf).amin(0).floor().minimum(last.index_select(0, owner).to(plane.dtype))
    empty = ((a == 0) & (edge < 0)).any(0)
    low = low.minimum(high + 1).masked_fill(empty, 0)  # also no overflow where an edge is all but level
    length = (high - low + 1).masked_fill(empty, 0).long().clamp_min(0)

    slope, rise, start = plane[9:].index_select(1, owner)
    begin = start + rise * j + slope * low
    pixel = first.index_select(0, owner) + row * width + low.long()
    span, column = _expand(length)
    nearness = begin.index_select(0, span) + slope.index_select(0, span) * column.to(plane.dtype)
    bits = (1 / nearness.clamp_min(1e-9)).to(torch.float32).view(torch.int32).long()
    keys = (bits << 32) | identity.index_select(0, owner).index_select(0, span)
    nearest.scatter_reduce_(0, pixel.index_select(0, span) + column, keys, "amin")


def _expand(count: Tensor) -> tuple[Tensor, Tensor]:
    """For `count` (N,) things each: the owner of every thing, and its number within its owner."""
    owner = torch.repeat_interleave(count)
    begin = torch.cumsum(count, 0) - count
    return owner, torch.arange(len(owner), device=count.device) - begin.index_select(0, owner)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals, (F, V, 3) from (F, V, 3) and (T, 3)."""
    corner = vertices[:, faces]  # (F, T, 3, 3)
    normal = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(1, faces[:, k], normal)
    return unit(total)
