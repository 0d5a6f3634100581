"""The face as binary glTF 2.0 (.glb): neutral mesh, named morph targets, texture, eyeballs that turn, camera, animation.

Scene: `camera` at the origin, where our camera is, and `head` with `eye_left` and `eye_right` under it. Metres, y up, the camera looks
along -z: glTF's axes are ours. Target names stand in the mesh's extras.targetNames, where Blender, three.js and Unreal look for them.
The texture is the person's own skin without light; the material is rough and not metallic.
"""

from __future__ import annotations

import io
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..prior.camera import quaternion_from_rotation
from ..rig import EYE_NAMES, FaceRig, Mesh

_FLOAT, _UINT = 5126, 5125
_VERTICES, _INDICES = 34962, 34963
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_ROUGHNESS = 0.6
_NEAR = 0.01  # metres


def save_glb(rig: FaceRig, path: str | Path, *, name: str = "head") -> None:
    """Write a rig. More than one frame makes an animation of weights, head and eyes; the first frame is the rest pose."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_glb(rig, name=name))


def encode_glb(rig: FaceRig, *, name: str = "head") -> bytes:
    """The bytes of a .glb file."""
    data = _Buffer()
    head = quaternion_from_rotation(rig.rotation)
    eyes = quaternion_from_rotation(rig.eye_rotation)
    primitive = _primitive(rig.skin, data)
    primitive["targets"] = [
        {"POSITION": data.add(points, bounds=True), "NORMAL": data.add(normals)}
        for points, normals in zip(rig.targets, rig.target_normals, strict=True)
    ]
    meshes = [{"name": name, "primitives": [primitive], "weights": rig.weights[0].tolist(), "extras": {"targetNames": list(rig.names)}}]
    meshes += [{"name": eye, "primitives": [_primitive(mesh, data)]} for eye, mesh in zip(EYE_NAMES, rig.eyes, strict=False)]
    nodes = [
        {"name": "camera", "camera": 0},
        {
            "name": name,
            "mesh": 0,
            "translation": rig.translation[0].tolist(),
            "rotation": head[0].tolist(),
            "children": list(range(2, 2 + len(rig.eyes))),
        },
        *(
            {"name": eye, "mesh": 1 + k, "translation": rig.pivots[k].tolist(), "rotation": eyes[0, k].tolist()}
            for k, eye in enumerate(EYE_NAMES[: len(rig.eyes)])
        ),
    ]
    height, width = rig.image_size
    document = {
        "asset": {"version": "2.0", "generator": "DynamicFace"},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{key: value for key, value in node.items() if value != []} for node in nodes],
        "meshes": meshes,
        "cameras": [
            {
                "type": "perspective",
                "perspective": {
                    "yfov": 2 * math.atan(height / 2 / float(rig.focal.median())),
                    "aspectRatio": width / height,
                    "znear": _NEAR,
                },
            }
        ],
        "materials": [
            {
                "name": "skin",
                "doubleSided": True,
                "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": _ROUGHNESS},
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"name": "albedo", "mimeType": "image/png", "bufferView": data.view(_png(rig.texture))}],
    }
    if len(rig) > 1:
        document["animations"] = [_animation(rig, head, eyes, data)]
    return _pack(document | {"accessors": data.accessors, "bufferViews": data.views}, bytes(data.content))


@dataclass
class _Buffer:
    """The binary chunk under construction."""

    content: bytearray = field(default_factory=bytearray)
    views: list[dict] = field(default_factory=list)
    accessors: list[dict] = field(default_factory=list)

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes; the index of their view."""
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        self.views.append(view if target is None else view | {"target": target})
        self.content += content + bytes(-len(content) % 4)
        return len(self.views) - 1

    def add(self, values: Tensor, target: int | None = _VERTICES, *, bounds: bool = False) -> int:
        """Append (N,) or (N, C) as float32, integers as uint32; the index of the accessor."""
        array = values.detach().cpu().numpy()
        array = np.ascontiguousarray(array, np.float32 if values.is_floating_point() else np.uint32)
        accessor = {
            "bufferView": self.view(array.tobytes(), target),
            "componentType": _FLOAT if values.is_floating_point() else _UINT,
            "count": len(array),
            "type": _KINDS[1 if array.ndim == 1 else array.shape[1]],
        }
        if bounds:
            table = array.reshape(len(array), -1)
            accessor |= {"min": table.min(0).tolist(), "max": table.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _primitive(mesh: Mesh, data: _Buffer) -> dict:
    return {
        "attributes": {"POSITION": data.add(mesh.points, bounds=True), "NORMAL": data.add(mesh.normals), "TEXCOORD_0": data.add(mesh.uv)},
        "indices": data.add(mesh.faces.flatten(), _INDICES),
        "material": 0,
    }


def _animation(rig: FaceRig, head: Tensor, eyes: Tensor, data: _Buffer) -> dict:
    frames = rig.focal.new_tensor(range(len(rig))) / rig.fps
    time = data.add(frames, None, bounds=True)
    tracks = [(1, "weights", rig.weights.flatten()), (1, "rotation", _continuous(head)), (1, "translation", rig.translation)]
    tracks += [(2 + k, "rotation", _continuous(eyes[:, k])) for k in range(len(rig.eyes))]
    samplers = [{"input": time, "output": data.add(values, None), "interpolation": "LINEAR"} for _, _, values in tracks]
    channels = [{"sampler": k, "target": {"node": node, "path": path}} for k, (node, path, _) in enumerate(tracks)]
    return {"name": "performance", "samplers": samplers, "channels": channels}


def _continuous(quaternion: Tensor) -> Tensor:
    """(F, 4) without jumps between q and -q."""
    steps = (quaternion[1:] * quaternion[:-1]).sum(-1).sign()
    return quaternion * quaternion.new_tensor([1.0, *steps.cumprod(0).tolist()])[:, None]


def _png(texture: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray((texture.detach().cpu() * 255).round().byte().numpy()).save(file, "PNG")
    return file.getvalue()


def _pack(document: dict, binary: bytes) -> bytes:
    text = json.dumps(document | {"buffers": [{"byteLength": len(binary)}]}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BINARY) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
