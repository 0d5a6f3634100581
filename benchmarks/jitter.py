"""What smoothing of the clip fit takes away and what it leaves: jitter of still and resting faces, and the height of blinks and syllables.

Still faces are photographs that drift evenly under new grain in every frame: whatever bends their track is jitter. Resting faces are the
stretches of talking clips in which no part of the face moves much; what it does move is in both numbers."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from scipy.signal import find_peaks
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, HeadModel
from dynamicface.conventions import ARKIT_NAMES
from dynamicface.filters import pixel_grid, sample
from dynamicface.io.clips import Clip
from dynamicface.metrics.jitter import landmark_jitter, pose_jitter
from dynamicface.prior.camera import image_centre, to_camera, to_screen
from dynamicface.prior.estimate import fit_prior
from dynamicface.prior.temporal import smooth_prior
from dynamicface.track import track_faces

from .common import Figure, Options, Table, command, load

SMOOTHING = (0.25, 0.5, 0.75, 1.0)
PUBLISHED = 0.5  # the default of the dial, whose figures are kept
QUIET = 0.3  # share of a clip's frames that count as resting
_STRETCH = 9  # frames over which rest is judged
_MOVING = 0.95  # quantile of the landmarks that must rest: a lip that moves is no rest
_STILLS = 6
_FRAMES = 32
_DRIFT = 0.21, 0.13  # px per frame
_GRAIN = 0.02  # standard deviation, of 0..1: a camera at high sensitivity
_PROMINENCE = 0.15  # of a peak that is looked at
_COLUMNS = ("", "landmarks, %", "pose, degrees", "landmarks: times stiller", "pose: times stiller")
_CHANNELS = {"lids": ("eyeBlinkLeft", "eyeBlinkRight"), "jaw": ("jawOpen",)}
_PULSE = 0.5 - 0.5 * torch.cos(torch.arange(1, 6) / 6 * 2 * torch.pi)  # a blink of five frames
_HEIGHT = 0.5


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    fits = [_fit(pipe, path, options.device) for path in options.data.clips(options.limit)]
    data = f"{len(fits)} clips, {sum(len(prior) for _, prior in fits)} frames"
    photos = options.data.portraits(min(_STILLS, options.limit or _STILLS))
    stills = [_fit_still(pipe, load(path, options.device), seed) for seed, path in enumerate(photos)]
    return [
        _stills(pipe.head, stills, f"{len(stills)} photographs of {_FRAMES} frames"),
        _rest(pipe.head, fits, data),
        _peaks(pipe.head, fits, data),
    ]


def _fit(pipe: FacePipeline, path: Path, device: str) -> tuple[FaceTrack, FacePrior]:
    """Track and raw fit of a clip, without light."""
    clip = Clip(path, device)
    track = track_faces(clip, pipe.perception)
    return track, fit_prior(clip, track, pipe.head, texture_size=0)


def _fit_still(pipe: FacePipeline, plate: Tensor, seed: int) -> tuple[FaceTrack, FacePrior]:
    """Track and raw fit of a photograph (1, H, W, 3) that drifts evenly behind grain."""
    random = torch.Generator().manual_seed(seed)
    moved = torch.arange(_FRAMES, device=plate.device)[:, None] * plate.new_tensor(_DRIFT)
    grid = pixel_grid(*plate.shape[1:3], plate) + moved[:, None, None]
    frames = sample(plate.movedim(-1, 1).expand(_FRAMES, -1, -1, -1), grid, mode="bicubic").movedim(1, -1)
    frames = frames + _GRAIN * torch.randn(frames.shape, generator=random).to(frames)
    track = track_faces(frames, pipe.perception)
    prior = fit_prior(frames, track, pipe.head, texture_size=0)
    return track, prior.replace(background=None)


def landmarks_of(prior: FacePrior, head: HeadModel) -> Tensor:
    """(F, 478, 2) plate px: where the prior, with its offsets, puts the landmarks."""
    points = head.landmarks(head.vertices(prior.identity.shape[None], prior.expression, prior.gaze)) + prior.offset
    camera = to_camera(points, prior.rotation, prior.translation)
    return to_screen(camera, prior.focal, image_centre(prior.image_size, camera))[..., :2]


def resting(track: FaceTrack) -> Tensor:
    """(F,) bool: the middles of the stretches in which the part of the face that moves most moves least."""
    points = track.landmarks[:, :468, :2]
    stretches = points.unfold(0, _STRETCH, 1)
    moved = (stretches.amax(-1) - stretches.amin(-1)).norm(dim=-1).quantile(_MOVING, dim=-1)
    middle = torch.nn.functional.pad(moved, (_STRETCH // 2, _STRETCH // 2), value=torch.inf)
    seen = track.presence > 0
    middle = torch.where(seen, middle, torch.inf)
    return middle <= middle[middle.isfinite()].quantile(QUIET)


def _stills(head: HeadModel, fits: list[tuple[FaceTrack, FacePrior]], data: str) -> Table:
    still = [torch.ones(len(prior), dtype=torch.bool, device=prior.confidence.device) for _, prior in fits]
    for frames in still:
        frames[[0, -1]] = False
    rows, figures = _stillness(head, fits, still, "still_", data)
    note = f"Photographs that drift by {_DRIFT[0]:g} and {_DRIFT[1]:g} px a frame behind grain of {_GRAIN:g}; units as below."
    return Table("A still face", _COLUMNS, rows, note, figures)


def _rest(head: HeadModel, fits: list[tuple[FaceTrack, FacePrior]], data: str) -> Table:
    """RMS second differences in resting stretches, against the raw tracker."""
    rows, figures = _stillness(head, fits, [resting(track) for track, _ in fits], "", data)
    note = (
        f"RMS second difference in the {100 * QUIET:g} % of the frames around which the part of the tracked face that moves most moves "
        "least, median over clips. Landmarks in % of the outer-eye distance: as tracked, and as the fitted head puts them. Pose of raw "
        "landmarks: the unsmoothed fit's."
    )
    return Table("A resting face", _COLUMNS, rows, note, figures)


def _stillness(
    head: HeadModel, fits: list[tuple[FaceTrack, FacePrior]], still: list[Tensor], kind: str, data: str
) -> tuple[list[tuple], tuple[Figure, ...]]:
    """Rows and figures: the raw tracker, and the fit at every smoothing."""
    tracker = [_jitter(track.landmarks, prior, frames) for (track, prior), frames in zip(fits, still, strict=True)]
    rows, figures = [("raw landmarks", *_medians(tracker), 1.0, 1.0)], ()
    for amount in (0.0, *SMOOTHING):
        smoothed = [smooth_prior(prior, head, amount) for _, prior in fits]
        found = [_jitter(landmarks_of(prior, head), prior, frames) for prior, frames in zip(smoothed, still, strict=True)]
        ratios = _ratios(tracker, found)
        rows.append((f"smoothing {amount:g}", *_medians(found), *ratios))
        if amount == PUBLISHED:
            keys = (f"jitter.{kind}landmarks_stiller", f"jitter.{kind}pose_stiller")
            figures = tuple(Figure(key, value, "times", "higher", data) for key, value in zip(keys, ratios, strict=True))
    return rows, figures


def _jitter(landmarks: Tensor, prior: FacePrior, still: Tensor) -> tuple[float, float]:
    def rms(values: Tensor) -> float:
        return float(values[still].square().mean().sqrt())

    return rms(landmark_jitter(landmarks)), rms(pose_jitter(prior.rotation))


def _medians(values: list[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(statistics.median(column) for column in zip(*values, strict=True))


def _ratios(before: list[tuple[float, float]], after: list[tuple[float, float]]) -> tuple[float, ...]:
    """How many times smaller, median over clips."""
    return tuple(statistics.median([a[k] / b[k] for a, b in zip(before, after, strict=True)]) for k in range(2))


def _peaks(head: HeadModel, fits: list[tuple[FaceTrack, FacePrior]], data: str) -> Table:
    """What is left of peaks: of the fit's own, and of blinks of known height laid over the fit of resting frames."""
    rows, figures = [], ()
    for amount in SMOOTHING:
        after = [smooth_prior(prior, head, amount) for _, prior in fits]
        kept = {name: [x for (_, a), b in zip(fits, after, strict=True) for x in _own_peaks(a, b, name)] for name in _CHANNELS}
        added, late = zip(
            *(pair for (track, prior), b in zip(fits, after, strict=True) for pair in _added(head, track, prior, b, amount)), strict=True
        )
        shares = [100 * statistics.median(values) if values else float("nan") for values in kept.values()]
        rows.append((amount, *shares, sum(map(len, kept.values())), 100 * statistics.median(added), 100 * min(added), max(map(abs, late))))
        if amount == PUBLISHED:
            figures = (Figure("jitter.blink_kept", 100 * statistics.median(added), "%", "higher", data),)
    note = (
        f"Height over its surroundings that is left of peaks of at least {_PROMINENCE:g}, median; the raw height holds noise, which "
        f"adds. Added: pulses of {_HEIGHT:g} and five frames on both lids in resting frames of the fit, so that the true height is known."
    )
    columns = ("smoothing", "lids left, %", "jaw left, %", "peaks", "added blinks left, %", "worst, %", "most frames late")
    return Table("Blinks and syllables", columns, rows, note, figures)


