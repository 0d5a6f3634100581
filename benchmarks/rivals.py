"""The product side by side with methods that need no more than it does, on the same pictures in one run (`peers.py` says what they are).

Swaps between people, a neutral face made to smile, and the pose of renders whose pose is known. LPIPS and FID are added where the data's
folder networks/ holds their files (`dynamicface/metrics/lpips.py` and `fid.py` say how to make them).
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynamicface import FacePipeline, NoFaceError, WeightsError
from dynamicface.images import invert, sample_crops
from dynamicface.metrics import face_feature_frechet, rotation_degrees
from dynamicface.metrics.fid import InceptionFeatures, fid
from dynamicface.metrics.lpips import FILE as LPIPS_FILE
from dynamicface.metrics.lpips import Lpips
from dynamicface.perception.identity import IdentityNet, identity_matrix
from dynamicface.prior.geometry import face_crop
from dynamicface.render import render_prior

from . import peers
from .common import SEED, Figure, Options, SkippedError, Table, command, load, log
from .expression import METRICS as SMILE_METRICS
from .expression import _Comparison
from .faces import chain, framed, in_plate, refit, retrack
from .judge import Judge
from .swap import Person, judged, shared_album
from .synthetic import SIZE as RENDER
from .synthetic import random_face

PAIRS, SMILES, RENDERS = 40, 20, 40
_FEW = 30  # pictures below which a Fréchet distance of 1,024 features says nothing about one method alone
OURS, MESH = "DynamicFace", "head mesh, Poisson cloning"
_SHOWN = ("mouth SSIM", "face SSIM", "identity cosine", "coefficient RMS")


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    tables = []
    for part in (swaps, smiles, poses):
        try:
            tables.append(part(pipe, options))
        except SkippedError as reason:
            tables.append(Table(part.__doc__.splitlines()[0], ("not measured",), [(str(reason),)]))
    return tables


def swaps(pipe: FacePipeline, options: Options) -> Table:
    """Swaps by every method on the same pairs."""
    album = shared_album(pipe, options.device)
    people = [person for path in _people(options) if (person := album(path))]
    drawn = random.Random(SEED)
    pairs = [drawn.sample(range(len(people)), 2) for _ in range(options.count(PAIRS))]
    faces = np.stack([person.descriptor for person in people])
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    features: dict[str, list[Tensor]] = defaultdict(list)
    looks: dict[str, list[Tensor]] = defaultdict(list)
    inception = _network(InceptionFeatures.load, options)
    for number, (source, target) in enumerate(pairs):
        who, where = people[source], people[target]
        for name, swap in _swappers(pipe).items():
            started = time.perf_counter()
            picture, matrix = swap(who, where)
            seconds = time.perf_counter() - started
            result = judged(album, picture, matrix, who, where)
            nearest = int(np.linalg.norm(faces - result.descriptor, axis=1).argmin())
            found[name].append((100 * float(nearest != source), *result.figures, 1e3 * seconds))
            features[name].append(_embedded(pipe, picture, matrix, where))
            if inception is not None:
                looks[name].append(inception(_cut(picture, matrix, where)))
        features["real"].append(_embedded(pipe, who.plate, torch.eye(2, 3)[None].to(who.plate), who))
        if inception is not None:
            looks["real"].append(inception(_cut(who.plate, torch.eye(2, 3)[None].to(who.plate), who)))
        log.info("rivals, swap %d of %d", number + 1, len(pairs))
    distance = {name: face_feature_frechet(torch.cat(values), torch.cat(features["real"])) for name, values in features.items()}
    rows = []
    for name, values in found.items():
        error, near, far, _, coefficients, _, lips, pose, ms = map(float, np.nanmean(np.array(values), 0))
        look = fid(torch.cat(looks[name]), torch.cat(looks["real"])) if looks else ""
        rows.append((name, len(values), error, near, far, coefficients, lips, pose, distance[name], look, ms))
    columns = ("method", "pairs", "ID-Error %", "to source", "to target", "expression RMS", "lips, lids %", "pose, degrees")
    note = (
        f"Gallery of {len(people)} people, independent judge (dlib). Distances of the judge: means, below 0.6 is the same person. "
        "Expression and pose: found and fitted anew, against the target's. Face-feature Fréchet distance to the source photographs: the "
        "product's identity net, no FID; with so few pictures it only ranks methods within this table. FID: with the user's Inception "
        "file. Milliseconds: our swap alone, and the others' whole work, on faces already tracked (and, ours, fitted)."
    )
    data = f"{len(pairs)} pairs, {len(people)} people"
    figures, missing = [Figure("rivals.id_error", rows[0][2], "%", "lower", data)], {}
    if len(pairs) >= _FEW:
        figures.append(Figure("rivals.frechet_ratio", distance[OURS] / distance[MESH], "times", "lower", data))
    else:
        missing["rivals.frechet_ratio"] = f"{len(pairs)} pairs; it means something from {_FEW} on"
    return Table("Swaps", (*columns, "face-feature Fréchet", "FID", "ms"), rows, note, tuple(figures), missing)


def smiles(pipe: FacePipeline, options: Options) -> Table:
    """Neutral photographs made to smile as the person really did; the flow is somebody else's."""
    judge, lpips = Judge(), _network(Lpips.load, options)
    photos = options.data.london(options.count(SMILES) + 1)
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for number, (neutral, smile) in enumerate(photos[:-1]):
        plate, real, rest, grin = (load(path, options.device) for path in (neutral, smile, *photos[number + 1]))
        track, wanted, rest_track, grin_track = (retrack(pipe, picture) for picture in (plate, real, rest, grin))
        if None in (track, wanted, rest_track, grin_track):
            continue
        prior = pipe.fit(plate, track)
        comparison = _Comparison(pipe, judge, prior, track, real, wanted)
        fit, same = comparison.target, torch.eye(2, 3, device=plate.device)[None]
        warped, crop = peers.warp_expression(plate, track, wanted, pipe.head)
        flowed, _ = peers.flow_expression(plate, track, rest, rest_track, grin, grin_track)
        methods = {
            "no edit": (plate, same),
            OURS: (pipe.render(prior.replace(expression=fit.expression[0], gaze=fit.gaze[0]))[0], same),
            "head mesh, dense warp": (warped[None], crop),
            "optical flow of another's smile": (flowed[None], crop),
        }
        for name, (picture, matrix) in methods.items():
            values = dict(zip(SMILE_METRICS, comparison(picture, matrix), strict=True))
            look = np.nan
            if lpips is not None:
                small = framed(picture, chain(invert(matrix), comparison.frame))
                look = float(lpips(small.permute(0, 2, 3, 1), comparison.real.permute(0, 2, 3, 1)))
            found[name].append((*(values[name] for name in _SHOWN), look))
        log.info("rivals, smile %d of %d", number + 1, len(photos) - 1)
    rows = [(name, len(values), *map(float, np.nanmean(np.array(values), 0))) for name, values in found.items()]
    rows = [(*row[:-1], "" if np.isnan(row[-1]) else row[-1]) for row in rows]
    note = "Against the person's own smiling photograph, aligned by eye corners and nose. LPIPS: with the user's AlexNet file."
    figures, missing = (), {"rivals.lpips_ratio": f"there is no {LPIPS_FILE} in the data folder's networks/, and it may not ship"}
    if lpips is not None:
        by_name = {row[0]: row[-1] for row in rows}
        ratio = by_name[OURS] / by_name["head mesh, dense warp"]
        figures, missing = (Figure("rivals.lpips_ratio", ratio, "times", "lower", f"neutral to smile, {rows[0][1]} people"),), {}
    return Table("A neutral photograph made to smile", ("method", "people", *_SHOWN, "LPIPS"), rows, note, figures, missing)


