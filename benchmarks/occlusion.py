"""Occluders found by themselves: things of known outline laid over photographs, and the same photographs without anything.

The things are drawn by other means than those the net learnt from (`dynamicface/training/occluders.py`): OpenCV's shapes in the
photograph's resolution, filled with pieces of other photographs; hands in the colour of the person's own skin or another's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, NoFaceError
from dynamicface.training.data import HELD_OUT_EVERY

from .common import SEED, Figure, Options, SkippedError, Table, command, load, log, spread
from .faces import OVAL, degrees_between, rms

PHOTOS = 16  # of each set
HAIR = ((0.09, 0.06, 0.04), (0.3, 0.2, 0.12), (0.62, 0.5, 0.33), (0.55, 0.55, 0.55))
ALARM = 2.0  # % of the face from which a clean photograph counts as a false alarm


@dataclass(frozen=True)
class Face:
    """A photograph and what the tools need to know of it; arrays as OpenCV takes them."""

    picture: np.ndarray  # (H, W, 3) 0..1
    points: np.ndarray  # (478, 2) px
    region: np.ndarray  # (H, W) bool, inside of the outline

    @property
    def width(self) -> float:
        return float(np.ptp(self.points[list(OVAL), 0]))

    def place(self, drawn: np.random.Generator, spread: float = 0.3) -> np.ndarray:
        return self.points[list(OVAL)].mean(0) + drawn.uniform(-spread, spread, 2) * self.width


def _blob(face: Face, other: Face, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A smooth outline filled with a piece of another photograph."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(drawn.normal(0, 0.25 / k) * np.cos(k * angle + drawn.uniform(0, 6)) for k in (1, 2, 3))
    radius = face.width * drawn.uniform(0.13, 0.27) * np.exp(waves)
    outline = face.place(drawn) + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _texture(face, other, drawn), _filled(face, outline)


def _hand(face: Face, other: Face, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four fingers and a thumb out of a palm, rounded by shading."""
    skin = (face if drawn.random() < 0.6 else other).picture
    who = face if skin is face.picture else other
    tone = np.median(skin[who.region], 0) * drawn.uniform(0.75, 1.15)
    mask = np.zeros(face.region.shape, np.uint8)
    size, turn = face.width * drawn.uniform(0.09, 0.13), drawn.uniform(0, 2 * np.pi)
    towards, palm = np.array([np.cos(turn), np.sin(turn)]), None
    across, tips = np.array([-towards[1], towards[0]]), face.place(drawn, 0.25)
    creases = np.ones(face.region.shape, np.float32)
    palm = tips + towards * size * 5.5
    for k, length in enumerate((3.4, 4.0, 3.8, 3.0)):
        root, tip = palm + across * size * 1.15 * (k - 1.5), palm + across * size * 1.3 * (k - 1.5) - towards * size * length
        finger = np.zeros_like(mask)
        cv2.line(finger, _px(root), _px(tip), 255, max(int(size), 1), cv2.LINE_AA)
        rim = cv2.morphologyEx(finger, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        creases -= 0.25 * cv2.GaussianBlur(rim.astype(np.float32) / 255, (0, 0), 1.0)
        mask = np.maximum(mask, finger)
    cv2.line(mask, _px(palm), _px(palm + across * size * 3.2 - towards * size * 1.2), 255, max(int(1.1 * size), 1), cv2.LINE_AA)
    cv2.ellipse(mask, _px(palm + towards * size), (int(2.6 * size), int(2.4 * size)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.line(mask, _px(palm), _px(palm + towards * size * 30), 255, int(3.6 * size), cv2.LINE_AA)
    depth = cv2.GaussianBlur(np.minimum(cv2.distanceTransform(mask, cv2.DIST_L2, 5), size), (0, 0), max(size / 5, 0.8))
    slope = np.stack(np.gradient(depth), -1) @ drawn.normal(0, 0.35, 2)
    shade = (1 - slope) * creases * np.exp(0.03 * drawn.normal(size=mask.shape))
    return tone * shade[..., None], mask / 255


def _microphone(face: Face, other: Face, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A stick from below with a ball of wire at its end."""
    mask, size = np.zeros(face.region.shape, np.uint8), face.width * drawn.uniform(0.03, 0.07)
    end = face.place(drawn, 0.25) + np.array([0, 0.2 * face.width])
    away = end + np.array([drawn.uniform(-1, 1), drawn.uniform(0.8, 1.5)]) * face.width * 1.5
    cv2.line(mask, _px(end), _px(away), 255, max(int(1.3 * size), 1), cv2.LINE_AA)
    ball = np.zeros_like(mask)
    cv2.circle(ball, _px(end), int(drawn.uniform(1, 2.2) * size) + 1, 255, -1, cv2.LINE_AA)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    wire = 0.7 + 0.3 * np.sin((x + y) * 1.9) * np.sin((x - y) * 1.9)
    mask = np.maximum(mask, ball)
    light = cv2.GaussianBlur(cv2.distanceTransform(mask, cv2.DIST_L2, 5), (0, 0), 1) / max(size, 1)
    colour = drawn.uniform(0.03, 0.7) * np.array([1, 1, 1]) + drawn.uniform(0, 0.1, 3)
    return colour * (0.6 + 0.5 * light[..., None]) * np.where(ball[..., None] > 127, wire[..., None], 1), mask / 255


def _hair(face: Face, other: Face, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bunch of strands from the forehead to the jaw."""
    mask = np.zeros(face.region.shape, np.uint8)
    start = face.points[10] + drawn.uniform(-0.35, 0.35) * face.width * np.array([1, 0])
    end = start + np.array([drawn.uniform(-0.4, 0.4), drawn.uniform(0.5, 1.0)]) * face.width
    light = np.ones(face.region.shape, np.float32)
    for _ in range(drawn.integers(6, 25)):
        a, b = start + drawn.normal(0, 0.05, 2) * face.width, end + drawn.normal(0, 0.08, 2) * face.width
        middle = (a + b) / 2 + drawn.normal(0, 0.08, 2) * face.width
        t = np.linspace(0, 1, 30)[:, None]
        curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b
        thick = max(1, round(face.width * drawn.uniform(0.004, 0.018)))
        cv2.polylines(mask, [np.round(curve).astype(np.int32)], False, 255, thick, cv2.LINE_AA)
        cv2.polylines(light, [np.round(curve).astype(np.int32)], False, float(drawn.uniform(0.6, 1.5)), thick)
    return np.array(HAIR[drawn.integers(len(HAIR))]) * light[..., None], mask / 255


def _glasses(face: Face, other: Face, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rims and bows; every other pair has dark lenses."""
    mask = np.zeros(face.region.shape, np.uint8)
    thick, dark = max(1, round(face.width * drawn.uniform(0.012, 0.035))), drawn.random() < 0.5
    corners = ((33, 133), (362, 263))
    centres = [face.points[list(pair)].mean(0) for pair in corners]
    line = centres[1] - centres[0]
    tilt = float(np.degrees(np.arctan2(line[1], line[0])))
    wide = np.linalg.norm(line) * drawn.uniform(0.36, 0.43)
    for centre, edge in zip(centres, (234, 454), strict=True):
        axes = (int(wide), int(wide * drawn.uniform(0.65, 0.95)))
        cv2.ellipse(mask, _px(centre), axes, tilt, 0, 360, 255, -1 if dark else thick, cv2.LINE_AA)
        side = np.sign((face.points[edge] - centre) @ line) * line / np.linalg.norm(line)
        cv2.line(mask, _px(centre + side * wide), _px(face.points[edge]), 255, thick, cv2.LINE_AA)
    unit = line / np.linalg.norm(line)
    cv2.line(mask, _px(centres[0] + unit * wide), _px(centres[1] - unit * wide), 255, thick, cv2.LINE_AA)
    colour = drawn.uniform(0.02, 0.35) * np.ones(3) + drawn.uniform(0, 0.1, 3)
    return np.broadcast_to(colour, face.picture.shape), mask / 255


KINDS: dict[str, Callable] = {
    "textured blob": _blob,
    "hand in skin colour": _hand,
    "microphone on a stick": _microphone,
    "strands of hair": _hair,
    "glasses": _glasses,
}


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    drawn, count = np.random.default_rng(SEED), options.count(PHOTOS)
    held_out = options.data.faces(None)[::HELD_OUT_EVERY]
    sets = {"london": [neutral for neutral, _ in options.data.london(count)], "held-out portraits": spread(held_out, count)}
    clean, occluded, fits = [], {kind: [] for kind in KINDS}, {"as found": [], "occluders left out": []}
    for name, paths in sets.items():
        known = [(path, *pair) for path in paths if (pair := _known(pipe, path, options))]
        if len(known) < 2:
            raise SkippedError(f"Fewer than two faces were found among the {len(paths)} photographs of {name}.")
        found = [_share(pipe.occlusion(prior)[0].numpy() >= 0.5, face.region) for _, face, prior in known]
        clean.append(_clean_row(name, found))
        for i, (path, face, prior) in enumerate(known):
            for kind, draw in list(KINDS.items())[i :: len(known)] if options.quick else KINDS.items():  # quick: each kind once a set
                colour, alpha = draw(face, known[(i + 1) % len(known)][1], drawn)
                picture = (face.picture * (1 - alpha[..., None]) + colour * alpha[..., None]).clip(0, 1)
                plate = torch.from_numpy(picture.astype(np.float32))[None]
                scores = _scores(pipe, plate, alpha >= 0.5, face, prior)
                if scores is None:
                    log.info("%s under a %s: no face found", path.name, kind)
                    continue
                occluded[kind].append(scores[0])
                for which, error in zip(fits, scores[1:], strict=True):
                    fits[which].append(error)
    return [_found(occluded), _false_alarms(clean), _fit(fits)]


def _known(pipe: FacePipeline, path: Path, options: Options) -> tuple[Face, FacePrior] | None:
    plate = load(path, options.device)
    try:
        track = pipe.track(plate)
    except NoFaceError:
        return None
    points = track.landmarks[0, :, :2].cpu().numpy()
    region = np.zeros(plate.shape[1:3], np.uint8)
    cv2.fillPoly(region, [np.round(points[list(OVAL)]).astype(np.int32)], 1)
    return Face(plate[0].cpu().numpy().astype(np.float64), points, region > 0), pipe.fit(plate, track, texture_size=256)


def _scores(pipe: FacePipeline, plate: Tensor, truth: np.ndarray, face: Face, clean: FacePrior) -> tuple | None:
    """(IoU, recall, precision, false alarms) in %, and what the occluder does to the fit without and with its mask."""
    try:
        track = pipe.track(plate)
    except NoFaceError:
        return None
    plain = pipe.fit(plate, track, texture_size=256)
    mask = pipe.occlusion(plain)
    found, truth = (mask[0].numpy() >= 0.5) & face.region, truth & face.region
    if not truth.any():
        return None
    both, bare = (found & truth).sum(), face.region & ~truth
    rates = (both / (found | truth).sum(), both / truth.sum(), both / max(found.sum(), 1), (found & bare).sum() / bare.sum())
    aware = pipe.fit(plate, track, texture_size=256, occlusion=mask)
    return tuple(100 * float(rate) for rate in rates), _moved(plain, clean), _moved(aware, clean)


def _moved(prior: FacePrior, clean: FacePrior) -> tuple[float, ...]:
    """Degrees, expression RMS, RMS of the light relative to its level, RMS of the albedo relative to its level."""
    level = clean.illumination[0, 0].mean()
    albedo = clean.identity.albedo
    return (
        float(degrees_between(prior.rotation, clean.rotation)[0]),
        rms(prior.expression - clean.expression),
        rms((prior.illumination - clean.illumination) / level),
        rms((prior.identity.albedo - albedo) / albedo.mean()),
    )


def _found(occluded: dict[str, list]) -> Table:
    rows = [(kind, len(scores), *map(statistics.fmean, zip(*scores, strict=True))) for kind, scores in occluded.items() if scores]
    note = "Inside of the face's outline, masks cut at 0.5, means over photographs. False alarms: share of the bare face that is marked."
    everything = [score for scores in occluded.values() for score in scores]
    data = f"{len(everything)} occluded photographs"
    figures = (
        Figure("occlusion.iou", statistics.fmean(score[0] for score in everything), "%", "higher", data),
        Figure("occlusion.recall", statistics.fmean(score[1] for score in everything), "%", "higher", data),
    )
    return Table("Occluders found", ("occluder", "photographs", "IoU %", "recall %", "precision %", "false alarms %"), rows, note, figures)


def _share(found: np.ndarray, region: np.ndarray) -> float:
    return 100 * float((found & region).sum() / region.sum())


def _clean_row(name: str, found: list[float]) -> tuple:
    alarms = 100 * sum(share > ALARM for share in found) / len(found)
    return name, len(found), statistics.fmean(found), statistics.median(found), max(found), alarms


def _false_alarms(rows: list[tuple]) -> Table:
    columns = ("set", "photographs", "marked % of the face, mean", "median", "most", f"photographs above {ALARM:g} %")
    note = "Photographs as they are; what hair or glasses they have counts as a false alarm too."
    figures = tuple(
        Figure(f"occlusion.clean_{name.split()[0]}", mean, "% of the face", "lower", f"{n} photographs") for name, n, mean, *_ in rows
    )
    return Table("Nothing in front of the face", columns, rows, note, figures)


def _fit(fits: dict[str, list]) -> Table:
    rows = [(which, len(errors), *map(statistics.fmean, zip(*errors, strict=True))) for which, errors in fits.items() if errors]
    columns = ("", "photographs", "pose, degrees", "expression RMS", "light", "albedo")
    note = "Distance to the fit of the same photograph without the occluder; light and albedo relative to their level."
    return Table("What an occluder does to the fit", columns, rows, note)


def _texture(face: Face, other: Face, drawn: np.random.Generator) -> np.ndarray:
    """A piece of another photograph, in the size of this one."""
    height, width = face.region.shape
    scale = drawn.uniform(1.0, 2.0)
    large = cv2.resize(other.picture, (int(width * scale) + 1, int(height * scale) + 1), interpolation=cv2.INTER_CUBIC)
    y, x = (int(drawn.integers(0, a - b + 1)) for a, b in zip(large.shape[:2], (height, width), strict=True))
    return np.roll(large[y : y + height, x : x + width], drawn.integers(0, width), 1)


def _filled(face: Face, outline: np.ndarray) -> np.ndarray:
    mask = np.zeros(face.region.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask / 255


def _px(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def main(argv: list[str] | None = None) -> None:
    command("Occluders", measure, argv)


if __name__ == "__main__":
    main()
