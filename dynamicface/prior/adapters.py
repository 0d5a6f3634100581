"""Head models a studio owns, behind the same interface: FLAME, Basel Face Model, ICT-FaceKit.

| source                        | file                                                  | expressions                      |
| ----------------------------- | ----------------------------------------------------- | -------------------------------- |
| FLAME 2020, 2023, 2023 Open   | .npz with the pickle's arrays, see FLAME_CONVERSION   | its own 100 and three of the jaw |
| BFM 2009 of Deep3DFaceRecon   | BFM_model_front.mat                                   | its own 64                       |
| BFM 2009                      | 01_MorphableModel.mat                                 | none                             |
| BFM 2017, 2019                | model2017-1_bfm_nomouth.h5, model2019_fullHead.h5     | its own                          |
| ICT-FaceKit                   | folder FaceXModel of OBJ files                        | ARKit-52                         |

Their licences are their owners'; none of these files is shipped. What such a file lacks gets a plain substitute: cylinder UVs, one
skin tone, eyeballs found as round pieces of the mesh. Landmarks must have been found once with ``tools/embed_landmarks.py``, which
writes them beside the source. Pickles are never opened: loading one runs whatever code it contains.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..conventions import ARKIT_NAMES, LANDMARKS, PARTS, srgb_to_linear
from ..errors import WeightsError
from .atlas import EYE_RANGE, SKIN_V, box_uv, eye_polar, eye_uv, face_region, skin_uv
from .head import HeadModel, sphere
from .raster import rasterise

ATLAS = 512
NOSE_TIP = (0.0, -0.042, 0.047)
"""Of the mean head, metres from between the eyes; places models without eyeballs."""
LANDMARK_SUFFIX = ".landmarks.safetensors"
FLAME_CONVERSION = (
    "In an environment that can open it, run once: import pickle, numpy as np; "
    "m = pickle.load(open('generic_model.pkl', 'rb'), encoding='latin1'); "
    "np.savez('flame.npz', J_regressor=m['J_regressor'].toarray(), "
    "**{k: np.array(m[k]) for k in ('v_template', 'f', 'shapedirs', 'weights')})"
)
_SKIN, _SCLERA, _IRIS, _TEETH, _MOUTH = (203, 160, 138), (222, 216, 210), (95, 66, 44), (226, 218, 198), (170, 90, 88)


@dataclass(frozen=True)
class Source:
    """The numbers of a foreign model, still in its own units and place."""

    name: str
    licence: str
    metres: float  # one unit of the model in metres
    template: np.ndarray  # (V, 3)
    faces: np.ndarray  # (T, 3)
    shapes: np.ndarray  # (S, V, 3) at one standard deviation
    expressions: np.ndarray  # (E, V, 3)
    expression_names: tuple[str, ...]
    parts: np.ndarray | None = None  # (V,) index into PARTS, None = skin and what is round is an eye
    colours: np.ndarray | None = None  # (V, 3) sRGB 0..1


def load_foreign(path: str | Path, *, landmarks: bool = True) -> HeadModel:
    """Read FLAME, BFM or ICT-FaceKit.

    landmarks: also read the landmark file beside the source; without it the head has none yet (for the tool that finds them).

    Raises WeightsError when the file is unknown, incomplete, a pickle, or has no landmark file.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"There is no head model at {path}.")
    readers = {".npz": read_flame, ".mat": read_bfm_mat, ".h5": read_bfm_h5, ".hdf5": read_bfm_h5}
    suffix = path.suffix.lower()
    if path.is_dir():
        source = read_ict(path)
    elif suffix in (".pkl", ".pickle"):
        raise WeightsError(f"{path.name} is a pickle, which can run any code when opened, so it is refused. {FLAME_CONVERSION}")
    elif suffix in readers:
        source = readers[suffix](path)
    else:
        raise WeightsError(
            f"{path.name} is not a known head model: expected .safetensors, FLAME .npz, BFM .mat or .h5, or a FaceXModel folder."
        )
    head = build_head(source)
    return with_landmarks(head, landmark_file(path)) if landmarks else head


