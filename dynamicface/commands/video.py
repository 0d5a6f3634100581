"""python -m dynamicface video: swap or edit the face of a whole clip, from file to file, in constant memory."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

from ..compose import compose_prior
from ..edit import SETTINGS
from ..errors import DynamicFaceError, WeightsError
from ..io.clips import Clip
from ..io.priors import load_prior, save_prior
from ..prior.camera import euler_from_rotation
from ..prior.temporal import fade_bad_frames, hold_bad_frames, smooth_prior
from ..shots import composite_shot, fit_shot
from ..skin import SwapLook
from ..types import FacePrior, Filmed
from .common import Desk, add_provenance, command, count, face, number, share

_BAD = 0.3  # confidence


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = command(commands, "video", _video, "change the face of a clip: another person, an expression, a pose, a light")
    parser.add_argument("--target", type=Path, required=True, metavar="CLIP", help="the clip to work on")
    parser.add_argument("--out", type=Path, required=True, metavar="CLIP", help=".mp4, .mov, .mkv or .webm")
    parser.add_argument("--source", nargs="+", type=Path, metavar="IMAGE", help="photos of the person who shall appear, or a saved prior")
    parser.add_argument("--source-face", type=face, default=face("largest"), metavar="WHICH", help="as --face, for the source photos")
    parser.add_argument("--weight", type=share, default=1.0, help="of the source: 0 = the target, 1 = the source (default)")
    parser.add_argument("--skin-tone", type=share, default=SwapLook.skin_tone, help="0 = the target's tone, 1 = the source's own")
    parser.add_argument("--set", action="append", type=_setting, default=[], metavar="DIAL=NUMBER", help="as in edit; may be repeated")
    parser.add_argument("--smoothing", type=share, default=0.5, help="of the fit over time: 0 = as found in each frame (default 0.5)")
    parser.add_argument("--hold", type=count(0, 100000), default=12, metavar="FRAMES", help="bad stretches up to so long are bridged")
    parser.add_argument("--fade", type=count(0, 1000), default=6, metavar="FRAMES", help="over which longer ones fade to the plate")
    parser.add_argument(
        "--occlusion", type=Path, metavar="CLIP", help="a roto, or one picture: white = in front of the face, kept as filmed"
    )
    parser.add_argument(
        "--find-occlusions", action="store_true", help="look for hands, microphones, hair in front of the face, and keep them"
    )
    parser.add_argument("--codec", metavar="NAME", help="h264, hevc, prores, ffv1, vp9, av1 (default: the clip's own where possible)")
    add_provenance(parser)
    parser.add_argument("--fresh", action="store_true", help="track and fit anew even where an earlier run left its fit beside --out")


def _video(options: argparse.Namespace) -> dict:
    """The fit is kept beside the result while the clip is composited, so that a run that was stopped goes on from there."""
    if options.out.resolve() == options.target.resolve():
        raise DynamicFaceError("--out is the clip itself; give the result another name.")
    desk = Desk(options)
    source = desk.load_or_fit(options.source, options.source_face) if options.source else None
    with desk.timed("open"):
        clip = Clip(options.target, options.device)
    fit = options.out.with_suffix(".fit.safetensors")
    raw = None if options.fresh else _resumed(fit, clip, options)
    resumed = raw is not None
    if raw is None:
        with desk.timed("track and fit"):
            choice = {"threshold": options.threshold, "find_occlusions": options.find_occlusions, **options.face}
            raw = fit_shot(clip, desk.pipe.perception, desk.pipe.head, smoothing=0.0, progress=_bar("track and fit"), **choice)[1]
        save_prior(raw.filmed.replace(background=None), fit)
        fit.with_suffix(".json").write_text(json.dumps(_key(clip, options)))
    bad = (raw.confidence < _BAD).nonzero().flatten().tolist()
    prior = smooth_prior(raw, desk.pipe.head, options.smoothing)
    prior = fade_bad_frames(hold_bad_frames(prior, _BAD, options.hold), _BAD, options.fade)
    edited = desk.pipe.edit(prior, **dict(options.set))
    if source is not None:
        edited = compose_prior(edited, identity=source, identity_weight=options.weight)
    with desk.timed("composite"):
        more = {"look": SwapLook(skin_tone=options.skin_tone), "codec": options.codec, "progress": _bar("composite")}
        roto = Clip(options.occlusion, options.device) if options.occlusion else None
        hide = {"occlusion": roto, "find_occlusions": options.find_occlusions}
        changed = composite_shot(edited, desk.pipe.perception, desk.pipe.head, options.out, **hide, **more)
    desk.written.append(str(options.out))
    if changed > 0:
        desk.record(*_made(options))
    for path in (fit, fit.with_suffix(".json")):
        path.unlink(missing_ok=True)
    euler = euler_from_rotation(prior.rotation)
    return desk.figures | {
        "frames": len(clip),
        "size": [clip.size[1], clip.size[0]],
        "frame_rate": float(clip.rate),
        "resumed": resumed,
        "shots": 1 if prior.cuts is None else 1 + int(prior.cuts.sum()),
        "changed_share": changed,
        "bad_frames": bad,
        "confidence": [round(c, 3) for c in prior.confidence.tolist()],
        "yaw_pitch_roll": [[round(a, 2) for a in row] for row in euler.tolist()],
    }


def _made(options: argparse.Namespace) -> tuple[str, dict, dict]:
    """Action, sources and settings for the record."""
    sources = {"plate": [options.target], "identity": options.source or [], "occlusion": [options.occlusion] if options.occlusion else []}
    settings = dict(options.set) | {name: getattr(options, name) for name in ("weight", "skin_tone", "smoothing", "hold", "fade")}
    return "swap" if options.source else "edit", sources, settings


def _key(clip: Clip, options: argparse.Namespace) -> dict:
    """What a fit depends on."""
    state = Path(clip.path).stat()
    with Path(clip.path).open("rb") as file:
        head = hashlib.sha256(file.read(1 << 20)).hexdigest()
    chosen = {name: getattr(options, name) for name in ("face", "threshold", "find_occlusions")}
    return {"size": state.st_size, "sha256_of_first_mebibyte": head, **chosen}


def _resumed(fit: Path, clip: Clip, options: argparse.Namespace) -> FacePrior | None:
    """The fit an earlier run left, if it is of this clip and these options."""
    try:
        if json.loads(fit.with_suffix(".json").read_text()) != _key(clip, options):
            return None
        prior = load_prior(fit, options.device)
    except (OSError, ValueError, WeightsError):
        return None
    return prior.replace(background=Filmed(clip, prior)) if len(prior) == len(clip) else None


def _bar(stage: str):
    """Progress on the error stream, once a second, where somebody watches."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if sys.stderr.isatty() and (time.monotonic() - last > 1 or done == total):
            last = time.monotonic()
            print(f"\r{stage}: {done} of {total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return report


def _setting(text: str) -> tuple[str, float]:
    name, sign, value = text.partition("=")
    known = [n for names in SETTINGS.values() for n in names]
    if not sign or name.strip() not in known:
        raise argparse.ArgumentTypeError(f"expected DIAL=NUMBER with one of the dials {', '.join(known)}, but found {text!r}")
    return name.strip(), number(value)
