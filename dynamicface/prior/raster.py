"""A z-buffer rasteriser in plain torch: batched, CPU and CUDA, no compiler.

Unusual here:
- one flat list of fragments for all triangles of all frames, no loop over triangles, pixels or frames;
- the depth test is one `scatter_reduce(amin)` on int64 keys that hold the bits of the depth above the triangle's index
  (positive floats sort like their bits);
- edge functions are evaluated in coordinates local to each triangle, so float32 leaves no pinholes between small triangles;
- visibility is not differentiable, the barycentrics recomputed at the visible triangle are (for analysis by synthesis).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
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
    corner: Tensor  # (P, 3) the visible triangle's vertices as flat indices into F*V
    weight: Tensor  # (P, 3) perspective-correct barycentrics
    vertices: int  # V

    @cached_property
    def shared_corner(self) -> Tensor:
        """(P, 3) the corners as indices into V, for attributes all frames share."""
        return self.corner if len(self.face) == 1 else self.corner % self.vertices

    @property
    def mask(self) -> Tensor:
        """(F, H, W) bool, covered pixels."""
        return self.face >= 0

    def gather(self, attribute: Tensor) -> Tensor:
        """Interpolate a vertex attribute (F, V, C) or (V, C) at the covered pixels: (P, C)."""
        shared = attribute.dim() == 2 or attribute.shape[0] == 1
        flat = attribute.reshape(-1, attribute.shape[-1])
        a, b, c = (self.shared_corner if shared else self.corner).unbind(1)
        u, v, w = self.weight[:, :, None].unbind(1)
        return torch.addcmul(torch.addcmul(flat[a] * u, flat[b], v), flat[c], w)

    def scatter(self, values: Tensor, background: float = 0.0) -> Tensor:
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
    face = visible_faces(screen.detach(), faces, size, cull=cull)
    height, width = size
    pixel = torch.nonzero(face.view(-1) >= 0).squeeze(1)
    frame = torch.div(pixel, height * width, rounding_mode="floor")
    corner = faces[face.view(-1)[pixel]] + (frame * screen.shape[1])[:, None]
    x, y, depth = screen.reshape(-1, 3)[corner].unbind(-1)
    px = (pixel % width).to(x.dtype)[:, None] + 0.5
    py = (torch.div(pixel, width, rounding_mode="floor") % height).to(x.dtype)[:, None] + 0.5
    dx, dy = x - px, y - py
    a = dx[:, 1] * dy[:, 2] - dx[:, 2] * dy[:, 1]
    b = dx[:, 2] * dy[:, 0] - dx[:, 0] * dy[:, 2]
    c = dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]
    weight = torch.stack([a, b, c], 1) / depth
    weight = weight / weight.sum(1, keepdim=True)
    return Raster(face, pixel, corner, weight, screen.shape[1])


@torch.no_grad()
def visible_faces(screen: Tensor, faces: Tensor, size: tuple[int, int], *, cull: bool = True) -> Tensor:
    """Index of the nearest triangle at each pixel centre, (F, H, W) int64, -1 where none. Arguments as in :func:`rasterise`."""
    height, width = size
    frames = len(screen)
    x, y, depth = screen[:, faces].reshape(-1, 3, 3).unbind(-1)  # (F*T, 3)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    x0 = torch.ceil(x.amin(1) - 0.5).clamp(0, width).long()
    x1 = torch.floor(x.amax(1) - 0.5).clamp(-1, width - 1).long()
    y0 = torch.ceil(y.amin(1) - 0.5).clamp(0, height).long()
    y1 = torch.floor(y.amax(1) - 0.5).clamp(-1, height - 1).long()
    columns, rows = (x1 - x0 + 1).clamp_min(0), (y1 - y0 + 1).clamp_min(0)
    facing = area < -1e-9 if cull else area.abs() > 1e-9
    triangle = torch.nonzero((columns * rows > 0) & facing & (depth.amin(1) > 1e-6)).squeeze(1)

    x, y, depth, inverse_area = x[triangle], y[triangle], depth[triangle], 1 / area[triangle]
    x0, y0, columns, rows = x0[triangle], y0[triangle], columns[triangle], rows[triangle]
    # Everything per triangle in coordinates relative to its first pixel: weight_k = a_k * i + b_k * j + c_k at column i, row j.
    lx, ly = x - x0[:, None] - 0.5, y - y0[:, None] - 0.5
    a = torch.stack([ly[:, 1] - ly[:, 2], ly[:, 2] - ly[:, 0]], 1) * inverse_area[:, None]
    b = torch.stack([lx[:, 2] - lx[:, 1], lx[:, 0] - lx[:, 2]], 1) * inverse_area[:, None]
    c = torch.stack([lx[:, 1] * ly[:, 2] - lx[:, 2] * ly[:, 1], lx[:, 2] * ly[:, 0] - lx[:, 0] * ly[:, 2]], 1) * inverse_area[:, None]
    inverse_depth = 1 / depth
    d0, d1 = inverse_depth[:, 0] - inverse_depth[:, 2], inverse_depth[:, 1] - inverse_depth[:, 2]
    plane = torch.stack([a[:, 0], b[:, 0], c[:, 0], a[:, 1], b[:, 1], c[:, 1], d0, d1, inverse_depth[:, 2]], 1)
    base = torch.div(triangle, len(faces), rounding_mode="floor") * height * width + y0 * width + x0
    identity = triangle % len(faces)

    nearest = torch.full((frames * height * width,), _FAR, dtype=torch.int64, device=screen.device)
    count = columns * rows
    for part in _chunks(count):
        _deposit(nearest, count[part], columns[part], plane[part], base[part], identity[part], width)
    face = torch.where(nearest == _FAR, -1, nearest & 0xFFFFFFFF)
    return face.view(frames, height, width)


def _chunks(count: Tensor) -> list[slice]:
    """Slices of the triangle list that each make at most about _MAX_FRAGMENTS fragments."""
    total = torch.cumsum(count, 0)
    if len(total) == 0:
        return []
    limits = torch.arange(1, int(total[-1]) // _MAX_FRAGMENTS + 1, device=total.device) * _MAX_FRAGMENTS
    cuts = torch.searchsorted(total, limits).tolist()
    edges = sorted({0, *cuts, len(count)})
    return [slice(lo, hi) for lo, hi in pairwise(edges)]


def _deposit(nearest: Tensor, count: Tensor, columns: Tensor, plane: Tensor, base: Tensor, identity: Tensor, width: int) -> None:
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    offset = torch.arange(len(owner), device=count.device) - (torch.cumsum(count, 0) - count)[owner]
    columns = columns[owner]
    row = torch.div(offset, columns, rounding_mode="floor")
    column = offset - row * columns
    i, j = column.to(plane.dtype), row.to(plane.dtype)
    p = plane[owner]
    u = p[:, 0] * i + p[:, 1] * j + p[:, 2]
    v = p[:, 3] * i + p[:, 4] * j + p[:, 5]
    inside = torch.nonzero((u >= -_TOLERANCE) & (v >= -_TOLERANCE) & (u + v <= 1 + _TOLERANCE)).squeeze(1)
    p = p[inside]
    inverse_depth = p[:, 6] * u[inside] + p[:, 7] * v[inside] + p[:, 8]
    bits = (1 / inverse_depth.clamp_min(1e-9)).to(torch.float32).view(torch.int32).long()
    owner = owner[inside]
    pixel = base[owner] + row[inside] * width + column[inside]
    nearest.scatter_reduce_(0, pixel, (bits << 32) | identity[owner], "amin")


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals, (F, V, 3) from (F, V, 3) and (T, 3)."""
    corner = vertices[:, faces]  # (F, T, 3, 3)
    normal = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(1, faces[:, k], normal)
    return unit(total)
