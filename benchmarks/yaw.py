"""Head pose over the whole half circle, truth known: renders of random heads turned, nodding and tilted, in bins of yaw."""

from __future__ import annotations

import statistics
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, NoFaceError, fit_prior
from dynamicface.prior.camera import image_centre, rotation_from_euler
from dynamicface.prior.fit import MESH, landmark_bases
from dynamicface.prior.geometry import face_crop
from dynamicface.prior.head import HeadModel
from dynamicface.render import render_prior

from .common import SEED, Figure, Options, SkippedError, Table, command
from .faces import degrees_between, in_plate
from .synthetic import SIZE, random_face

BINS = tuple(range(0, 90, 15))
FACES = 12  # per bin
_PITCH, _ROLL = 40.0, 40.0  # degrees, uniform up to these


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    drawn = torch.Generator().manual_seed(SEED)
    rows, everything = [], []
    for low in BINS:
        errors = [_errors(pipe, _turned(pipe.head, low, drawn)) for _ in range(options.count(FACES))]
        found = [error for error in errors if error is not None]
        everything += [(low, *error) for error in found]
        columns = list(zip(*found, strict=True))
        summary = (*map(statistics.median, columns), max(columns[0])) if found else ("",) * 5
        rows.append((f"{low}-{low + 15}", len(found), len(errors) - len(found), *summary))
    note = (
        f"Median angle between the found and the true rotation, degrees; pitch and roll uniform up to {_PITCH:g}. Bald renders, {SIZE} px, "
        "random shape, expression and light, focal length known. 'landmarks': the raw tracker's own 3D landmarks laid over the mean head. "
        "'PnP': OpenCV's solvePnP of the tracked landmarks on the mean head. All three read the same landmarks."
    )
    columns = ("yaw", "faces", "not detected", "fit", "landmarks", "PnP", "fit's confidence", "fit, worst")
    if not everything:
        raise SkippedError("No render was detected.")
    beyond = [error[1] for error in everything if error[0] >= 60]
    data = f"{len(everything)} renders"
    figures = (
        Figure("yaw.all", statistics.median(error[1] for error in everything), "degrees", "lower", data),
        *((Figure("yaw.beyond_60", statistics.median(beyond), "degrees", "lower", f"{len(beyond)} renders"),) if beyond else ()),
    )
    missing = {} if beyond else {"yaw.beyond_60": "none of the renders turned so far was detected"}
    return [Table("Pose error by yaw", columns, rows, note, figures, missing)]


def _turned(head: HeadModel, low: int, drawn: torch.Generator) -> FacePrior:
    """A random face turned by low .. low + 15 degrees to either side."""
    side, place, pitch, roll = (2 * torch.rand(4, generator=drawn) - 1).tolist()
    yaw = (low + 7.5 * (1 + place)) * (1 if side > 0 else -1)
    return random_face(head, drawn).replace(rotation=rotation_from_euler(yaw, _PITCH * pitch, _ROLL * roll)[None])


def _errors(pipe: FacePipeline, truth: FacePrior) -> tuple[float, ...] | None:
    """Degrees of error per method and the fit's confidence; None where no face is detected in the render."""
    crop = face_crop(truth, SIZE)
    try:
        track = in_plate(pipe.track(render_prior(truth, pipe.head, SIZE).clamp(0, 1)), crop.matrix, truth.image_size)
    except NoFaceError:
        return None
    fit = fit_prior(torch.zeros(1, *truth.image_size, 3), replace(track, agreement=None), pipe.head, texture_size=0, focal=truth.focal)
    mean = landmark_bases(pipe.head)[0][:MESH]
    poses = (fit.rotation, _by_depth(mean, track), _by_pnp(mean, track, float(truth.focal)))
    return (*(float(degrees_between(pose, truth.rotation)[0]) for pose in poses), float(fit.confidence[0]))


def _by_depth(mean: Tensor, track: FaceTrack) -> Tensor:
    """(1, 3, 3) that lays the mean head over the tracker's 3D landmarks (Kabsch)."""
    points = track.landmarks[0, :MESH] * track.landmarks.new_tensor([1.0, -1.0, -1.0])
    a, b = mean - mean.mean(0), points - points.mean(0)
    u, _, vh = torch.linalg.svd(b.T @ a)
    mirror = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(u @ vh).sign())]))
    return (u @ mirror @ vh)[None]


def _by_pnp(mean: Tensor, track: FaceTrack, focal: float) -> Tensor:
    """(1, 3, 3) by solvePnP; OpenCV's camera looks along +z with y down."""
    x, y = image_centre(track.image_size, mean).tolist()
    camera = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
    points = track.landmarks[0, :MESH, :2].double().numpy()
    _, vector, _ = cv2.solvePnP(mean.double().numpy(), points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    rotation, _ = cv2.Rodrigues(vector)
    return torch.from_numpy(np.diag([1.0, -1.0, -1.0]) @ rotation).float()[None]


def main(argv: list[str] | None = None) -> None:
    command("Pose error by yaw", measure, argv)


if __name__ == "__main__":
    main()
