"""Leakage between the factors: move one, find and fit the face anew in the picture, and see how far every other factor moved with it.

Three pictures are measured: the composite in the plate, the bare render of the head over grey, and, for the expression alone, what the
embedded generator makes of the composite with all its guiders on (do they hold their own against the dial?). What the fit anew does to a
face in which nothing moved is a row of its own, for no other row can be better than the measurement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, compose_prior
from dynamicface.generator.face_generator import FaceGenerator
from dynamicface.images import sample_crops
from dynamicface.metrics import cosine, factor_change, outside_difference, refit
from dynamicface.paste import paste_back
from dynamicface.prior.geometry import face_crop
from dynamicface.render import render_prior

from .common import Figure, Options, SkippedError, Table, command, load, log
from .expression import moved_pose
from .faces import retrack

FACES, QUICK_FACES = 24, 2
_GREY, _RENDER = 0.25, 512
_SHIFT = 0.4  # px, of the row in which nothing moves
NOTHING = f"nothing (picture shifted by {_SHIFT} px)"
_STILL = ("expression", "gaze")  # factors beside which optical flow can tell how far the head moved
MOVES: dict[str, tuple[str, dict[str, float]]] = {
    "smile 0.8": ("expression", {"smile": 0.8}),
    "jaw open 0.6, brows up 0.8": ("expression", {"jaw_open": 0.6, "brows_up": 0.8}),
    "eyes right 0.6": ("gaze", {"gaze_x": 0.6}),
    "yaw 15": ("pose", {"yaw": 15.0}),
    "pitch 10": ("pose", {"pitch": 10.0}),
    "jaw +0.8, nose +0.8, eyes +0.5": ("identity", {"jaw_width": 0.8, "nose_width": 0.8, "eye_size": 0.5}),
    "key light 0.8 from 60 degrees": ("light", {"light": 0.8, "azimuth": 60.0}),
}
CONFLICT = {f"smile {value:g}, generated": value for value in (0.5, 1.0)}
FACTORS = ("identity", "expression", "gaze", "pose", "pose by flow", "light", "outside")
UNITS = ("1 - cosine", "RMS", "degrees", "degrees", "degrees", "% of shading", "largest difference")


@dataclass(frozen=True)
class Seen:
    """A picture of the face as it is found in it anew."""

    picture: Tensor
    track: FaceTrack
    fit: FacePrior


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    photos = options.data.portraits(options.count(QUICK_FACES if options.quick else FACES))
    composited: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    rendered: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    generated: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    generator, ground = FaceGenerator.load(device=options.device), None
    for number, path in enumerate(photos):
        plate = load(path, options.device)
        track = retrack(pipe, plate)
        if track is None:
            log.info("%s: no face", path.name)
            continue
        prior = pipe.fit(plate, track)
        for name, change in _in_plate(pipe, prior, ground):
            composited[name].append(change)
        for name, change in _as_render(pipe, prior):
            rendered[name].append(change)
        for name, change in _generated(pipe, prior, generator):
            generated[name].append(change)
        ground = prior
        log.info("leakage %d of %d: %s", number + 1, len(photos), path.name)
    if not composited:
        raise SkippedError("No face was found in any photograph of the data folder.")
    data = f"{len(composited['smile 0.8'])} photographs"
    return [
        _table(f"Leakage between factors, composited into the plate; {data}", composited, _figures(composited, data)),
        _table(f"Leakage between factors, the bare render; {data}", rendered, ()),
        _table(f"Expression against the other guiders, generated in one step; {data}", generated, ()),
    ]


def _in_plate(pipe: FacePipeline, prior: FacePrior, ground: FacePrior | None) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Every move, composited; ground: another person's photograph for the move of the background."""
    plate = prior.background.plate
    before = _look(pipe, plate, prior)
    nothing = torch.eye(2, 3, device=plate.device)[None].clone()
    nothing[:, :, 2] = _SHIFT
    height, width = plate.shape[1:3]
    moved = sample_crops(plate, nothing, (height, width)).permute(0, 2, 3, 1)
    yield from _row(NOTHING, _change(pipe, before, _look(pipe, moved, prior), None, True))
    for name, (factor, dials) in MOVES.items():
        edited = pipe.edit(prior, **dials)
        picture, mask = pipe.render(edited)
        outside = float(outside_difference(picture, plate, mask))
        yield from _row(name, _change(pipe, before, _look(pipe, picture, edited), outside, factor in _STILL))
    if ground is not None:
        edited = compose_prior(prior, background=ground)
        picture, mask = pipe.render(edited)
        outside = float(outside_difference(picture, ground.background.plate, mask))
        yield from _row("another's photograph behind it", _change(pipe, before, _look(pipe, picture, edited), outside))


