"""python -m dynamicface export: the face as a file other programs open. What is written follows the ending of --out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..drive import apply_curves, drive_face, performance_of
from ..errors import DynamicFaceError
from ..io.arkit import load_performance, save_performance
from ..io.curves import load_curves
from ..io.gltf import save_glb
from ..io.obj import UNITS, closed_head, save_closed_head, save_obj_sequence
from ..io.passes import save_passes
from ..io.presets import apply_preset, choose_presets, shipped_presets
from ..io.usd import ENDINGS, save_usd
from ..passes import render_passes
from ..rig import rig_error, rig_of
from ..types import FacePrior
from .common import Desk, command, number

_WHAT = "FILE.glb, .usda, .usdc: animated face; .stl, .obj: closed neutral head in millimetres; .csv, .json: ARKit; DIR: see --sequence"


def register(commands: argparse._SubParsersAction) -> None:
    """Add the parser."""
    parser = command(commands, "export", run, "write the face for other programs: mesh with shapes and animation, passes, ARKit curves")
    parser.add_argument("image", type=Path, metavar="IMAGE|PRIOR", help="a photo, or a prior saved by `fit` or `video`")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help=_WHAT)
    parser.add_argument("--sequence", choices=("obj", "exr", "png"), default="obj", help="what a DIR is filled with: meshes or passes")
    parser.add_argument("--preset", metavar="NAME", help="give the face a shipped expression first")
    parser.add_argument("--curves", type=Path, metavar="JSON", help="keyframes to apply; makes a shot of a photo")
    parser.add_argument("--drive", type=Path, metavar="CSV|JSON", help="an ARKit recording to apply, head turns included")
    parser.add_argument("--fps", type=number, default=24.0, help="frames per second (default 24)")
    parser.add_argument("--unit", choices=UNITS, default="m", help="of a sequence of meshes (default m)")
    parser.add_argument("--pupil-distance", type=number, metavar="MM", help="measured on the person, for a closed head (default: fitted)")


def run(options: argparse.Namespace) -> dict:
    """Load or fit, apply what was asked for, write."""
    write = _writer(options)
    desk = Desk(options)
    prior = desk.load_or_fit([options.image], options.face)
    if options.preset:
        prior = apply_preset(prior, *choose_presets(options.preset, shipped_presets()))
    if options.drive:
        prior = drive_face(prior, load_performance(options.drive), pose=1.0)
    if options.curves:
        prior = apply_curves(prior, load_curves(options.curves))
    with desk.timed("write"):
        figures = write(desk, prior)
    desk.written.append(str(options.out))
    return desk.figures | {"frames": len(prior)} | figures


def _writer(options: argparse.Namespace) -> Callable[[Desk, FacePrior], dict]:
    """What writes files of this ending. Raises DynamicFaceError, before anything is computed, where nothing does."""
    ending, out = options.out.suffix.lower(), options.out

    def rig(desk: Desk, prior: FacePrior) -> dict:
        made = rig_of(prior, desk.pipe.head, options.fps)
        (save_glb if ending == ".glb" else save_usd)(made, out)
        plain = rig_error(rig_of(prior, desk.pipe.head, correctives=0), prior, desk.pipe.head)
        return {
            "targets": made.names,
            "largest_error_mm": 1000 * float(rig_error(made, prior, desk.pipe.head).max()),
            "largest_error_without_correctives_mm": 1000 * float(plain.max()),
        }

    def closed(desk: Desk, prior: FacePrior) -> dict:
        mesh = closed_head(prior, desk.pipe.head, options.pupil_distance)
        save_closed_head(mesh, out)
        return {"pupil_distance_mm": mesh.ipd, "size_mm": (mesh.points.amax(0) - mesh.points.amin(0)).tolist()}

    def performance(desk: Desk, prior: FacePrior) -> dict:
        save_performance(performance_of(prior, options.fps), out)
        return {}

    def sequence(desk: Desk, prior: FacePrior) -> dict:
        if options.sequence == "obj":
            save_obj_sequence(prior, desk.pipe.head, out, unit=options.unit)
        else:
            save_passes(render_passes(prior, desk.pipe.head), prior, out, kind=options.sequence)
        return {}

    writers = {".glb": rig, **dict.fromkeys(ENDINGS, rig), ".stl": closed, ".obj": closed, ".csv": performance, ".json": performance}
    if ending and ending not in writers:
        raise DynamicFaceError(f"Cannot export to {out}: expected {_WHAT}.")
    return writers.get(ending, sequence)