def poses(pipe: FacePipeline, options: Options) -> Table:
    """Head pose from the same landmarks of the same renders."""
    drawn = torch.Generator().manual_seed(SEED)
    errors = []
    for truth in (random_face(pipe.head, drawn) for _ in range(options.count(RENDERS))):
        picture = render_prior(truth, pipe.head, RENDER).clamp(0, 1).to(options.device)
        try:
            track = in_plate(pipe.track(picture), face_crop(truth, RENDER).matrix, truth.image_size)
        except NoFaceError:
            continue
        fit = pipe.fit(torch.zeros(1, *truth.image_size, 3), track, texture_size=0, focal=truth.focal)
        held = refit(pipe.head, track, truth.identity.shape)
        pnp = peers.pose_pnp(track, pipe.head, float(truth.focal))
        errors.append([float(rotation_degrees(rotation, truth.rotation[0])) for rotation in (fit.rotation[0], held.rotation[0, 0], pnp)])
    names = (OURS, f"{OURS}, shape known", "PnP on the mean head")
    rows = [(name, len(errors), float(np.median(e)), float(np.quantile(e, 0.9))) for name, e in zip(names, np.array(errors).T, strict=True)]
    note = "Bald renders of the head model, yaw up to 35 degrees, with expression, through the landmark net; focal length known."
    figure = Figure("rivals.pose", rows[0][2], "degrees", "lower", f"{len(errors)} renders")
    return Table("Head pose of renders", ("method", "faces", "median, degrees", "90th percentile"), rows, note, (figure,))


