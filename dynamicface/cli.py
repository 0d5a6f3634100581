"""The command line: python -m dynamicface fit | edit | swap | guides | sheet, and the commands of `commands/`.

Every command writes its files, says so in a line, or prints its figures as JSON with --json. What a user can put right (a missing
file, a picture without a face, an unknown dial) ends with one sentence on the error stream and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from .checks import check_occlusion
from .commands import bench, export, library, qc, train, video
from .commands.common import Desk, Parser, add_provenance, command, count, face, number, share
from .compose import compose_prior
from .conventions import ARKIT_NAMES
from .edit import SETTINGS
from .errors import DynamicFaceError
from .generator.face_generator import FaceGenerator
from .guides import Guides
from .images import sample_crops
from .io.pictures import read_image, write_image
from .io.priors import save_prior
from .overlay import draw_fit, reprojection_error
from .pipeline import FacePipeline
from .prior.camera import euler_from_rotation
from .prior.geometry import face_crop
from .sheet import contact_sheet
from .skin import SwapLook
from .types import FacePrior, FaceTrack

USER_ERROR = 2
_SHEET_DIALS = ("smile", "laugh", "jaw_open", "brows_up", "anger", "surprise")
_SHEET_ZOOM = 1.4  # of the face crop: the whole head fills a picture
_DEGREES_AT_ONE = 25.0  # what a contact sheet's +1 means for a pose dial


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        if arguments[:1] == ["bench"]:  # its arguments are the benchmarks' own
            return bench.run(arguments[1:])
        options = _parser().parse_args(arguments)
        figures = options.run(options)
    except (DynamicFaceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    print(json.dumps(figures, indent=1) if options.json else _in_words(figures))
    return 0


# --- commands: options in, files written, figures out ------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> dict:
    """Several photos of one person share one identity."""
    desk = Desk(options)
    plate, track, prior = desk.fit(options.images, options.face)
    desk.wrote(options.out, lambda path: save_prior(prior, path))
    if options.overlay:
        strip = torch.cat(list(draw_fit(plate, prior, track, desk.pipe.head)), 1)
        desk.wrote(options.overlay, lambda path: write_image(path, strip, options.bits))
    return desk.figures | {"frames": _frames(options.images, track, prior, desk.pipe)}


def _edit(options: argparse.Namespace) -> dict:
    settings = dict(options.set)
    desk = Desk(options)
    plate, _, prior = desk.fit([options.image], options.face)
    occlusion = _occlusion(options.occlusion, plate, prior, desk.pipe)
    with desk.timed("render"):
        picture, mask = _render(desk, desk.pipe.edit(prior, **settings), occlusion)
    desk.wrote(options.out, lambda path: write_image(path, picture, options.bits))
    if mask.any():
        desk.record("edit", {"plate": [options.image]}, settings, generated=bool(options.generate))
    return desk.figures | {"settings": settings, **_difference(plate, picture, mask)}


def _swap(options: argparse.Namespace) -> dict:
    desk = Desk(options)
    source = desk.load_or_fit(options.source, options.source_face)
    plate, _, target = desk.fit([options.target], options.face)
    occlusion = _occlusion(options.occlusion, plate, target, desk.pipe)
    with desk.timed("render"):
        prior = compose_prior(target, identity=source, identity_weight=options.weight)
        picture, mask = _render(desk, prior, occlusion, source, SwapLook(skin_tone=options.skin_tone, detail=options.detail))
    desk.wrote(options.out, lambda path: write_image(path, picture, options.bits))
    look = {"weight": options.weight, "skin_tone": options.skin_tone, "detail": options.detail}
    if mask.any():
        sources = {"plate": [options.target], "identity": options.source}
        desk.record("swap", sources, look, generated=bool(options.generate))
    likeness = _likeness(desk.pipe, source, target, picture) if options.json else {}
    return desk.figures | _difference(plate, picture, mask) | likeness


def _guides(options: argparse.Namespace) -> dict:
    desk = Desk(options)
    plate, _, prior = desk.fit([options.image], options.face)
    occlusion = _occlusion(options.occlusion, plate, prior, desk.pipe)
    with desk.timed("render"):
        guides = desk.pipe.guides(desk.pipe.edit(prior, **dict(options.set)), options.size, occlusion=occlusion)
    maps = [f.name for f in fields(Guides) if isinstance(value := getattr(guides, f.name), Tensor) and value.dim() >= 3]
    for name in maps:
        picture = getattr(guides, name)
        picture = picture[..., None].expand(-1, -1, -1, 3) if picture.dim() == 3 else picture
        desk.wrote(options.out / f"{name}.png", lambda path, picture=picture: write_image(path, picture, options.bits))
    return desk.figures | {"size": options.size, "plate_to_crop": guides.crop.matrix[0].tolist()}


def _sheet(options: argparse.Namespace) -> dict:
    dials = options.dial or _SHEET_DIALS
    desk = Desk(options)
    _, _, prior = desk.fit([options.image], options.face)
    amounts = torch.linspace(-1, 1, options.steps).tolist()
    matrix = face_crop(prior, options.size, _SHEET_ZOOM).matrix
    rows, captions = [], []
    with desk.timed("render"):
        for dial in dials:
            scale = _DEGREES_AT_ONE if dial in SETTINGS["pose"] else 1.0
            pictures = [desk.pipe.render(desk.pipe.edit(prior, **{dial: scale * amount}))[0] for amount in amounts]
            rows.append([sample_crops(picture, matrix, options.size, padding="zeros")[0].permute(1, 2, 0) for picture in pictures])
            captions.append([f"{dial} {scale * amount:+.3g}" if amount else f"{dial} 0" for amount in amounts])
    desk.wrote(options.out, lambda path: write_image(path, contact_sheet(rows, captions), options.bits))
    changes = {dial: [float((x - row[len(row) // 2]).abs().mean()) for x in row] for dial, row in zip(dials, rows, strict=True)}
    return desk.figures | {"amounts": amounts, "mean_change_from_the_middle": changes}


# --- what these commands share ------------------------------------------------------------------------------------------


def _render(
    desk: Desk, prior: FacePrior, occlusion: Tensor | None, source: FacePrior | None = None, look: SwapLook | None = None
) -> tuple[Tensor, Tensor]:
    """The prior path's picture and mask, refined by the generator where --generate asks for it."""
    if not desk.options.generate:
        return desk.pipe.render(prior, occlusion=occlusion, look=look)
    generator = FaceGenerator.load(desk.options.weights)
    return desk.pipe.generate(
        prior, generator, source=source, occlusion=occlusion, look=look, steps=desk.options.generate, seed=desk.options.seed
    )