def _own_peaks(raw: FacePrior, smooth: FacePrior, name: str) -> list[float]:
    shares = []
    for channel in _CHANNELS[name]:
        before, after = (prior.expression[:, ARKIT_NAMES.index(channel)].cpu().numpy() for prior in (raw, smooth))
        tops, found = find_peaks(before, prominence=_PROMINENCE)
        for top, height in zip(tops, found["prominences"], strict=True):
            shares.append(float((after[max(top - 1, 0) : top + 2].max() - (before[top] - height)) / height))
    return shares


def _added(head: HeadModel, track: FaceTrack, raw: FacePrior, smooth: FacePrior, amount: float) -> list[tuple[float, int]]:
    """Height kept and frames of delay of blinks laid over resting frames, three a clip."""
    lids = [ARKIT_NAMES.index(name) for name in _CHANNELS["lids"]]
    middles = [f for f in resting(track).nonzero().flatten().tolist() if 4 <= f < len(raw) - 4]
    outcome = []
    for middle in middles[:: max(len(middles) // 3, 1)][:3]:
        expression = raw.expression.clone()
        expression[middle - 2 : middle + 3, lids] += _HEIGHT * _PULSE[:, None].to(expression)
        filmed = raw.filmed.replace(expression=expression, background=None)
        extra = (smooth_prior(filmed, head, amount).expression - smooth.expression)[middle - 4 : middle + 5, lids].mean(1)
        outcome.append((float(extra.max()) / _HEIGHT, int(extra.argmax()) - 4))
    return outcome


def main(argv: list[str] | None = None) -> None:
    command("Jitter", measure, argv)


if __name__ == "__main__":
    main()
