"""Render passes of the fitted head over the whole plate: what a compositor relights, remaps and mattes with.

Hard-edged data without anti-aliasing, aligned with the plate to the pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .filters import unit
from .prior.camera import image_centre, to_screen
from .prior.head import HeadModel
from .prior.raster import rasterise, vertex_normals
from .rig import posed_vertices
from .types import FacePrior
from .windows import windows

_WINDOW = 4  # frames rendered at once
_COLOURS = (
    *((230, 180, 150), (200, 70, 80), (90, 140, 230), (60, 200, 210), (90, 30, 40), (245, 245, 235)),
    *((220, 120, 130), (200, 150, 90), (110, 80, 60), (170, 140, 120), (30, 30, 30)),
)


@dataclass(frozen=True)
class Passes:
    """F frames in the plate's size."""

    normal: Tensor  # (F, H, W, 3) unit normals in camera space, 0 beside the head
    depth: Tensor  # (F, H, W) metres from the camera's plane, 0 beside the head
    uv: Tensor  # (F, H, W, 2) texture coordinates, v down, 0 beside the head
    part: Tensor  # (F, H, W) int8 index into PARTS, -1 beside the head
    mask: Tensor  # (F, H, W) 1 on the head

    @property
    def depth_range(self) -> tuple[float, float]:
        """Nearest and farthest depth of the head over all frames, metres; (0, 1) where it is nowhere seen."""
        seen = self.depth[self.mask > 0]
        return (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)

    def pictures(self) -> dict[str, Tensor]:
        """Each pass as pictures (F, H, W, 3), 0..1, black beside the head: normals n / 2 + 0.5, depth 1 nearest .. 0 farthest of all
        frames, u and v as red and green, parts as flat colours, the mask."""
        near, far = self.depth_range
        on = self.mask[..., None]
        depth = ((far - self.depth) / max(far - near, 1e-6))[..., None] * on
        colours = torch.tensor(_COLOURS, dtype=on.dtype, device=on.device) / 255
        return {
            "normal": (self.normal / 2 + 0.5) * on,
            "depth": depth.expand(-1, -1, -1, 3),
            "uv": torch.nn.functional.pad(self.uv, (0, 1)),
            "parts": colours[self.part.clamp_min(0).long()] * on,
            "mask": on.expand(-1, -1, -1, 3),
        }


@torch.inference_mode()
def render_passes(prior: FacePrior, head: HeadModel, *, progress: Callable[[int, int], None] | None = None) -> Passes:
    """Render a prior's head over its plate. progress(done, total)."""
    points = posed_vertices(prior, head)
    screen = to_screen(points, prior.focal, image_centre(prior.image_size, points))
    parts = []
    for index in windows(len(prior), _WINDOW):
        raster = rasterise(screen[index], head.faces, prior.image_size)
        normal = unit(raster.interpolate(vertex_normals(points[index], head.faces)))
        part = torch.where(raster.mask, head.part[raster.face.clamp_min(0)], -1).to(torch.int8)
        depth = raster.interpolate(screen[index, :, 2:])[..., 0]
        parts.append((normal, depth, raster.interpolate(head.uv), part, raster.mask.to(points.dtype)))
        if progress is not None:
            progress(index.stop, len(prior))
    return Passes(*(torch.cat(values) for values in zip(*parts, strict=True)))