def landmark_file(path: str | Path) -> Path:
    """Where the landmarks of a foreign model are kept."""
    path = Path(path)
    return path.with_name(path.name + LANDMARK_SUFFIX)


def save_landmarks(head: HeadModel, path: str | Path) -> None:
    """Write what :func:`with_landmarks` reads."""
    save_file({name: getattr(head, f"landmark_{name}").contiguous() for name in ("index", "weight", "sigma")}, path)


def with_landmarks(head: HeadModel, path: Path) -> HeadModel:
    """The head with the landmarks of a file, and the face region that follows from them."""
    if not path.is_file():
        raise WeightsError(
            f"The head model {head.name!r} needs its landmarks in {path.name}, beside the model. "
            f"Make that file once (a few minutes): python tools/embed_landmarks.py --head {path.name.removesuffix(LANDMARK_SUFFIX)}"
        )
    stored = load_file(path)
    index = stored.get("index")
    if set(stored) != {"index", "weight", "sigma"} or index.shape != (LANDMARKS, 3) or int(index.max()) >= len(head.template):
        raise WeightsError(
            f"{path.name} does not belong to the head model {head.name!r}; delete it and run tools/embed_landmarks.py again."
        )
    head = head.replace(landmark_index=stored["index"], landmark_weight=stored["weight"], landmark_sigma=stored["sigma"])
    skin = torch.zeros(len(head.template))
    skin[head.faces[head.part == PARTS.index("skin")].flatten()] = 1.0
    return head.replace(face_region=face_region(head.template, head.landmarks(head.template), skin))


def read_flame(path: Path) -> Source:
    """FLAME as .npz: v_template (V, 3), f (T, 3), shapedirs (V, 3, 400) = 300 shapes then 100 expressions, metres. With weights (V, 5)
    and J_regressor (5, V) the jaw joint becomes the shapes jawOpen, jawLeft, jawRight."""
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
    except ValueError as error:
        raise WeightsError(f"{path.name} contains pickled objects, which are refused. {FLAME_CONVERSION}") from error
    except (OSError, BadZipFile) as error:
        raise WeightsError(f"{path.name} cannot be read ({error}).") from error
    _need(path, data, "v_template", "f", "shapedirs")
    template = data["v_template"].astype(np.float64)
    directions = np.moveaxis(data["shapedirs"].astype(np.float64), -1, 0)
    if directions.shape[1:] != template.shape or len(directions) < 301:
        raise WeightsError(f"{path.name}: shapedirs is {data['shapedirs'].shape}, expected ({len(template)}, 3, 400).")
    expressions = list(directions[300:])
    names = [f"flame{i:03d}" for i in range(len(expressions))]
    if {"weights", "J_regressor"} <= set(data):
        joint, weight = (data["J_regressor"] @ template)[2], data["weights"][:, 2:3]
        for name, axis, angle in (("jawOpen", 0, 0.35), ("jawLeft", 1, 0.12), ("jawRight", 1, -0.12)):
            expressions.append(weight * ((template - joint) @ (_axis_rotation(axis, angle) - np.eye(3)).T))
            names.append(name)
    licence = "FLAME licence of Max Planck (2023 Open: CC-BY 4.0; earlier: non-commercial)"
    return Source("FLAME", licence, 1.0, template, data["f"].astype(np.int64), directions[:300], np.stack(expressions), tuple(names))


def read_bfm_mat(path: Path) -> Source:
    """BFM_model_front.mat: meanshape (1, 3V), idBase (3V, 80), exBase (3V, 64) in decimetres at one deviation, tri (T, 3) from 1,
    meantex (1, 3V) 0..255. 01_MorphableModel.mat: shapeMU (3V, 1), shapePC (3V, 199), shapeEV (199, 1) in micrometres, tl, texMU."""
    data = _optional("scipy.io", "reads .mat files").loadmat(path)
    licence = "Basel Face Model licence (research only)"
    if "shapeMU" in data:
        _need(path, data, "shapePC", "shapeEV", "tl", "texMU")
        shapes = _fields(data["shapePC"] * data["shapeEV"].reshape(1, -1))
        template, faces, colours = data["shapeMU"].reshape(-1, 3), data["tl"].astype(np.int64) - 1, data["texMU"].reshape(-1, 3) / 255
        return Source("BFM 2009", licence, 1e-6, template, faces, shapes, np.zeros((0, *template.shape)), (), None, colours)
    _need(path, data, "meanshape", "idBase", "exBase", "tri", "meantex")
    template, expressions = data["meanshape"].reshape(-1, 3), _fields(data["exBase"])
    faces, colours = data["tri"].astype(np.int64) - 1, data["meantex"].reshape(-1, 3) / 255
    names = tuple(f"bfm{i:02d}" for i in range(len(expressions)))
    return Source("BFM 2009 (front)", licence, 0.1, template, faces, _fields(data["idBase"]), expressions, names, None, colours)