def _as_render(pipe: FacePipeline, prior: FacePrior) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Every move as a render of the head over grey, at its place in the plate."""

    def shown(part: FacePrior) -> Tensor:
        crop = face_crop(part, _RENDER)
        picture = render_prior(part, pipe.head, _RENDER)
        grey = torch.full_like(prior.background.plate, _GREY)
        return paste_back(grey, picture, picture.new_ones(1, _RENDER, _RENDER), crop, feather=0.0)[0]

    before = _look(pipe, shown(prior), prior)
    for name, (_, dials) in MOVES.items():
        edited = pipe.edit(prior, **dials)
        yield from _row(name, _change(pipe, before, _look(pipe, shown(edited), edited), None))


def _generated(pipe: FacePipeline, prior: FacePrior, generator: FaceGenerator) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The expression dial with all guiders of the embedded generator on, against the generated picture of the dial at 0."""

    def shown(part: FacePrior) -> Tensor:
        return generator.render(part, pipe.head, pipe.render(part)[0], source=prior, steps=1)[0]

    before = _look(pipe, shown(prior), prior)
    for name, smile in CONFLICT.items():
        edited = pipe.edit(prior, smile=smile)
        yield from _row(name, _change(pipe, before, _look(pipe, shown(edited), edited), None, True))


def _look(pipe: FacePipeline, picture: Tensor, prior: FacePrior) -> Seen | None:
    """Find the face anew; its identity is held at what the prior says. None where it is not found."""
    track = retrack(pipe, picture)
    return track and Seen(picture, track, refit(picture, track, pipe.head, prior))


def _change(
    pipe: FacePipeline, before: Seen | None, after: Seen | None, outside: float | None, still: bool = False
) -> tuple[float, ...] | None:
    """In the order of `FACTORS`; None where a face was not found. still: head and light stay, so that a flow can tell its motion."""
    if before is None or after is None:
        return None
    change = factor_change(before.fit, after.fit)
    flow = np.nan
    if still:
        pair = torch.cat([before.picture, after.picture])
        flow = moved_pose(pipe.head, before.track, pair, before.fit.identity.shape)
    return (
        1 - float(cosine(before.track.embedding, after.track.embedding)),
        float(change.expression),
        float(change.gaze),
        float(change.pose),
        flow,
        100 * float(change.light),
        np.nan if outside is None else outside,
    )


def _row(name: str, change: tuple[float, ...] | None) -> Iterator[tuple[str, tuple[float, ...]]]:
    if change is not None:
        yield name, change


def _table(title: str, found: dict[str, list[tuple[float, ...]]], figures: tuple[Figure, ...]) -> Table:
    shown = [i for i in range(len(FACTORS)) if not np.isnan([change[i] for rows in found.values() for change in rows]).all()]
    rows = []
    for name, changes in found.items():
        factor = MOVES[name][0] if name in MOVES else "expression" if name in CONFLICT else "" if name == NOTHING else "background"
        columns = list(zip(*changes, strict=True))
        rows.append((factor, name, len(changes), *(_cell(np.array(columns[i]), factor == FACTORS[i]) for i in shown)))
    columns = ("factor", "moved", "faces", *(f"{FACTORS[i]}, {UNITS[i]}" for i in shown))
    note = (
        "Median / 90th percentile over the faces. Bold: the factor that was moved. Identity: the product's own identity vectors. "
        "Expression, gaze, pose and light: found and fitted anew in the picture with the identity held, against the same of the picture "
        "before. Pose by flow: from what an expression leaves still, since the landmark net takes a part of every smile for a nod; where "
        "the head is turned or relit, flow cannot tell. Outside: where the mask is 0."
    )
    return Table(title, columns, rows, note, figures)


def _cell(values: np.ndarray, own: bool) -> str:
    values = values[~np.isnan(values)]
    if not len(values):
        return ""
    text = f"{np.median(values):.2g} / {np.quantile(values, 0.9):.2g}"
    return f"**{text}**" if own else text


def _figures(found: dict[str, list[tuple[float, ...]]], data: str) -> tuple[Figure, ...]:
    """One number per moved factor and factor that should have stayed: the median over faces and moves."""
    figures = []
    for factor in ("expression", "pose", "identity", "light"):
        changes = [change for name, rows in found.items() if name in MOVES and MOVES[name][0] == factor for change in rows]
        for other, unit, values in zip(FACTORS, UNITS, zip(*changes, strict=True), strict=True):
            if other != factor and not np.isnan(values).all():
                key = f"leakage.{factor}_to_{other.replace(' ', '_')}"
                figures.append(Figure(key, float(np.nanmedian(values)), unit, "lower", data))
    return tuple(figures)


def main(argv: list[str] | None = None) -> None:
    command("Leakage", measure, argv)


if __name__ == "__main__":
    main()
