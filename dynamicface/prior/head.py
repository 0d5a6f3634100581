"""The parametric head: template + shape + expression, correctives, rotating eyeballs, landmarks.

Unusual here:
- a mouth closes only as far as the jaw is open (`mouthClose` is a corrective of `jawOpen`, never a shape of its own);
- the eyelids close whatever the identity: the blink's travel is measured on the very face, so full blink meets exactly, and no lid
  vertex ever enters the eyeball;
- eyeballs stay spheres under every identity and turn about their own moved centre.
Everything is a batched matrix product or an index; gradients flow through all of it. Axes, units, signs: `conventions.py`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise
from torch import Tensor

from ..conventions import LANDMARKS, linear_to_srgb, srgb_to_linear
from ..errors import WeightsError
from ..weights import FOLDER, registry, verified_bytes
from .camera import rotation_from_vector
from .lids import Lids
from .subdivide import subdivide

FORMAT = "dynamicface.head.1"
EYE_DISTANCE, EYE_RADIUS = 0.063, 0.012
"""Metres, of a head model without eyeballs."""
_LIDS = ("lids_left.", "lids_right.")
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A linear head in metres, origin midway between the mean eyeballs. V vertices, T triangles, S shapes, E expressions."""

    name: str
    licence: str
    expression_names: tuple[str, ...]
    metric: bool  # sizes are those of real heads; else the scale is arbitrary
    template: Tensor  # (V, 3)
    faces: Tensor  # (T, 3) int64, counter-clockwise seen from outside
    part: Tensor  # (T,) int64 index into conventions.PARTS
    uv: Tensor  # (V, 2)
    shape_basis: Tensor  # (S, V, 3) at one standard deviation
    expression_basis: Tensor  # (E, V, 3) at full expression
    vertex_mirror: Tensor  # (V,) int64 the vertex on the other side of the face
    ambient_occlusion: Tensor  # (V,) 0 hidden .. 1 open, at rest
    face_region: Tensor  # (V,) 0..1 skin from hairline to chin, without ears, neck and scalp
    albedo: Tensor  # (3, U, U) linear RGB of the mean face
    landmark_index: Tensor  # (478, 3) int64 vertices of the triangle that carries a landmark
    landmark_weight: Tensor  # (478, 3) barycentric
    landmark_sigma: Tensor  # (478,) metres
    landmark_bias: Tensor  # (478, 3) metres, what the landmark net puts beside the surface point
    landmark_mirror: Tensor  # (478,) int64
    eye_vertices: tuple[Tensor, Tensor]  # int64 ids of the [left, right] eyeball
    lids: tuple[Lids, ...] = ()  # [left, right], or none: then a blink is only its basis shape

    @classmethod
    def load(cls, path: str | Path | None = None) -> HeadModel:
        """Read a head written by :func:`save_head`, or a FLAME, BFM or ICT-FaceKit model (`adapters.py`); without a path the embedded
        one. Raises WeightsError."""
        if path is None:
            row = registry()["head"]
            path = FOLDER / row.file
            content = verified_bytes(path, row.size, row.sha256)
        elif Path(path).suffix.lower() == ".safetensors":
            content = _read(Path(path))
        else:
            from .adapters import load_foreign  # which needs this module

            return load_foreign(path)
        try:
            tensors = parse_safetensors(content)
            meta = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        except SafetensorError as error:
            raise WeightsError(f"The head model {path} cannot be read ({error}). Choose another file.") from error
        if meta.get("format") != FORMAT:
            raise WeightsError(f"{path} is not a head model of this version (format {meta.get('format')!r}, expected {FORMAT!r}).")
        return cls._unpack(tensors, json.loads(meta["head"]))

    @classmethod
    def _unpack(cls, tensors: dict[str, Tensor], meta: dict) -> HeadModel:
        eyes = (tensors.pop("eye_left").long(), tensors.pop("eye_right").long())
        packed = [{key[len(eye) :]: tensors.pop(key) for key in list(tensors) if key.startswith(eye)} for eye in _LIDS]
        lids = tuple(Lids.unpack(p) for p in packed if p)
        tensors["albedo"] = srgb_to_linear(tensors["albedo"].float() / 255)
        whole = {"faces", "part", "vertex_mirror", "landmark_index", "landmark_mirror"}
        tensors = {key: value.long() if key in whole else value.float() for key, value in tensors.items()}
        meta["expression_names"] = tuple(meta["expression_names"])
        return cls(**meta, **tensors, eye_vertices=eyes, lids=lids)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> HeadModel:
        """The same head elsewhere; dtype applies to the floating tensors only."""

        def move(value):
            if isinstance(value, tuple):
                return tuple(move(v) for v in value)
            if isinstance(value, Lids):
                return value.map(move)
            if not isinstance(value, Tensor):
                return value
            return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

        return dataclasses.replace(self, **{f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def replace(self, **changes) -> HeadModel:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    def vertices(self, shape: Tensor, expression: Tensor, gaze: Tensor | None = None) -> Tensor:
        """shape (.., S), expression (.., E), gaze (.., 2, 2) radians -> vertices (.., V, 3). Leading axes broadcast; a clip
        passes its one identity as (1, S)."""
        expression = self.corrected(expression)
        out = self.template + (shape @ self.shape_basis.flatten(1)).unflatten(-1, (-1, 3))
        out = out + (expression @ self.expression_basis.flatten(1)).unflatten(-1, (-1, 3))
        centre, radius = self.eyes(shape)
        for eye, lids in enumerate(self.lids):
            blink = self.expression_names.index(_BLINKS[eye])
            out = lids.close(out, expression[..., blink], self.expression_basis[blink])
            out = lids.clear(out, centre[..., eye, :], radius[..., eye])
        return out if gaze is None else self._look(out, centre, gaze)

    def landmarks(self, vertices: Tensor) -> Tensor:
        """vertices (.., V, 3) -> the 478 landmarks on them, (.., 478, 3)."""
        corners = vertices[..., self.landmark_index.flatten(), :].unflatten(-2, (LANDMARKS, 3))
        return (corners * self.landmark_weight[..., None]).sum(-2) + self.landmark_bias

    def subdivided(self) -> HeadModel:
        """The head after one Loop subdivision step: 4 T triangles, same coefficients and API."""
        return subdivide(self)

    def eyes(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        """shape (.., S) -> eyeball centres (.., 2, 3) [left, right] and radii (.., 2), metres."""
        centre = self.eye_centre + (shape @ self._eye_motion[0].flatten(1)).unflatten(-1, (2, 3))
        return centre, self.eye_radius + shape @ self._eye_motion[1]

    @cached_property
    def eye_centre(self) -> Tensor:
        """(2, 3) centres of the template's [left, right] eyeball."""
        return torch.stack([c for c, _ in self._eyeballs])

    @cached_property
    def eye_radius(self) -> Tensor:
        """(2,) radii of the template's eyeballs."""
        return torch.stack([r for _, r in self._eyeballs])

    @cached_property
    def _eyeballs(self) -> list[tuple[Tensor, Tensor]]:
        """Centre and radius of each eyeball; typical ones where the model has none."""
        usual = [(self.template.new_tensor([side * EYE_DISTANCE / 2, 0, 0]), self.template.new_tensor(EYE_RADIUS)) for side in (1, -1)]
        return [sphere(self.template[ids]) if len(ids) else eye for ids, eye in zip(self.eye_vertices, usual, strict=True)]

    @cached_property
    def _eye_motion(self) -> tuple[Tensor, Tensor]:
        """What a unit of each shape coefficient does to the eyeballs: centres (S, 2, 3) and radii (S, 2)."""
        centres, radii = [], []
        for ids, (centre, radius) in zip(self.eye_vertices, self._eyeballs, strict=True):
            if not len(ids):
                centres.append(self.shape_basis.new_zeros(len(self.shape_basis), 3))
                radii.append(self.shape_basis.new_zeros(len(self.shape_basis)))
                continue
            arm, motion = self.template[ids] - centre, self.shape_basis[:, ids]
            spread = arm - arm.mean(0)
            growth = ((motion - motion.mean(1, keepdim=True)) * spread).sum((1, 2)) / spread.square().sum()
            centres.append(motion.mean(1) - growth[:, None] * arm.mean(0))
            radii.append(growth * radius)
        return torch.stack(centres, 1), torch.stack(radii, 1)

    @cached_property
    def _jaw(self) -> tuple[int, int] | None:
        names = self.expression_names
        return (names.index("mouthClose"), names.index("jawOpen")) if {"mouthClose", "jawOpen"} <= set(names) else None

    def corrected(self, expression: Tensor) -> Tensor:
        """Coefficients (.., E) as the mesh takes them: mouthClose only as far as jawOpen."""
        if self._jaw is None:
            return expression
        close, jaw = self._jaw
        limited = torch.minimum(expression[..., close], expression[..., jaw].clamp_min(0))
        return torch.cat([expression[..., :close], limited[..., None], expression[..., close + 1 :]], -1)

    def _look(self, vertices: Tensor, centre: Tensor, gaze: Tensor) -> Tensor:
        """Turn the eyeballs of vertices (.., V, 3) about centre (.., 2, 3) by gaze (.., 2, 2)."""
        yaw, pitch = gaze.unbind(-1)
        zero = torch.zeros_like(yaw)
        turn = rotation_from_vector(torch.stack([zero, yaw, zero], -1)) @ rotation_from_vector(torch.stack([-pitch, zero, zero], -1))
        shape = np.broadcast_shapes(vertices.shape[:-2], gaze.shape[:-2])  # torch.broadcast_shapes would import sympy: a second
        out = vertices.expand(*shape, *vertices.shape[-2:]).clone()
        for eye, ids in enumerate(self.eye_vertices):
            pivot = centre[..., None, eye, :]
            out[..., ids, :] = (out[..., ids, :] - pivot) @ turn[..., eye, :, :].mT + pivot
        return out


def _with_sorted_header(content: bytes) -> bytes:
    """A safetensors file with its metadata in order, which the library leaves to chance: the same head gives the same bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"The head model {path} cannot be read ({error}). Choose another file.") from error


def sphere(points: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares sphere through points (K, 3): centre (3,) and radius ()."""
    centre = points.mean(0)
    arm = (points - centre).double()
    system = torch.cat([2 * arm, torch.ones_like(arm[:, :1])], 1)
    solution = torch.linalg.lstsq(system, arm.square().sum(1, keepdim=True)).solution[:, 0]
    radius = (solution[3] + solution[:3].square().sum()).sqrt()
    return centre + solution[:3].to(points.dtype), radius.to(points.dtype)


def save_head(head: HeadModel, path: str | Path) -> None:
    """Write a head for :meth:`HeadModel.load`: bases as fp16, other reals as fp32, the albedo as 8-bit sRGB, indices as integers."""
    tensors, meta = {}, {}
    for field in dataclasses.fields(head):
        value = getattr(head, field.name)
        if field.name == "lids":
            tensors |= {prefix + key: tensor for prefix, lids in zip(_LIDS, value, strict=False) for key, tensor in lids.pack().items()}
        elif field.name == "eye_vertices":
            tensors["eye_left"], tensors["eye_right"] = (v.int() for v in value)
        elif not isinstance(value, Tensor):
            meta[field.name] = value
        elif field.name == "albedo":
            tensors["albedo"] = (linear_to_srgb(value) * 255).round().clamp(0, 255).byte()
        elif not value.is_floating_point():
            tensors[field.name] = value.int()
        else:
            tensors[field.name] = value.half() if field.name.endswith("basis") else value.float()
    content = serialise({k: v.contiguous() for k, v in tensors.items()}, {"format": FORMAT, "head": json.dumps(meta)})
    Path(path).write_bytes(_with_sorted_header(content))
