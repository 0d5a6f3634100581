"""Identity swap against an independent judge, beside the naive prototype, on the same pairs in one run."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack
from dynamicface.images import invert, sample_crops
from dynamicface.prior.camera import euler_from_rotation

from . import peers
from .common import SEED, Figure, Options, Table, command, load, log, spread
from .faces import LIDS, LIPS, chain, degrees_between, in_plate, landmark_error, openings, refit, retrack, rms
from .judge import Judge, distance

PORTRAITS = 200  # candidates among the portraits
FRONTAL = 30.0  # degrees of yaw up to which a portrait may be a source; targets turn as they like
CHILDREN = frozenset(
    {
        *(9, 18, 63, 126, 144, 171, 189, 513, 522, 531, 540, 567, 576, 594, 612, 621, 630, 675, 729, 855, 864, 873, 882, 891, 900),
        *(1359, 1503, 1512, 1692, 1701, 1719, 1737, 1755, 1764, 1773, 1782),
    }
)
"""Portraits among those candidates that show children, by eye: no adult is swapped with them."""
_TWINS = 0.4  # the judge's distance below which two synthetic portraits are taken for the same person drawn twice
COLUMNS = (
    *("", "pairs", "ID-Error %", "to source", "to target", "nearer source %"),
    *("coefficient RMS", "openings %", "lips, lids %", "pose, degrees"),
)


@dataclass(frozen=True)
class Person:
    """A photograph taken apart, and how the judge sees it."""

    path: Path
    plate: Tensor
    track: FaceTrack
    prior: FacePrior
    descriptor: np.ndarray

    @cached_property
    def matrix(self) -> Tensor:
        """(1, 2, 3) plate to the square in which everybody is judged."""
        return peers.own_crop(self.track)


class Album:
    """Photographs as persons, each fitted once."""

    def __init__(self, pipe: FacePipeline, device: str) -> None:
        self.pipe, self.device, self.judge, self.known = pipe, device, Judge(), {}

    def __call__(self, path: Path) -> Person | None:
        """The person in a photograph, None where no face is found."""
        if path not in self.known:
            plate = load(path, self.device)
            track = retrack(self.pipe, plate)
            self.known[path] = track and self._person(path, plate, track)
        return self.known[path]

    def _person(self, path: Path, plate: Tensor, track: FaceTrack) -> Person:
        descriptor = self.describe(plate, peers.own_crop(track), track)
        return Person(path, plate, track, self.pipe.fit(plate, track), descriptor)

    def describe(self, plate: Tensor, matrix: Tensor, track: FaceTrack) -> np.ndarray:
        """The judge's descriptor of a face, cut out the same way for everybody; track: where it is, in the plate."""
        picture = sample_crops(plate[..., :3], matrix, peers.SIZE).permute(0, 2, 3, 1)
        return self.judge.describe(picture[0], _inner_box())


@lru_cache(maxsize=1)
def shared_album(pipe: FacePipeline, device: str) -> Album:
    """The album of this run: several measurements look at the same people."""
    return Album(pipe, device)


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    album = shared_album(pipe, options.device)
    people = [neutral for neutral, _ in options.people()]
    portraits = _distinct([p for p in (album(path) for path in adults(options)) if p])
    count = options.count(200)
    studio = london_pairs(options, count)
    drawn = random.Random(SEED)
    frontal = [p.path for p in portraits if abs(float(euler_from_rotation(p.prior.rotation)[0, 0])) < FRONTAL]
    sources = [drawn.choice(people if i % 2 == 0 else frontal) for i in range(count)]
    targets = [portraits[i * 7 % len(portraits)].path for i in range(count)]
    street = [(s, t) for s, t in zip(sources, targets, strict=True) if s != t]
    gallery = {path: album(path) for path in people}
    tables = compare(album, "london", studio, gallery)
    return tables + compare(album, "london and portraits to portraits", street, gallery | {p.path: p for p in portraits})


def adults(options: Options) -> list[Path]:
    """Portraits of adults among the candidates."""
    return spread([path for path in options.data.faces(PORTRAITS) if int(path.stem) not in CHILDREN], options.limit)


def london_pairs(options: Options, count: int) -> list[tuple[Path, Path]]:
    """Seeded pairs of two people: neutral source; the target is neutral and smiling in turn."""
    drawn, people = random.Random(SEED), options.people()
    pairs = [drawn.sample(people, 2) for _ in range(count)]
    return [(source[0], target[i % 2]) for i, (source, target) in enumerate(pairs)]


def _distinct(portraits: list[Person]) -> list[Person]:
    kept: list[Person] = []
    for person in portraits:
        if all(distance(person.descriptor, other.descriptor) >= _TWINS for other in kept):
            kept.append(person)
    return kept


