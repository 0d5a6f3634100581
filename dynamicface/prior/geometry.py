"""A prior placed in front of its camera: vertices, projection, normals, and what each crop pixel sees of the mesh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conventions import PARTS
from ..filters import unit
from ..types import FaceCrop, FacePrior
from . import light
from .camera import crop_screen, image_centre, to_camera, to_screen
from .fit import MESH
from .head import HeadModel
from .raster import Raster, rasterise, vertex_normals

_OFFSET_SIGMA = 5e-3  # metres, about half the distance between landmarks
_RIGID = ("eye_left", "eye_right", "teeth", "tongue", "inner_mouth")
CROP_METRES = 0.34
"""Side of the working crop at the face's depth: the head with its hair line and room for the plate to follow."""
CROP_CENTRE = (0.0, -0.015, 0.0)
"""The point of the head model in the middle of the crop, metres."""


@dataclass(frozen=True)
class PosedHead:
    """The head mesh of a prior, F frames, projected into square crops of the plate."""

    camera: Tensor  # (F, V, 3) camera space, metres
    screen: Tensor  # (F, V, 3) crop px, crop px, depth m
    head: HeadModel
    size: int

    @cached_property
    def normal(self) -> Tensor:
        """(F, V, 3) unit vertex normals in camera space."""
        return vertex_normals(self.camera, self.head.faces)

    @cached_property
    def raster(self) -> Raster:
        """What each pixel of the crop sees."""
        return rasterise(self.screen, self.head.faces, (self.size, self.size))

    @cached_property
    def depth(self) -> Tensor:
        """(F, 1, H, W) metres, 9 where there is no mesh."""
        return self.raster.interpolate(self.screen[..., 2:], 9.0).permute(0, 3, 1, 2)

    @cached_property
    def part(self) -> Tensor:
        """(F, H, W) index into PARTS, -1 where there is no mesh."""
        return self.raster.scatter(self.covered_part[:, None], -1)[..., 0]

    @cached_property
    def covered_part(self) -> Tensor:
        """(P,) index into PARTS of the covered pixels."""
        return self.head.part.index_select(0, self.raster.face.view(-1).index_select(0, self.raster.pixel))

    @cached_property
    def facing(self) -> Tensor:
        """(F, V) cosine between vertex normal and the direction to the camera."""
        return (self.normal * unit(-self.camera)).sum(-1)

    def shade(self, illumination: Tensor) -> Tensor:
        """(F, V, 3) shading of the vertices under (F, 9, 3)."""
        return light.shade(self.normal, illumination)


@lru_cache(maxsize=4)
def offset_field(head: HeadModel) -> Tensor:
    """(V, 478) weights that carry offsets of landmarks to the mesh: a normalised Gaussian that fades away from the landmarks.

    Distances are taken with the mouth open, so that the upper lip does not pull the lower one.
    """
    open_mouth = torch.zeros(len(head.expression_names), device=head.template.device)
    if "jawOpen" in head.expression_names:
        open_mouth[head.expression_names.index("jawOpen")] = 0.8
    vertices = head.vertices(head.template.new_zeros(len(head.shape_basis)), open_mouth)
    points = head.landmarks(vertices)[:MESH]
    near = torch.exp(-0.5 * (torch.cdist(vertices, points) / _OFFSET_SIGMA) ** 2)
    weight = near / (near.sum(1, keepdim=True) + 0.3)
    movable = torch.ones(len(vertices), dtype=torch.bool, device=vertices.device)
    for part in _RIGID:
        movable[head.faces[head.part == PARTS.index(part)].unique()] = False
    return F.pad(weight * movable[:, None], (0, head.landmark_index.shape[0] - MESH))


def pose_head(prior: FacePrior, head: HeadModel, crop: FaceCrop) -> PosedHead:
    """Put the prior's head into the crops."""
    vertices = head.vertices(prior.identity.shape[None], prior.expression, prior.gaze)
    vertices = vertices + torch.einsum("vl,flc->fvc", offset_field(head), prior.offset)
    camera = to_camera(vertices, prior.rotation, prior.translation)
    screen = to_screen(camera, prior.focal, image_centre(prior.image_size, camera))
    return PosedHead(camera, crop_screen(screen, crop.matrix), head, crop.size)


def face_crop(prior: FacePrior, size: int, zoom: float = 1.0) -> FaceCrop:
    """The working crop of a prior: upright, centred on the head, CROP_METRES / zoom wide at the face's depth."""
    point = prior.translation.new_tensor(CROP_CENTRE)
    camera = to_camera(point.expand(len(prior), 1, 3), prior.rotation, prior.translation)
    xy = to_screen(camera, prior.focal, image_centre(prior.image_size, camera))[:, 0]
    scale = size * zoom / (prior.focal / xy[:, 2] * CROP_METRES)
    zero = torch.zeros_like(scale)
    matrix = torch.stack([scale, zero, size / 2 - scale * xy[:, 0], zero, scale, size / 2 - scale * xy[:, 1]], -1)
    return FaceCrop(matrix.unflatten(-1, (2, 3)), size)


def natural_crop_size(prior: FacePrior, resolution: float = 1.0, lowest: int = 256, highest: int = 768) -> int:
    """The crop size, a multiple of 64, at which a plate pixel is about `resolution` crop pixels (median over the frames)."""
    depth = -prior.translation[:, 2]
    pixels = float((prior.focal / depth * CROP_METRES).median())
    return int(min(max(round(resolution * pixels / 64) * 64, lowest), highest))
