"""Fit of photographs: how well the head meets the landmarks, where it fails and why, and what the parts say about who it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack
from dynamicface.landmark_sets import BROWS
from dynamicface.overlay import fitted_landmarks
from dynamicface.prior.camera import euler_from_rotation
from dynamicface.prior.fit import MESH
from dynamicface.prior.texture import head_region

from .common import Figure, Options, Table, command, load, log
from .faces import LIDS, LIPS, OVAL, outer_eyes, retrack, rms

FRONTAL = 30.0  # degrees of yaw up to which a face is near-frontal
FAILED = 4.0  # % of the outer-eye distance
_TEXTURE = 64  # side of the albedo that is compared
_REGIONS = {"brows": (*BROWS[0], *BROWS[1]), "lids": LIDS, "lips": LIPS, "outline": OVAL}


@dataclass(frozen=True)
class Fitted:
    """One photograph's fit."""

    path: Path
    track: FaceTrack
    prior: FacePrior
    error: Tensor  # (468,) distance of the fitted from the tracked landmarks, % of the outer-eye distance

    @property
    def yaw(self) -> float:
        return float(euler_from_rotation(self.prior.rotation)[0, 0])

    @property
    def frontal(self) -> bool:
        return abs(self.yaw) < FRONTAL


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    pairs = options.data.london(options.limit)
    people = [[fitted(pipe, path, options, texture_size=256) for path in pair] for pair in pairs]
    studio = [fit for pair in people for fit in pair]
    street = [fitted(pipe, path, options, texture_size=0) for path in options.data.faces(options.limit)]
    sets = {"london": studio, "faces256": street}
    return [*reprojection(sets), retrieval(pipe, [pair for pair in people if all(pair)])]


def fitted(pipe: FacePipeline, path: Path, options: Options, texture_size: int) -> Fitted | None:
    """Track and fit a photograph; None where no face is found."""
    plate = load(path, options.device)
    track = retrack(pipe, plate)
    if track is None:
        log.info("%s: no face", path.name)
        return None
    prior = pipe.fit(plate, track, texture_size=texture_size)
    distance = (fitted_landmarks(prior, pipe.head) - track.landmarks[..., :2])[0, :MESH].norm(dim=-1)
    return Fitted(path, track, prior, 100 * distance / outer_eyes(track.landmarks[0]))


def reprojection(sets: dict[str, list[Fitted | None]]) -> list[Table]:
    """The errors of each set, and its failures one by one."""
    rows, failures = [], []
    for name, fits in sets.items():
        found = [fit for fit in fits if fit]
        for which, chosen in (("all", found), (f"yaw < {FRONTAL:g}", [fit for fit in found if fit.frontal])):
            error = torch.stack([fit.error.mean() for fit in chosen])
            bad = int((error > FAILED).sum())
            shape = rms(torch.stack([fit.prior.identity.shape for fit in chosen]))
            rows.append((name, which, len(chosen), float(error.median()), float(error.quantile(0.95)), bad, 100 * bad / len(chosen), shape))
        failures += [_reason(name, fit) for fit in found if fit.error.mean() > FAILED]
        rows.append((name, "no face found", sum(fit is None for fit in fits), *[""] * 5))
    columns = ("set", "which", "photos", "median %", "95th %", f"> {FAILED:g} %", "share %", "shape RMS")
    note = (
        "Mean distance of 468 landmarks over the distance of the outer eye corners, fitted head without landmark offsets. Shape: sigma 1."
    )
    figures = tuple(
        Figure(f"fit.reprojection_{name}", median, "% of the eye distance", "lower", f"{name}, {photos} photos")
        for name, which, photos, median, *_ in rows
        if which == "all"
    )
    tables = [Table("Landmark reprojection of the fit", columns, rows, note, figures)]
    if failures:
        columns = ("set", "photo", "error %", "yaw", "pitch", "near-frontal", "presence", "eyes apart, px", "worst region", "its error %")
        tables.append(Table(f"Fits above {FAILED:g} %", columns, sorted(failures, key=lambda row: (not row[5], -row[2]))))
    return tables


def _reason(name: str, fit: Fitted) -> tuple:
    """What may explain a poor fit: the pose, the size of the face, how sure the landmark net is, and where it is worst."""
    yaw, pitch, _ = euler_from_rotation(fit.prior.rotation)[0].tolist()
    regions = {region: float(fit.error[list(points)].mean()) for region, points in _REGIONS.items()}
    worst = max(regions, key=regions.get)
    presence, apart = float(fit.track.presence[0]), float(outer_eyes(fit.track.landmarks[0]))
    return name, fit.path.stem, float(fit.error.mean()), yaw, pitch, fit.frontal, presence, apart, worst, regions[worst]


def retrieval(pipe: FacePipeline, people: list[list[Fitted]]) -> Table:
    """Finding a smiling person's neutral photograph: what shape, texture and embedding know about identity."""
    region = F.interpolate(head_region(pipe.head, 256)[None], (_TEXTURE, _TEXTURE), mode="area")[0] > 0.9

    def skin(fit: Fitted) -> Tensor:
        """The albedo's pattern: band-passed, without its mean tone."""
        albedo = F.interpolate(fit.prior.identity.albedo[None], (_TEXTURE, _TEXTURE), mode="area")[0]
        values = albedo[:, region[0]]
        return (values - values.mean(1, keepdim=True)).flatten()

    features = {
        "shape": lambda fit: fit.prior.identity.shape,
        "albedo texture": skin,
        "embedding": lambda fit: fit.track.embedding,
    }
    scores = {}
    for name, feature in features.items():
        neutral, smile = (F.normalize(torch.stack([feature(pair[side]) for pair in people]), dim=-1) for side in (0, 1))
        scores[name] = smile @ neutral.T
    scores["shape + texture"] = scores["shape"] + scores["albedo texture"]
    scores["shape + texture + embedding"] = scores["shape + texture"] + scores["embedding"]
    rows = [(name, *_ranked(score)) for name, score in scores.items()]
    return Table(
        f"Smiling photograph to the neutral one of the same person, 1 of {len(people)}, by cosine",
        ("by", "found %", "cosine, same person", "cosine, nearest other"),
        rows,
        "Sums are sums of cosines.",
    )


def _ranked(score: Tensor) -> tuple[float, float, float]:
    own = score.diagonal()
    others = score.masked_fill(torch.eye(len(score), dtype=torch.bool), -9).amax(1)
    return 100 * float((own > others).float().mean()), float(own.mean()), float(others.mean())


def main(argv: list[str] | None = None) -> None:
    command("Fit", measure, argv)


if __name__ == "__main__":
    main()