def _occlusion(path: Path | None, plate: Tensor, prior: FacePrior, pipe: FacePipeline) -> Tensor | None:
    """(1, H, W) 1 where something is in front of the face, from a black and white picture, or found."""
    if path is None:
        return None
    if str(path) == "find":
        return pipe.occlusion(prior)
    mask = read_image(path).mean(-1).clamp(0, 1).to(plate)
    check_occlusion(mask, plate)
    return mask


def _frames(paths: Sequence[Path], track: FaceTrack, prior: FacePrior, pipe: FacePipeline) -> list[dict]:
    """What the fit found, photo by photo."""
    error = reprojection_error(prior, track, pipe.head).tolist()
    euler = euler_from_rotation(prior.rotation).tolist()
    return [
        {
            "file": str(path),
            "confidence": float(prior.confidence[f]),
            "reprojection_error": error[f],
            **dict(zip(("yaw", "pitch", "roll"), euler[f], strict=True)),
            "gaze_degrees": torch.rad2deg(prior.gaze[f]).tolist(),
            "expression": {n: round(v, 4) for n, v in zip(ARKIT_NAMES, prior.expression[f].tolist(), strict=True) if v > 0.005},
        }
        for f, path in enumerate(paths)
    ]


def _difference(plate: Tensor, picture: Tensor, mask: Tensor) -> dict:
    """How much of a picture changed."""
    change = (picture - plate).abs()
    return {"mask_share": float((mask > 0).float().mean()), "changed_share": float((change > 0).any(-1).float().mean())}


def _likeness(pipe: FacePipeline, source: FacePrior, target: FacePrior, picture: Tensor) -> dict:
    """Cosines of the product's own identity vectors; for an independent judge see the benchmarks."""
    people = {"source": source.identity.embedding, "target": target.identity.embedding, "result": pipe.track(picture).embedding}
    pairs = (("source", "target"), ("source", "result"), ("target", "result"))
    return {"identity_cosine": {f"{a}_{b}": float(people[a] @ people[b]) for a, b in pairs}}


def _in_words(figures: dict) -> str:
    seconds = ", ".join(f"{stage} {value:.2f} s" for stage, value in figures["seconds"].items())
    return "\n".join([*_report_in_words(figures), *(f"wrote {path}" for path in figures["wrote"]), seconds])


def _report_in_words(figures: dict) -> list[str]:
    """A quality report's means and worst frames, a line each."""
    metrics = figures.get("metrics", {}).values()
    lines = [f"{m['label']:<20} {m['mean']:>9.4g} {m['unit']:<10} worst {m['worst']:.4g} in frame {m['worst_frame']}" for m in metrics]
    return [*lines, *(f"{one['meaning']}: {one['value']:.4g}" for one in figures.get("sets", {}).values()), *figures.get("notes", ())]