def read_bfm_h5(path: Path) -> Source:
    """BFM 2017 and 2019: groups shape, expression, color with model/mean (3V,), model/pcaBasis (3V, K), model/pcaVariance (K,), and
    shape/representer/cells (3, T); millimetres."""
    with _optional("h5py", "reads .h5 files").File(path, "r") as file:

        def read(name: str) -> np.ndarray:
            if name not in file:
                raise WeightsError(f"{path.name} is not a Basel Face Model of 2017 or 2019: {name} is missing.")
            return np.asarray(file[name][()])

        def modes(group: str) -> np.ndarray:
            return _fields(read(f"{group}/model/pcaBasis") * np.sqrt(read(f"{group}/model/pcaVariance"))[None])

        template = (read("shape/model/mean") + read("expression/model/mean")).reshape(-1, 3)
        expressions = modes("expression")
        names = tuple(f"bfm{i:02d}" for i in range(len(expressions)))
        faces, colours = read("shape/representer/cells").T.astype(np.int64), read("color/model/mean").reshape(-1, 3)
        licence = "Basel Face Model licence (research only)"
        return Source("BFM 2017/2019", licence, 1e-3, template, faces, modes("shape"), expressions, names, None, colours)


def read_ict(path: Path) -> Source:
    """ICT-FaceKit's FaceXModel: generic_neutral_mesh.obj, identity000.obj .. and ARKit shapes as <name>.obj with _L / _R; centimetres."""
    neutral = path / "generic_neutral_mesh.obj"
    identities = sorted(path.glob("identity[0-9]*.obj"))
    if not neutral.is_file() or not identities:
        raise WeightsError(f"{path} is not ICT-FaceKit's FaceXModel: generic_neutral_mesh.obj or identity000.obj is missing.")
    template, faces = _read_obj(neutral)
    shown = _ICT_SHOWN if len(template) >= _ICT_SHOWN else len(template)

    def offset(name: str) -> np.ndarray:
        file = path / f"{name}.obj"
        return _read_obj(file, faces=False)[0] - template if file.is_file() else np.zeros_like(template)

    expressions = np.stack([sum(offset(n) for n in _ict_names(name)) for name in ARKIT_NAMES])
    shapes = np.stack([_read_obj(f, faces=False)[0] - template for f in identities])
    parts = np.full(len(template), PARTS.index("skin"))
    for first, last, part in _ICT_PARTS:
        parts[first:last] = PARTS.index(part)
    faces = faces[(faces < shown).all(1)]
    return Source("ICT-FaceKit", "MIT (USC ICT)", 0.01, template, faces, shapes, expressions, ARKIT_NAMES, parts)


_ICT_SHOWN = 24591  # then come transparent shells: lacrimal fluid, eye blend, eye occlusion, lashes
_ICT_PARTS = ((11248, 13294, "inner_mouth"), (14062, 17039, "tongue"), (17039, 21451, "teeth"))


def _ict_names(name: str) -> tuple[str, ...]:
    """ICT's files that make up an ARKit shape."""
    for side in ("Left", "Right"):
        if name.endswith(side) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            return (f"{name.removesuffix(side)}_{side[0]}",)
    return (name, f"{name}_L", f"{name}_R")


