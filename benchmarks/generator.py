"""The embedded generator against the prior path alone and against no edit, on the same faces in one run, over numbers of steps.

python -m benchmarks.generator --weights FILE.safetensors --sheet PNG     (without --weights: the weights that ship)

The faces were never trained on: london altogether, and of the portraits every ninth (`training.data.HELD_OUT_EVERY`).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dynamicface import FacePipeline, FacePrior
from dynamicface.compose import compose_prior
from dynamicface.errors import WeightsError
from dynamicface.generator.face_generator import FaceGenerator
from dynamicface.generator.sampling import sample
from dynamicface.generator.steering import SIZE, ZOOM
from dynamicface.guiders import GUIDERS
from dynamicface.guides import render_guides
from dynamicface.images import sample_crops
from dynamicface.io.pictures import write_image
from dynamicface.metrics.frechet import face_feature_frechet
from dynamicface.metrics.ssim import ssim
from dynamicface.paste import paste_back
from dynamicface.prior.camera import euler_from_rotation
from dynamicface.prior.geometry import face_crop
from dynamicface.sheet import contact_sheet
from dynamicface.streams import Mixture
from dynamicface.training.data import HELD_OUT_EVERY
from dynamicface.training.views import KINDS, Sample, ViewMaker

from . import expression, swap
from .common import SEED, Data, Options, SkippedError, Table, arguments, load, log, machine, prepare, run, write_json
from .faces import OVAL as FACE_OVAL
from .faces import feature_distance, frame_matrix, framed, polygon, retrack
from .judge import Judge

PARTS = ("rebuilt", "smiles", "swaps")
STEPS, QUICK_STEPS = (1, 2, 4, 8), (1,)
PLAIN, _PLAIN_STEPS = "plain image to image", 4
_SHEET = 32  # edits, and as many swaps
_TILE, _TILE_ZOOM = 256, 1.3


@dataclass(frozen=True)
class Bench:
    """What is measured with: the pipeline, the generator at some numbers of steps, and the sheet in the making."""

    pipe: FacePipeline
    generator: FaceGenerator
    options: Options
    steps: tuple[int, ...] = STEPS
    album: list[tuple[list[Tensor], list[str]]] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The number of steps the sheet shows: two, or the nearest."""
        return _steps(min(self.steps, key=lambda n: abs(n - 2)))

    def methods(self, goal: FacePrior, plate: Tensor, nothing: str, source: FacePrior | None = None) -> dict[str, Tensor]:
        """The plate, the prior path's picture, and the generator's for each number of steps, all (1, H, W, 3)."""
        composed = self.pipe.render(goal)[0]
        refined = {_steps(n): self.generator.render(goal, self.pipe.head, composed, source=source, steps=n)[0] for n in self.steps}
        return {nothing: plate, "prior path": composed, PLAIN: self.plain(goal, composed), **refined}

    def plain(self, goal: FacePrior, composed: Tensor) -> Tensor:
        """Image to image with diffusers' sampler: the same network and crop, half the noise, no guiders and no streams.

        The network still sees the composite beside the noise, as it was trained to.
        """
        guides = render_guides(goal, self.pipe.head, SIZE, zoom=ZOOM, composed=composed)
        options = {"steps": _PLAIN_STEPS, "denoise": 0.5, "scheduler": FlowMatchEulerDiscreteScheduler()}
        new = self.generator.refine(guides, mixture=Mixture(()), **options)
        return paste_back(composed, new, guides.mask, guides.crop, base=guides.composite.clamp(0, 1))[0]

    @torch.inference_mode()
    def vector(self, frames: Tensor) -> Tensor:
        """The identity net's unit vector (1024,) of a face in the frame of comparison (1, 3, S, S)."""
        return F.normalize(self.pipe.perception.identity(frames), dim=-1)[0]

    def show(self, row: str, name: str, picture: Tensor, prior: FacePrior) -> None:
        """Put a tile into the row of its face."""
        matrix = face_crop(prior.filmed, _TILE, _TILE_ZOOM).matrix
        if not self.album or self.album[-1][1][0] != row:
            self.album.append(([], [row]))
        tiles, captions = self.album[-1]
        if tiles:
            captions.append(name)
        tiles.append(sample_crops(picture[..., :3], matrix, _TILE)[0].permute(1, 2, 0))


def measure(
    pipe: FacePipeline,
    options: Options,
    parts: Sequence[str] = PARTS,
    weights: Path | None = None,
    sheet: Path | None = None,
    steps: Sequence[int] = STEPS,
) -> list[Table]:
    try:
        generator = FaceGenerator.load(weights, options.device)
    except WeightsError as reason:
        raise SkippedError(str(reason)) from reason
    if options.quick:  # one of each: its three parts are the dearest here
        options, steps = replace(options, limit=1), QUICK_STEPS
    bench = Bench(pipe, generator, options, tuple(steps))
    tables = [table for part in parts for table in {"rebuilt": rebuilt, "smiles": smiles, "swaps": swaps}[part](bench)]
    if sheet and bench.album:
        write_image(sheet, contact_sheet(*zip(*bench.album, strict=True)))
    return tables