def _people(options: Options) -> Sequence[Path]:
    """A photograph of each of several people."""
    try:
        return [neutral for neutral, _ in options.people()]
    except SkippedError:
        return options.data.portraits()


def _swappers(pipe: FacePipeline) -> dict[str, Callable[[Person, Person], tuple[Tensor, Tensor]]]:
    """Each method: picture (1, H, W, 3) and the matrix from the target's plate to it."""

    def crop(swap: Callable, *more: object) -> Callable[[Person, Person], tuple[Tensor, Tensor]]:
        def run(who: Person, where: Person) -> tuple[Tensor, Tensor]:
            picture, matrix = swap(who.plate, who.track, where.plate, where.track, *more)
            return picture[None], matrix

        return run

    return {
        OURS: lambda who, where: (pipe.swap(who.prior, where.prior)[0], torch.eye(2, 3, device=where.plate.device)[None]),
        MESH: crop(peers.swap_face, pipe.head),
        "468 landmarks, piecewise affine, Poisson cloning": crop(peers.swap_piecewise),
        "68 landmarks, affine, Poisson cloning": crop(peers.swap_affine),
    }


def _embedded(pipe: FacePipeline, picture: Tensor, matrix: Tensor, where: Person) -> Tensor:
    """(1, 1024) unit identity vector of a face at its place in the plate; matrix: plate to picture."""
    cut = chain(invert(matrix), identity_matrix(where.track.landmarks))
    crop = sample_crops(picture[..., :3].to(where.plate), cut, IdentityNet.size)
    return torch.nn.functional.normalize(pipe.perception.identity(crop), dim=-1)


def _cut(picture: Tensor, matrix: Tensor, where: Person) -> Tensor:
    """The square everybody is judged in, (1, S, S, 3)."""
    return sample_crops(picture[..., :3], chain(invert(matrix), where.matrix), peers.SIZE).permute(0, 2, 3, 1)


def _network(read: Callable, options: Options) -> torch.nn.Module | None:
    """A judging network of the user's, None where there is none."""
    try:
        return read(options.data.root / "networks").to(options.device)
    except WeightsError as reason:
        log.info("%s", reason)
        return None


def main(argv: list[str] | None = None) -> None:
    command("Side by side with simple methods", measure, argv)


if __name__ == "__main__":
    main()