def build_head(source: Source) -> HeadModel:
    """Bring a model into our units, place and texture layout."""
    template = torch.from_numpy(source.template * source.metres)
    faces = _outward(template, torch.from_numpy(np.ascontiguousarray(source.faces)))
    eyes = find_eyeballs(template, faces)
    if all(len(ids) for ids in eyes):
        origin = torch.stack([sphere(template[ids])[0] for ids in eyes]).mean(0)
    else:
        central = template[:, 0].abs() < 0.02
        tip = template[torch.where(central, template[:, 2], -torch.inf).argmax()]
        origin = tip - template.new_tensor(NOSE_TIP)
    template = (template - origin).float()
    shapes, expressions = (torch.from_numpy(b * source.metres).float() for b in (source.shapes, source.expressions))
    for ids in eyes:
        expressions[:, ids] = 0  # the gaze turns them
    vertex_part = torch.zeros(len(template), dtype=torch.long) if source.parts is None else torch.from_numpy(source.parts).clone()
    for ids, name in zip(eyes, ("eye_left", "eye_right"), strict=True):
        vertex_part[ids] = PARTS.index(name)
    part = vertex_part[faces].amax(1)
    uv = _texture_coordinates(template, eyes, vertex_part)
    from_embedded = HeadModel.load().landmark_mirror
    return HeadModel(
        name=source.name,
        licence=source.licence,
        expression_names=source.expression_names,
        metric=True,
        template=template,
        faces=faces,
        part=part,
        uv=uv,
        shape_basis=shapes,
        expression_basis=expressions,
        vertex_mirror=nearest_mirror(template),
        ambient_occlusion=torch.ones(len(template)),
        face_region=torch.zeros(len(template)),
        albedo=_albedo(template, faces, part, uv, source.colours),
        landmark_index=torch.zeros(LANDMARKS, 3, dtype=torch.long),
        landmark_weight=torch.zeros(LANDMARKS, 3),
        landmark_sigma=torch.zeros(LANDMARKS),
        landmark_bias=torch.zeros(LANDMARKS, 3),
        landmark_mirror=from_embedded,
        eye_vertices=eyes,
    )


def nearest_mirror(template: Tensor) -> Tensor:
    """(V,) the vertex nearest to each vertex's mirror image; V x V is never held at once."""
    flipped = template * template.new_tensor([-1.0, 1.0, 1.0])
    return torch.cat([torch.cdist(chunk, template).argmin(1) for chunk in flipped.split(1024)])