# --- arguments ----------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m dynamicface", description="Take a face apart, change it, put it back.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    fit = command(commands, "fit", _fit, "fit the 3D prior to photos of one person and save it")
    fit.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="photos of one person, of any sizes; they share one identity")
    fit.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    fit.add_argument("--overlay", type=Path, metavar="PNG", help="the fit drawn over the photos: tracked points green, fitted red")

    edit = command(commands, "edit", _edit, "move dials of a photo")
    edit.add_argument("image", type=Path, metavar="IMAGE")
    edit.add_argument("--out", type=Path, required=True, metavar="PNG")
    _add_dials(edit)
    _add_occlusion(edit)
    _add_generator(edit)
    add_provenance(edit)

    swap = command(commands, "swap", _swap, "put the source's face into the target photo")
    swap.add_argument("--source", nargs="+", type=Path, required=True, metavar="IMAGE", help="photos of one person, or a saved prior")
    swap.add_argument("--target", type=Path, required=True, metavar="IMAGE")
    swap.add_argument("--out", type=Path, required=True, metavar="PNG")
    swap.add_argument("--source-face", type=face, default=face("largest"), metavar="WHICH", help="as --face, for the source photos")
    swap.add_argument("--weight", type=share, default=1.0, help="0 = the target, 1 = the source (default)")
    swap.add_argument("--skin-tone", type=share, default=SwapLook.skin_tone, help="0 = the target's tone, 1 = the source's own")
    swap.add_argument("--detail", type=number, default=SwapLook.detail, help="strength of the source's pores and wrinkles (default 1)")
    _add_occlusion(swap)
    _add_generator(swap)
    add_provenance(swap)

    guides = command(commands, "guides", _guides, "render the attribute maps of a photo")
    guides.add_argument("image", type=Path, metavar="IMAGE")
    guides.add_argument("--out", type=Path, required=True, metavar="DIR")
    guides.add_argument("--size", type=count(64, 4096), default=512, help="side of the maps in pixels (default 512)")
    _add_dials(guides)
    _add_occlusion(guides)

    sheet = command(commands, "sheet", _sheet, "contact sheet of dials from -1 to 1")
    sheet.add_argument("image", type=Path, metavar="IMAGE")
    sheet.add_argument("--out", type=Path, required=True, metavar="PNG")
    sheet.add_argument("--dial", action="append", type=_sheet_dial, metavar="NAME", help="may be repeated (default: six expressions)")
    sheet.add_argument("--steps", type=count(2, 21), default=5, help="pictures per dial (default 5)")
    sheet.add_argument("--size", type=count(64, 2048), default=256, help="side of a picture in pixels (default 256)")

    for module in (bench, export, library, qc, train, video):
        module.register(commands)
    return parser


def _add_dials(parser: argparse.ArgumentParser) -> None:
    names = "; ".join(f"{factor}: {', '.join(n for n in given if n not in ARKIT_NAMES)}" for factor, given in SETTINGS.items())
    text = f"may be repeated. {names}; and the 52 ARKit channels"
    parser.add_argument("--set", action="append", type=_setting, default=[], metavar="DIAL=NUMBER", help=text)


def _add_occlusion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--occlusion",
        type=Path,
        metavar="IMAGE",
        help="white = a hand, hair or prop in front of the face, kept as filmed; the word 'find' looks for them in the picture itself",
    )


def _add_generator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generate", type=count(0, 100), default=0, metavar="STEPS", help="refine with the generator (default 0 = do not)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="generator weights (default: the shipped ones)")
    parser.add_argument("--seed", type=count(0, 2**63 - 1), default=0, help="of the generator's noise (default 0)")


def _setting(text: str) -> tuple[str, float]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"expected DIAL=NUMBER, for example smile=0.8, but found {text!r}")
    return _dial(name.strip()), number(value)


def _dial(name: str, factors: Sequence[str] = tuple(SETTINGS)) -> str:
    known = [n for factor in factors for n in SETTINGS[factor]]
    if name not in known:
        near = get_close_matches(name, known, 2)
        guess = f" (did you mean {' or '.join(near)}?)" * bool(near)
        dials = ", ".join(n for n in known if n not in ARKIT_NAMES)
        raise argparse.ArgumentTypeError(f"no dial is called {name!r}{guess}; there are {dials}, and the 52 ARKit channels")
    return name


def _sheet_dial(name: str) -> str:
    """A dial whose middle is 0: light has no such."""
    return _dial(name, ("expression", "pose", "identity"))