# Held-out portraits rebuilt from another view


def rebuilt(bench: Bench) -> list[Table]:
    """Portraits rebuilt from another view of the person, as in training, by kind of view."""
    maker, found, options = ViewMaker(bench.pipe, SEED), defaultdict(list), bench.options
    photos = options.data.faces()[::HELD_OUT_EVERY]
    photos = photos[:: max(len(photos) // options.count(len(photos)), 1)]
    for number, path in enumerate(photos):
        for one in maker(load(path, options.device)):
            for method, figures in _rebuilt(bench, one).items():
                found[KINDS[int(one["kind"])], method].append(figures)
        log.info("rebuilt %d of %d", number + 1, len(photos))
    rows = []
    for (kind, method), values in sorted(found.items(), key=lambda item: (KINDS.index(item[0][0]), list(found).index(item[0]))):
        *figures, mine, truth = zip(*values, strict=True)
        rows.append((kind, method, len(values), *map(float, np.mean(figures, 1)), _frechet(mine, truth)))
    table = Table(
        f"{len(photos)} held-out portraits rebuilt from another view, against the photograph",
        ("view", "", "samples", "SSIM", "PSNR, dB", "feature distance", "identity cosine", "Fréchet"),
        rows,
        "Views as in training (`training/views.py`): an edit undone (expression; mixed: pose, light), or a stranger's face replaced by "
        "the person's, seen mirrored and edited. SSIM and PSNR inside the mask. Feature distance, cosine and Fréchet distance (x 100) by "
        "the product's identity net, which is also one of the training losses.",
    )
    return [table]


@torch.inference_mode()
def _rebuilt(bench: Bench, stored: Sample) -> dict[str, tuple]:
    net = bench.generator.network
    pictures = {name: stored[name][None].float() / 255 for name in ("target", "composite", "reference", "mask", *GUIDERS)}
    side = pictures["target"].shape[-1]
    guides = {name: F.interpolate(pictures[name], (side, side), mode="bilinear") for name in GUIDERS}
    vectors = [stored[name][None].float() for name in ("embedding", "shape")]
    conditions = net.condition(guides, None, *vectors, pictures["reference"] * 2 - 1)
    composite, mask, truth = pictures["composite"], pictures["mask"], pictures["target"]
    methods = {"prior path": composite}
    for steps in bench.steps:
        new = sample(net, composite * 2 - 1, mask, conditions, steps=steps) / 2 + 0.5
        methods[_steps(steps)] = (composite + mask * (new - composite)).clamp(0, 1)
    landmarks = stored["landmarks"].float()
    frame = frame_matrix(landmarks)
    inside = polygon(landmarks @ frame[0, :, :2].mT + frame[0, :, 2], FACE_OVAL)
    real = framed(truth.permute(0, 2, 3, 1), frame)
    known = bench.vector(real)
    out = {}
    for name, picture in methods.items():
        mine = framed(picture.permute(0, 2, 3, 1), frame)
        vector = bench.vector(mine)
        similar = float(ssim(picture.movedim(1, -1), truth.movedim(1, -1), mask[:, 0]))
        error = float(((picture - truth).square() * mask).sum() / (3 * mask.sum()))
        distance = feature_distance(bench.pipe.perception.identity, mine, real, inside)
        out[name] = (similar, _decibel(error), distance, float(vector @ known), vector, known)
    return out


# Real expressions of real people


def smiles(bench: Bench) -> list[Table]:
    """Neutral photographs made to smile like their smiling ones, and the other way round."""
    pipe, options, judge, found = bench.pipe, bench.options, Judge(), defaultdict(list)
    people = options.data.london(options.count(70))
    for number, pair in enumerate(people):
        for direction, (filmed, wished) in {"neutral to smile": pair, "smile to neutral": pair[::-1]}.items():
            shown = direction == "neutral to smile" and number < _SHEET
            plate, real = load(filmed, options.device), load(wished, options.device)
            track, wanted = retrack(pipe, plate), retrack(pipe, real)
            prior = pipe.fit(plate, track)
            comparison = expression._Comparison(pipe, judge, prior, track, real, wanted)
            goal = prior.replace(expression=comparison.target.expression[0], gaze=comparison.target.gaze[0])
            same = torch.eye(2, 3, device=plate.device)[None]
            truth = bench.vector(comparison.real)
            for name, picture in bench.methods(goal, plate, "no edit").items():
                small = framed(picture, comparison.frame)
                error = float((small - comparison.real).square().mean(1)[0, torch.from_numpy(comparison.face)].mean())
                found[direction, name].append((*comparison(picture, same), _decibel(error), bench.vector(small), truth))
                if shown and name in ("no edit", "prior path", bench.shown):
                    bench.show(filmed.stem, name, picture, prior)
            if shown:
                bench.show(filmed.stem, "the photograph", real, pipe.fit(real, wanted))
        log.info("smile %d of %d", number + 1, len(people))
    return [_smile_table(direction, found) for direction in ("neutral to smile", "smile to neutral")]


def _smile_table(direction: str, found: dict) -> Table:
    rows = []
    for (which, method), values in found.items():
        if which == direction:
            *figures, mine, truth = zip(*values, strict=True)
            rows.append((method, *map(float, np.nanmean(figures, 1)), _frechet(mine, truth)))
    return Table(
        f"{direction.capitalize()}, real photographs; means of {len(values)} people",
        ("", *expression.METRICS, "PSNR, dB", "Fréchet"),
        rows,
        "As in the expression measurement (`benchmarks/expression.py`): aligned by eye corners and nose, the smile's coefficients as they "
        "were fitted to the real photograph. PSNR inside the face. Fréchet distance (x 100) between the sets of results and photographs.",
    )


# Swaps


def swaps(bench: Bench) -> list[Table]:
    """Swaps among the people of london, and of london and portraits onto portraits that turn and are lit as they like."""
    options = bench.options
    known = swap.shared_album(bench.pipe, options.device)
    people = [neutral for neutral, _ in options.people()]
    portraits = [path for path in swap.adults(options) if known(path)]
    count, drawn = options.count(100), random.Random(SEED)
    studio = swap.london_pairs(options, count)
    frontal = [p for p in portraits if abs(float(euler_from_rotation(known(p).prior.rotation)[0, 0])) < swap.FRONTAL]
    sources = [drawn.choice(people if i % 2 == 0 else frontal) for i in range(count)]
    street = [(s, portraits[i * 7 % len(portraits)]) for i, s in enumerate(sources) if s != portraits[i * 7 % len(portraits)]]
    gallery = {"london": people, "london and portraits to portraits": people + portraits}
    return [
        _swap_table(bench, known, title, pairs, gallery[title])
        for title, pairs in (("london", studio), ("london and portraits to portraits", street))
    ]


def _swap_table(bench: Bench, known: swap.Album, title: str, pairs: list[tuple[Path, Path]], gallery: list[Path]) -> Table:
    people = {path: known(path) for path in gallery if known(path)}
    names, faces, found = list(people), np.stack([p.descriptor for p in people.values()]), defaultdict(list)
    for number, (source, target) in enumerate(pairs):
        who, where = known(source), known(target)
        goal = compose_prior(where.prior, identity=who.prior)
        same = torch.eye(2, 3, device=where.plate.device)[None]
        seen = bench.vector(framed(who.plate, frame_matrix(who.track.landmarks[0])))
        for name, picture in bench.methods(goal, where.plate, "no swap", source=who.prior).items():
            result = swap.judged(known, picture, same, who, where)
            nearest = names[int(np.linalg.norm(faces - result.descriptor, axis=1).argmin())]
            vector = bench.vector(framed(picture, frame_matrix(where.track.landmarks[0])))
            found[name].append((100 * float(nearest != source), *result.figures, float(vector @ seen), vector, seen))
            if number < _SHEET // 2 and name in ("no swap", "prior path", bench.shown):
                bench.show(f"{source.stem} -> {target.stem}", name, picture, where.prior)
        if number < _SHEET // 2:
            bench.show(f"{source.stem} -> {target.stem}", "source", who.plate, who.prior)
        log.info("swap %s %d of %d", title, number + 1, len(pairs))
    rows = []
    for method, values in found.items():
        *figures, mine, truth = zip(*values, strict=True)
        error, near, far, nearer, *rest, cosine = map(float, np.nanmean(figures, 1))
        frechet = _frechet(mine, truth)
        rows.append((method, len(values), error, near, far, 100 * nearer, *rest, cosine, frechet))
    return Table(
        f"Swap, {title}: {len(pairs)} pairs, gallery of {len(names)} people",
        (*swap.COLUMNS, "identity cosine", "Fréchet"),
        rows,
        "As in the swap measurement (`benchmarks/swap.py`); the judge is dlib's descriptor, which shares nothing with the product. "
        "Identity cosine to the source and Fréchet distance (x 100) between results and sources by the product's identity net.",
    )


def _steps(count: int) -> str:
    return f"generator, {count} step{'s' if count > 1 else ''}"


def _frechet(mine: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Between two sets of unit vectors, x 100; not a number for a single face."""
    return face_feature_frechet(torch.stack(list(mine)), torch.stack(list(truth))) if len(mine) > 1 else float("nan")


def _decibel(error: float) -> float:
    return -10 * float(np.log10(max(error, 1e-10)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a generator's weight file (default: the one that ships)")
    parser.add_argument("--sheet", type=Path, help="also draw the first 64 results: filmed, prior path, generator, truth or source")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="numbers of sampling steps (default 1 2 4 8)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which measurements (default all)")
    args = parser.parse_args(argv)
    prepare()

    def measured(pipe: FacePipeline, options: Options) -> list[Table]:
        return measure(pipe, options, args.parts, args.weights, args.sheet, args.steps)

    report = run("Generator", measured, FacePipeline.load(args.device), Options(Data(args.data), args.limit, args.device))
    print(f"{machine(args.device)}\n\n{report.markdown()}")
    if args.json:
        write_json(args.json, [report], args.device)


if __name__ == "__main__":
    main()
