"""Fit with the truth known: the head model's own faces, from their exact landmarks and from pictures of them. Needs no data folder."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, Identity, NoFaceError, edit_expression, fit_prior
from dynamicface.overlay import fitted_landmarks
from dynamicface.prior import light
from dynamicface.prior.camera import rotation_from_euler
from dynamicface.prior.gaze import LOOK_NAMES, look_of_gaze
from dynamicface.prior.geometry import face_crop
from dynamicface.prior.head import HeadModel
from dynamicface.render import render_prior

from .common import SEED, Options, Table, command, log
from .faces import degrees_between, in_plate, rms

SIZE = 512
FACES = 100
_SHAPE_SIGMA = 0.7  # of the sampled identities; fitted photographs have about this spread
_DISTANCE, _FOCAL = 1.0, 1600.0
_YAW, _PITCH, _ROLL, _GAZE = 35.0, 12.0, 10.0, 12.0  # degrees, uniform up to these
_DIALS = ("smile", "laugh", "jaw_open", "brows_up", "anger", "surprise", "sadness", "pucker")
COLUMNS = ("from", "faces", "shape, mm", "mean head, mm", "expression RMS", "no expression", "pose, degrees", "gaze, degrees")


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    if options.device != "cpu":
        pipe = FacePipeline.load()  # the errors do not depend on the device
    drawn = torch.Generator().manual_seed(SEED)
    truths = [random_face(pipe.head, drawn) for _ in range(options.count(FACES))]
    rows = [_exact(pipe, truths, noise, drawn) for noise in (0.0, 0.5)]
    rows.append(_pictured(pipe, truths))
    note = (
        "Means over faces. Shape: distance of the face's vertices after a similarity alignment, beside that of the mean head. Expression: "
        "over 52 coefficients, beside calling every face expressionless. The focal length is known. Pictures: the model's render with the "
        "mean albedo under a random light, without hair or background, as the landmark net sees it."
    )
    return [Table(f"The model's own faces, {SIZE} px, yaw up to {_YAW:g} degrees", COLUMNS, rows, note)]


def random_face(head: HeadModel, drawn: torch.Generator) -> FacePrior:
    """A person with an expression under a light, in front of the camera."""

    def uniform(*size: int) -> Tensor:
        return 2 * torch.rand(size, generator=drawn) - 1

    yaw, pitch, roll = (uniform(3) * torch.tensor([_YAW, _PITCH, _ROLL])).unbind()
    place = torch.tensor([0.0, 0.0, -_DISTANCE]) + 0.01 * torch.randn(3, generator=drawn)
    key = light.directional(float(60 * uniform(1)), float(20 + 30 * uniform(1)), place)
    ambient = torch.zeros(9)
    ambient[0] = 1 / 0.282095
    lit = (0.6 * ambient + 0.35 * key)[:, None] * (1 + 0.15 * uniform(3))
    prior = FacePrior(
        identity=Identity(_SHAPE_SIGMA * torch.randn(len(head.shape_basis), generator=drawn)),
        expression=torch.zeros(1, len(head.expression_names)),
        gaze=(uniform(1, 1, 2) * math.radians(_GAZE)).expand(1, 2, 2),
        rotation=rotation_from_euler(yaw, pitch, roll)[None],
        translation=place[None],
        focal=torch.tensor([_FOCAL]),
        illumination=lit[None],
        offset=torch.zeros(1, len(head.landmark_index), 3),
        confidence=torch.ones(1),
        image_size=(SIZE, SIZE),
    )
    chosen = torch.randperm(len(_DIALS), generator=drawn)[:2].tolist()
    amounts = {_DIALS[i]: 0.8 * float(torch.rand(1, generator=drawn)) for i in chosen}
    expression = edit_expression(prior, amounts).expression
    look = [head.expression_names.index(name) for name in LOOK_NAMES]
    expression[:, look] = look_of_gaze(prior.gaze)  # as on people, the lids go with the eyes
    return prior.replace(expression=expression)


def _row(name: str, errors: list[tuple[float, ...]]) -> tuple:
    """One row of the table: means over faces."""
    return (name, len(errors), *(statistics.fmean(column) for column in zip(*errors, strict=True)))


def _exact(pipe: FacePipeline, truths: list[FacePrior], noise: float, drawn: torch.Generator) -> tuple:
    """Fits of the landmarks themselves, with noise of so many px."""
    found = []
    for truth in truths:
        points = fitted_landmarks(truth, pipe.head)
        points = points + noise * torch.randn(points.shape, generator=drawn)
        found.append(_errors(pipe.head, _fit(pipe, _track(points, truth), truth), truth))
    return _row(f"exact landmarks, {noise:g} px noise", found)


def _pictured(pipe: FacePipeline, truths: list[FacePrior]) -> tuple:
    """Fits of what the landmark net finds in renders."""
    found = []
    for number, truth in enumerate(truths):
        crop = face_crop(truth, SIZE)
        try:
            track = pipe.track(render_prior(truth, pipe.head, SIZE).clamp(0, 1))
        except NoFaceError:
            log.info("face %d: not detected in its render", number)
            continue
        found.append(_errors(pipe.head, _fit(pipe, in_plate(track, crop.matrix, truth.image_size), truth), truth))
    return _row(f"landmark net on renders ({len(truths) - len(found)} not detected)", found)


def _track(points: Tensor, truth: FacePrior) -> FaceTrack:
    """Landmarks (1, 478, 2) as if they had been tracked."""
    landmarks = torch.cat([points, torch.zeros_like(points[..., :1])], -1)
    boxes = torch.cat([points.amin(1), points.amax(1)], -1)
    return FaceTrack(truth.image_size, boxes, landmarks, torch.ones(1))


def _fit(pipe: FacePipeline, track: FaceTrack, truth: FacePrior) -> FacePrior:
    plate = torch.zeros(1, *truth.image_size, 3)
    return fit_prior(plate, track, pipe.head, texture_size=0, focal=truth.focal)


def _errors(head: HeadModel, fit: FacePrior, truth: FacePrior) -> tuple[float, ...]:
    """In the order of `COLUMNS`."""
    face = head.face_region > 0.5
    rest = torch.zeros_like(truth.expression[0])
    shapes = [head.vertices(shape, rest)[face] for shape in (fit.identity.shape, truth.identity.shape, 0 * truth.identity.shape)]
    gaze = torch.rad2deg((fit.gaze - truth.gaze).norm(dim=-1).mean())
    return (
        _distance(shapes[0], shapes[1]),
        _distance(shapes[2], shapes[1]),
        rms(fit.expression - truth.expression),
        rms(truth.expression),
        float(degrees_between(fit.rotation, truth.rotation)[0]),
        float(gaze),
    )


def _distance(found: Tensor, truth: Tensor) -> float:
    """Mean distance of points (K, 3) in mm after the best similarity transform."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, s, vh = torch.linalg.svd(a.T @ b)
    mirror = torch.ones(3)
    mirror[2] = torch.sign(torch.linalg.det(u @ vh))
    moved = (s * mirror).sum() / a.square().sum() * a @ (u * mirror) @ vh
    return 1e3 * float((moved - b).norm(dim=-1).mean())


def main(argv: list[str] | None = None) -> None:
    command("Synthetic faces", measure, argv)


if __name__ == "__main__":
    main()
