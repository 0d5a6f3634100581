"""Meshes as Wavefront OBJ and binary STL: a sequence of posed heads, and one person's closed neutral head in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..conventions import PARTS, linear_to_srgb
from ..errors import DynamicFaceError
from ..prior.geometry import offset_field
from ..prior.head import HeadModel
from ..prior.raster import vertex_normals
from ..rig import posed_vertices
from ..types import FacePrior

UNITS = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
"""How many to a metre."""
_CLOSED_PARTS = ("skin", "lips", "eye_left", "eye_right", "inner_mouth", "ears", "scalp", "neck")
_WELD = 1e-6  # metres
_IPD_RANGE = (30.0, 90.0)  # millimetres, from infants to very large heads


@dataclass(frozen=True)
class ClosedMesh:
    """A watertight mesh: every edge has two triangles."""

    points: Tensor  # (V, 3) millimetres
    faces: Tensor  # (T, 3) int64, counter-clockwise seen from outside
    ipd: float  # millimetres between the pupils' centres of rotation


@torch.inference_mode()
def save_obj_sequence(prior: FacePrior, head: HeadModel, folder: str | Path, *, name: str = "head", unit: str = "m") -> list[Path]:
    """Write every frame as `name`.0000.obj in camera space (our camera at the origin, looking along -z), with one texture.

    unit: m, cm or mm. Returns the OBJ files. The vertices are the renderer's own, in the same order in every frame.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    points = posed_vertices(prior, head)
    normals = vertex_normals(points, head.faces)
    albedo = head.albedo if prior.identity.albedo is None else prior.identity.albedo
    picture = (linear_to_srgb(albedo).clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    Image.fromarray(picture).save(folder / f"{name}.png")
    (folder / f"{name}.mtl").write_text(f"newmtl skin\nKd 1 1 1\nmap_Kd {name}.png\n", encoding="utf-8")
    paths = [folder / f"{name}.{frame:04d}.obj" for frame in range(len(prior))]
    start = [f"# DynamicFace, {unit}, camera space", f"mtllib {name}.mtl"]
    for path, vertices, normal in zip(paths, points * UNITS[unit], normals, strict=True):
        _write_obj(path, start, vertices, head.faces, normal, head.uv)
    return paths


@torch.inference_mode()
def closed_head(prior: FacePrior, head: HeadModel, ipd: float | None = None) -> ClosedMesh:
    """One person's neutral head, without teeth and tongue, as closed bodies in millimetres: the skin with the inside of the mouth, capped
    at the neck, and two eyeballs.

    A photograph does not tell how large a head is: ipd is the interpupillary distance in millimetres as measured on the person, to which
    the mesh is scaled. None keeps the size of the fit, which is that of an average head. Raises DynamicFaceError.
    """
    low, high = _IPD_RANGE
    if ipd is not None and not low <= ipd <= high:
        raise DynamicFaceError(f"The interpupillary distance is {ipd:g} mm; expected {low:g} to {high:g}, as measured on the person.")
    shape = prior.identity.shape[None]
    rest = head.vertices(shape, shape.new_zeros(1, len(head.expression_names)))[0] + offset_field(head) @ prior.offset.mean(0)
    pupils = head.eyes(prior.identity.shape)[0]
    fitted = 1000 * float((pupils[0] - pupils[1]).norm())
    kept = torch.isin(head.part, torch.tensor([PARTS.index(part) for part in _CLOSED_PARTS], device=head.part.device))
    points, faces = _weld(rest, head.template, head.faces[kept])
    points, faces = _cap(points, faces)
    return ClosedMesh(points * 1000 * ((ipd or fitted) / fitted), faces, ipd or fitted)


def save_closed_head(mesh: ClosedMesh, path: str | Path) -> None:
    """Write to .obj or .stl, millimetres. Raises DynamicFaceError for other endings."""
    path = Path(path)
    note = f"DynamicFace, millimetres, interpupillary distance {mesh.ipd:.2f} mm"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".obj":
        _write_obj(path, [f"# {note}"], mesh.points, mesh.faces)
    elif path.suffix.lower() == ".stl":
        corner = mesh.points[mesh.faces].cpu()
        normal = torch.nn.functional.normalize(torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), dim=-1)
        rows = np.zeros(len(corner), dtype=[("values", "<f4", 12), ("attribute", "<u2")])
        rows["values"] = torch.cat([normal[:, None], corner], 1).flatten(1).numpy()
        path.write_bytes(note.encode().ljust(80) + np.uint32(len(rows)).tobytes() + rows.tobytes())
    else:
        raise DynamicFaceError(f"{path} must end in .obj or .stl.")


def _weld(points: Tensor, template: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Only the vertices of these triangles, those that coincide on the template made one."""
    used = faces.unique()
    _, place = torch.unique((template[used] / _WELD).round().long(), dim=0, return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(used), device=faces.device)
    first = first.scatter_reduce(0, place, torch.arange(len(used), device=faces.device), "amin")
    number = torch.empty(len(template), dtype=torch.long, device=faces.device)
    number[used] = place
    return points[used[first]], number[faces]


def _cap(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Close every hole by a fan around its centre."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    start, end = edges.unbind(1)
    border = ~torch.isin(start * len(points) + end, end * len(points) + start)  # edges that no triangle runs along the other way
    start, end = start[border], end[border]
    if not len(start):
        return points, faces
    following = torch.arange(len(points), device=faces.device)
    hole, following = following.clone(), following.index_copy(0, start, end)
    for _ in range(len(start).bit_length()):  # the lowest vertex of its rim, reached in doubling steps
        hole, following = torch.minimum(hole, hole[following]), following[following]
    _, hole = torch.unique(hole[start], return_inverse=True)
    total = points.new_zeros(int(hole.max()) + 1, 4).index_add(0, hole, torch.nn.functional.pad(points[start], (0, 1), value=1.0))
    fans = torch.stack([end, start, hole + len(points)], 1)
    return torch.cat([points, total[:, :3] / total[:, 3:]]), torch.cat([faces, fans])


def _write_obj(
    path: Path, start: Sequence[str], points: Tensor, faces: Tensor, normals: Tensor | None = None, uv: Tensor | None = None
) -> None:
    lines = [*start, *(f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in points.tolist())]
    if normals is not None and uv is not None:
        lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in uv.tolist()]
        lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
        lines += ["usemtl skin", *(f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (faces + 1).tolist())]
    else:
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