def compare(album: Album, title: str, pairs: list[tuple[Path, Path]], gallery: dict[Path, Person | None]) -> list[Table]:
    """One row per method over the pairs, and the pairs ours got wrong."""
    known = {path: person for path, person in gallery.items() if person}
    names, faces = list(known), np.stack([person.descriptor for person in known.values()])
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    wrong = []
    for number, (source, target) in enumerate(pairs):
        who, where = album(source), album(target)
        if who is None or where is None:
            continue
        for method, (picture, matrix) in swapped(album.pipe, who, where).items():
            result = judged(album, picture, matrix, who, where)
            nearest = names[int(np.linalg.norm(faces - result.descriptor, axis=1).argmin())]
            found[method].append((float(nearest != source), *result.figures))
            if method == "DynamicFace" and nearest != source:
                wrong.append((f"{source.stem} -> {target.stem}", nearest.stem, *result.figures[:2]))
        log.info("%s %d of %d: %s -> %s", title, number + 1, len(pairs), source.stem, target.stem)
    rows = [(name, len(values), *_summary(values)) for name, values in found.items()]
    tables = [
        Table(
            f"Swap, {title}: {len(found['DynamicFace'])} pairs, gallery of {len(known)} people",
            COLUMNS,
            rows,
            "ID-Error: the judge's nearest person in the gallery is not the source. Distances: the judge's, means. Expression and pose are "
            "tracked and fitted again on the result with the source's shape and compared to the target's fit. Openings: mouth and eyes, "
            "height over width. Lips, lids: mean distance of each outline from the target's, centred, % of the outer-eye distance (two "
            "people differ here even with one expression). No swap: the target itself, fitted with the source's shape.",
            _figures(title, rows, len(known)),
        )
    ]
    if wrong:
        tables.append(Table(f"Taken for somebody else, {title}", ("pair", "nearest", "to source", "to target"), wrong))
    return tables


def _figures(title: str, rows: list[tuple], people: int) -> tuple[Figure, ...]:
    """What must not get worse."""
    ours = dict(zip(COLUMNS, next(row for row in rows if row[0] == "DynamicFace"), strict=True))
    end, data = "" if title == "london" else "_wild", f"{title}, {ours['pairs']} pairs, gallery of {people}"
    kept = (("id_error", "ID-Error %", "%"), ("to_source", "to source", "distance"), ("expression", "coefficient RMS", "RMS"))
    return tuple(Figure(f"swap.{key}{end}", float(ours[column]), unit, "lower", data) for key, column, unit in kept)


def swapped(pipe: FacePipeline, who: Person, where: Person) -> dict[str, tuple[Tensor, Tensor]]:
    """Each method's picture (1, H, W, 3) with the matrix from the target's plate to it."""
    same = torch.eye(2, 3, device=where.plate.device)[None]
    naive, matrix = peers.swap_face(who.plate, who.track, where.plate, where.track, pipe.head)
    return {"no swap": (where.plate, same), "prototype": (naive[None], matrix), "DynamicFace": (pipe.swap(who.prior, where.prior)[0], same)}


@dataclass(frozen=True)
class Result:
    """A swap as the judge and the tracker see it."""

    descriptor: np.ndarray
    figures: tuple[float, ...]  # distance to source, to target, nearer the source, coefficient RMS, openings, lips and lids, pose


def judged(album: Album, picture: Tensor, matrix: Tensor, who: Person, where: Person) -> Result:
    """Measure one result; what cannot be tracked any more counts as not a number."""
    picture = sample_crops(picture[..., :3], chain(invert(matrix), where.matrix), peers.SIZE).permute(0, 2, 3, 1)
    descriptor = album.judge.describe(picture[0], _inner_box())
    to_source, to_target = distance(descriptor, who.descriptor), distance(descriptor, where.descriptor)
    figures = (to_source, to_target, float(to_source < to_target))
    track = retrack(album.pipe, picture)
    if track is None:
        return Result(descriptor, (*figures, *[float("nan")] * 4))
    track = in_plate(track, where.matrix, where.prior.image_size)
    fit = refit(album.pipe.head, track, who.prior.identity.shape)
    return Result(
        descriptor,
        (
            *figures,
            rms(fit.expression[0] - where.prior.expression),
            100 * rms(openings(track.landmarks[0]) - openings(where.track.landmarks[0])),
            landmark_error(track.landmarks[0], where.track.landmarks[0], LIPS, LIDS[:16], LIDS[16:], centred=True),
            float(degrees_between(fit.rotation[0, 0], where.prior.rotation[0])),
        ),
    )


def _inner_box() -> Tensor:
    """Where the face is in the square everybody is judged in, for a judge that does not find it."""
    margin = peers.SIZE * (1 - 1 / 1.8) / 2
    return torch.tensor([margin, margin, peers.SIZE - margin, peers.SIZE - margin])


def _summary(values: list[tuple[float, ...]]) -> tuple[float, ...]:
    error, source, target, nearer, *rest = (np.nanmean(column) for column in zip(*values, strict=True))
    return 100 * error, source, target, 100 * nearer, *rest


def main(argv: list[str] | None = None) -> None:
    command("Swap", measure, argv)


if __name__ == "__main__":
    main()