def find_eyeballs(template: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices of the [left, right] eyeball: the pair of separate round pieces, 7 to 20 mm in radius, furthest to the front; empty if none.

    template (V, 3) metres. Pieces that share a centre (sclera, cornea, iris) count as one eye.
    """
    label = _components(faces, len(template))
    found: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
    for piece in torch.unique(label[faces[:, 0]]):
        ids = torch.nonzero(label == piece).squeeze(1)
        if len(ids) < 12 or float((template[ids].amax(0) - template[ids].amin(0)).amax()) > 0.045:
            continue
        centre, radius = sphere(template[ids])
        off = ((template[ids] - centre).norm(dim=-1) / radius - 1).abs()
        if 0.007 < radius < 0.020 and off.mean() < 0.05 and centre[0].abs() > 0.015:
            found[bool(centre[0] > 0)].append((ids, centre))
    if not (found[True] and found[False]):
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)

    def largest_cluster(pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
        main = max(pieces, key=lambda p: len(p[0]))[1]
        return torch.cat([ids for ids, centre in pieces if (centre - main).norm() < 0.006])

    return largest_cluster(found[True]), largest_cluster(found[False])


def _components(faces: Tensor, vertices: int) -> Tensor:
    """(V,) label of the connected piece of each vertex: its smallest vertex id."""
    label = torch.arange(vertices)
    while True:
        lowest = label[faces].amin(1, keepdim=True).expand(-1, 3)
        spread = label.scatter_reduce(0, faces.flatten(), lowest.flatten(), "amin")
        spread = spread[spread]
        if torch.equal(spread, label):
            return label
        label = spread


def _outward(template: Tensor, faces: Tensor) -> Tensor:
    """Faces turned so that those in front look forward."""
    corner = template[faces]
    normal = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    front = corner[..., 2].mean(1) > template[:, 2].quantile(0.8)
    return faces if float(normal[front, 2].sum()) >= 0 else faces.flip(1)


def _texture_coordinates(template: Tensor, eyes: tuple[Tensor, Tensor], part: Tensor) -> Tensor:
    uv = skin_uv(template)
    for names, slot in ((("teeth",), "teeth"), (("tongue", "inner_mouth"), "tongue")):
        ids = torch.nonzero(torch.isin(part, torch.tensor([PARTS.index(n) for n in names]))).squeeze(1)
        if len(ids):
            at = template[ids]
            unit = (at - at.amin(0)) / (at.amax(0) - at.amin(0)).clamp_min(1e-9)
            uv[ids] = box_uv(torch.stack([unit[:, 0], 1 - unit[:, 1]], -1), slot)
    for ids, slot in zip(eyes, ("eye_left", "eye_right"), strict=True):
        if len(ids):
            uv[ids] = eye_uv(F.normalize(template[ids] - sphere(template[ids])[0], dim=-1), slot)
    return uv


def _albedo(template: Tensor, faces: Tensor, part: Tensor, uv: Tensor, colours: np.ndarray | None) -> Tensor:
    """(3, ATLAS, ATLAS) linear: the model's own mean colours where it has them, else one skin tone; painted eyes, teeth and mouth."""

    def tone(rgb: tuple[int, int, int]) -> Tensor:
        return srgb_to_linear(torch.tensor(rgb) / 255.0)[:, None, None]

    out = tone(_SKIN).expand(3, ATLAS, ATLAS).clone()
    axis = (torch.arange(ATLAS) + 0.5) / ATLAS
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    if colours is not None:
        depth = 2 - template.norm(dim=-1, keepdim=True)
        raster = rasterise(torch.cat([uv * ATLAS, depth], -1)[None], faces[part == PARTS.index("skin")], (ATLAS, ATLAS), cull=False)
        linear = srgb_to_linear(torch.from_numpy(np.asarray(colours, np.float32)).clamp(0, 1))
        painted = raster.interpolate(linear)[0].permute(2, 0, 1)
        out = torch.where(raster.mask, painted, linear.mean(0)[:, None, None].expand_as(out))
    polar, _ = eye_polar(torch.stack([u, v], -1))
    strip = v >= SKIN_V
    eye = strip & (u < 0.5) & (polar < EYE_RANGE)
    for limit, colour in ((math.pi, _SCLERA), (math.radians(28), _IRIS), (math.radians(11), (6, 6, 6))):
        out = torch.where(eye & (polar < limit), tone(colour), out)
    out = torch.where(strip & (u >= 0.5) & (u < 0.75), tone(_TEETH), out)
    return torch.where(strip & (u >= 0.75), tone(_MOUTH), out)


def _fields(columns: np.ndarray) -> np.ndarray:
    """(3 V, K) -> (K, V, 3)"""
    return np.ascontiguousarray(columns.T).reshape(columns.shape[1], -1, 3)


def _axis_rotation(axis: int, angle: float) -> np.ndarray:
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[i, i] = out[j, j] = math.cos(angle)
    out[j, i], out[i, j] = math.sin(angle), -math.sin(angle)
    return out


def _read_obj(path: Path, faces: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and fan triangles (T, 3) of an OBJ."""
    vertices, triangles = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("v "):
            vertices.append([float(x) for x in line.split()[1:4]])
        elif faces and line.startswith("f "):
            corners = [int(c.split("/")[0]) - 1 for c in line.split()[1:]]
            triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    return np.asarray(vertices), np.asarray(triangles, np.int64).reshape(-1, 3)


def _need(path: Path, data: dict, *keys: str) -> None:
    missing = [key for key in keys if key not in data]
    if missing:
        found = ", ".join(sorted(k for k in data if not k.startswith("__"))) or "nothing"
        raise WeightsError(f"{path.name} lacks {', '.join(missing)} (it has {found}); it is not a head model known here.")


def _optional(module: str, purpose: str):
    """Import a package that only some files need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise WeightsError(f"The Python package {package} {purpose} and is not installed. Install it: pip install {package}") from error
