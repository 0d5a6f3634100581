"""A clip's coefficients in time: smoothing without lag, bridging of frames that could not be fitted. Pixels are never smoothed.

Smoothing. For every group of channels that move together (head, lids, lips ..) and every shot, the smooth track x of the fitted values y
minimises

    sum_t w_t |x_t - y_t|^2 + tau^4 sum_t q_t |x_(t-1) - 2 x_t + x_(t+1)|^2

which is the Rauch-Tung-Striebel smoother of a velocity that drifts, solved for all frames at once as a banded system (Whittaker 1923,
Eilers 2003). w_t is the frame's confidence, tau the time constant in frames. q_t is 1 while what is smoothed away may be the fit's noise
and falls to 0 where it cannot: where the group bends faster, or the smooth track strays further from the data, than the noise explains.
So a resting face is still, and a blink or a plosive keeps its height and its frame. The noise is measured on the clip itself. Where a
long tau strays, a shorter one may not: every frame gets the stiffest of a ladder of tau that holds there, so that a higher dial never
lets go of what a lower one calms.

What the face does is judged where it is seen: at the landmarks of the group, in the head's own space. Its coefficients cannot tell, most
of them rest on their bound 0 and leave it now and then, and many move one point.

Rotations are smoothed as rotation vectors about the shot's mean rotation; what is smooth there is smooth on the sphere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum
from scipy.linalg import solveh_banded
from torch import Tensor

from ..conventions import ARKIT_NAMES, LANDMARKS
from ..landmark_sets import BROWS, EYES
from ..types import FacePrior, Filmed
from .camera import rotation_from_vector, slerp, vector_from_rotation
from .fit import landmark_bases
from .head import HeadModel

_LONGEST = 6.0  # frames, the time constant at full smoothing; it grows with the square of the dial
_RUNG = 2**0.5  # between the time constants that are tried
_TOLERANCE = 2.8  # standard deviations of noise beyond which something is soon taken for motion
_STEEP = 4
_ROUNDS = 6
_FIRST = 0.02
_LEAST_WEIGHT = 1e-4  # of frames that were not fitted
_FITTED = 0.1  # confidence from which a frame tells about noise
_QUIET_FRAMES = 7  # length of the stretches among which the quiet ones are looked for; a talking mouth rests now and then
_QUIET = 0.1  # quantile of the stretches
_QUIET_SPREAD = 0.543  # RMS of a stretch at that quantile, of the RMS of all, for white noise
_POOL = 16  # order of the mean over a group's channels: nearly their maximum, yet not at the mercy of one of many


@dataclass(frozen=True)
class _Group:
    """Channels of a factor that move together: they share their weights in time."""

    factor: str
    channels: tuple[int, ...] | None  # None = all
    floor: float  # least standard deviation of the noise: in the factor's unit, of expression in metres at the landmarks
    calm: float = 1.0  # time constant relative to the face's
    points: tuple[int, ...] = ()  # landmarks that tell its motion; their offsets are smoothed alike: what one gives the other takes


def _expression_groups() -> list[_Group]:
    """Lids, brows, and the rest of the face: lips and jaw tell each other's motion from noise."""
    lids, brows = ({p for ring in rings for p in ring} for rings in (EYES, BROWS))
    of_lids, of_brows = (
        tuple(i for i, name in enumerate(ARKIT_NAMES) if name.startswith(names)) for names in (("eye", "cheekSquint"), ("brow",))
    )
    rest = tuple(i for i in range(len(ARKIT_NAMES)) if i not in of_lids and i not in of_brows)
    elsewhere = set(range(LANDMARKS)) - lids - brows
    parts = ((of_lids, 1e-4, lids), (of_brows, 1.5e-4, brows), (rest, 1.5e-4, elsewhere))
    return [_Group("expression", channels, floor, points=tuple(sorted(points))) for channels, floor, points in parts]


_ROTATION_FLOOR = math.radians(0.03)
_GROUPS = (
    _Group("translation", None, 1e-4),
    *_expression_groups(),
    _Group("gaze", None, math.radians(0.15)),
    _Group("illumination", None, 2e-3, calm=2.0),
)
_SHUT = 0.45  # blink from which the iris is not seen
_BLINK_FRAMES = 14  # longest closure that counts as a blink, with a frame on either side
_FACTORS = ("expression", "gaze", "rotation", "translation", "illumination", "offset")


def smooth_prior(prior: FacePrior, head: HeadModel, smoothing: float = 0.5) -> FacePrior:
    """The prior with its per-frame factors smoothed in time, never across a cut.

    smoothing 0..1: 0 returns the very same prior; 0.5 takes out what lasts less than about 5 frames, 1 less than about 20, as far as it
    is no larger than the fit's own noise. A prior composed over a plate gets the face as fitted in that plate smoothed alike, so what was
    not edited stays not edited.
    """
    if smoothing <= 0 or len(prior) < 3:
        return prior
    tau = _LONGEST * smoothing**2
    return _with_filmed(prior, lambda one: _smooth_factors(one, head, tau))


def bridge_frames(prior: FacePrior, bad: Tensor) -> FacePrior:
    """Replace the factors of bad frames (F,) bool by those between the nearest good frames of their shot: rotations on the great circle,
    the rest on the line, held where the shot has good frames on one side only. Confidence is left alone.

    A shot without any good frame holds the nearest good frame of the clip; a clip without any is returned as it is.
    """
    good = (~bad).nonzero().flatten()
    if len(good) in (0, len(bad)):
        return prior
    left, right, t = _neighbours(prior, good)
    return _with_filmed(prior, lambda one: {name: _between(getattr(one, name), left, right, t, name == "rotation") for name in _FACTORS})


def hold_gaze(prior: FacePrior) -> FacePrior:
    """The prior with the gaze of each eye held on its way while the lids are closed over it: then the iris is guessed, and dips.

    Longer closures stay as they are: who looks down lowers the lids too.
    """
    gaze = prior.gaze.clone()
    for eye, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
        shut = prior.expression[:, ARKIT_NAMES.index(name)] > _SHUT
        shut = _short_runs(prior, _widened(shut), _BLINK_FRAMES)
        open_frames = (~shut).nonzero().flatten()
        if len(open_frames) not in (0, len(shut)):
            gaze[:, eye] = _between(prior.gaze[:, eye], *_neighbours(prior, open_frames), False)
    return prior.replace(gaze=gaze)


def _widened(marked: Tensor) -> Tensor:
    """(F,) bool: also the frames before and after."""
    return F.max_pool1d(marked[None, None].float(), 3, 1, 1)[0, 0] > 0


def hold_bad_frames(prior: FacePrior, threshold: float = 0.3, longest: int = 24) -> FacePrior:
    """Work through bad frames: where confidence is below the threshold for at most `longest` frames on end, the factors are bridged from
    the good frames around, and confidence with them, so that the change does not fade there. Longer stretches stay as they are."""
    bad = _short_runs(prior, prior.confidence < threshold, longest)
    good = (~bad & (prior.confidence >= threshold)).nonzero().flatten()
    if not bad.any() or len(good) == 0:
        return prior
    left, right, t = _neighbours(prior, good)
    confidence = torch.where(bad, torch.minimum(prior.confidence[left], prior.confidence[right]), prior.confidence)

    def held(one: FacePrior) -> dict[str, Tensor]:
        factors = {name: _between(getattr(one, name), left, right, t, name == "rotation") for name in _FACTORS}
        kept = {name: torch.where(bad.view(-1, *[1] * (value.dim() - 1)), value, getattr(one, name)) for name, value in factors.items()}
        return kept | {"confidence": confidence}

    return _with_filmed(prior, held)


def fade_bad_frames(prior: FacePrior, threshold: float = 0.3, frames: int = 6) -> FacePrior:
    """Let go of bad frames gently: confidence is 0 where it is below the threshold and returns over so many frames on either side within
    the shot, so that the change fades to the plate before a bad stretch instead of popping off."""
    bad = prior.confidence < threshold
    if not bad.any():
        return prior
    at = torch.arange(len(prior), device=bad.device)
    shot = shot_numbers(prior)
    distance = (at[:, None] - at[bad][None]).abs().masked_fill(shot[:, None] != shot[bad][None], len(prior) + frames)
    ramp = (distance.amin(1) / (frames + 1)).clamp(0, 1).to(prior.confidence)
    return _with_filmed(prior, lambda one: {"confidence": one.confidence * (3 - 2 * ramp) * ramp * ramp})


def shot_numbers(prior: FacePrior) -> Tensor:
    """(F,) which shot of the clip a frame belongs to, counted from 0."""
    if prior.cuts is None:
        return torch.zeros(len(prior), dtype=torch.long, device=prior.confidence.device)
    return prior.cuts.long().cumsum(0) - prior.cuts[0].long()


def _with_filmed(prior: FacePrior, change) -> FacePrior:
    """Apply a change of per-frame factors (prior -> changes) to a prior and to the face as filmed behind it.

    A factor that was the filmed one's own stays the very same tensor: that is how the composite knows it was not edited.
    """
    if prior.background is None:
        return prior.replace(**change(prior))
    filmed = prior.filmed
    changed = filmed.replace(**change(filmed))
    ground = Filmed(prior.background.plate, changed, prior.background.matte)
    if all(getattr(prior, name) is getattr(filmed, name) for name in (*_FACTORS, "confidence")):
        own = {name: getattr(changed, name) for name in (*_FACTORS, "confidence")}
    else:
        own = change(prior)
        own |= {name: getattr(changed, name) for name in own if getattr(prior, name) is getattr(filmed, name)}
    return prior.replace(**own, background=ground)


def _smooth_factors(prior: FacePrior, head: HeadModel, tau: float) -> dict[str, Tensor]:
    """Every per-frame factor, smoothed shot by shot."""
    weight = prior.confidence.clamp_min(_LEAST_WEIGHT)
    basis = landmark_bases(head)[2].to(prior.expression)
    smooth = {name: getattr(prior, name).clone() for name in _FACTORS}
    smooth["rotation"] = _each_shot(prior, lambda s: _smooth_rotation(prior.rotation[s], weight[s], tau))
    for group in _GROUPS:
        values, result = getattr(prior, group.factor).flatten(1), smooth[group.factor].flatten(1)
        channels, points = list(range(values.shape[1]) if group.channels is None else group.channels), list(group.points)
        lead, led = values[:, channels], prior.offset[:, points].flatten(1)
        follow = torch.cat([lead, led], 1)
        if points:
            lead = einsum(lead, basis[channels][:, points].flatten(1), "f e, e p -> f p") + led
        noise, calm = _noise(prior, lead, group.floor), tau * group.calm
        both = _each_shot(prior, lambda s, a=lead, b=follow, n=noise, t=calm: _smooth(a[s], weight[s], n, t, b[s]))
        result[:, channels] = both[:, : len(channels)]
        smooth[group.factor] = result.view_as(smooth[group.factor])
        if points:
            smooth["offset"][:, points] = both[:, len(channels) :].unflatten(1, (-1, 3))
    smooth["expression"] = torch.minimum(smooth["expression"].clamp_min(0), prior.expression.amax(0))
    return smooth


def _each_shot(prior: FacePrior, smooth) -> Tensor:
    lengths = torch.unique_consecutive(shot_numbers(prior), return_counts=True)[1].tolist()
    ends = np.cumsum(lengths).tolist()
    return torch.cat([smooth(slice(end - length, end)) for length, end in zip(lengths, ends, strict=True)])


def _smooth_rotation(rotation: Tensor, weight: Tensor, tau: float) -> Tensor:
    """(T, 3, 3) of one shot, in exponential coordinates about its mean."""
    u, _, vh = torch.linalg.svd((rotation * weight[:, None, None]).sum(0))
    mean = u @ vh
    vectors = vector_from_rotation(rotation @ mean.T)
    fitted = weight > _FITTED
    noise = _quiet_spread(vectors, fitted[2:] & fitted[1:-1] & fitted[:-2], _ROTATION_FLOOR)
    return rotation_from_vector(_smooth(vectors, weight, noise, tau, vectors)) @ mean


def _noise(prior: FacePrior, values: Tensor, floor: float) -> Tensor:
    """(C,) standard deviation of the fit's noise in channels (F, C) over the clip, from frames that were fitted."""
    shot, fitted = shot_numbers(prior), prior.confidence > _FITTED
    inside = (shot[2:] == shot[:-2]) & fitted[2:] & fitted[1:-1] & fitted[:-2]
    return _quiet_spread(values, inside, floor)


def _quiet_spread(values: Tensor, inside: Tensor, floor: float) -> Tensor:
    """(C,) the spread of noise: the second differences of (F, C) in its quiet stretches. A channel at rest on its bound tells nothing."""
    if inside.sum() < 2 * _QUIET_FRAMES:
        return values.new_full(values.shape[1:], floor)
    bend = torch.where(inside[:, None], values.diff(n=2, dim=0), torch.nan)
    stretch = bend.square().unfold(0, _QUIET_FRAMES, 1).mean(-1).sqrt()
    quiet = torch.nanquantile(torch.where(stretch > 0, stretch, torch.nan), _QUIET, 0)
    return (quiet / (_QUIET_SPREAD * math.sqrt(6))).nan_to_num(floor).clamp_min(floor)


def _smooth(lead: Tensor, weight: Tensor, noise: Tensor, tau: float, follow: Tensor) -> Tensor:
    """Smooth channels (T, D) of one shot that share their weights in time, as stiffly as the leading ones (T, C) allow.

    weight (T,), noise (C,) of the leading ones, tau in frames, the longest that is tried.
    """
    if len(lead) < 3:
        return follow
    y, w, sigma, followers = (x.detach().cpu().double().numpy() for x in (lead, weight, noise, follow))
    rungs = [tau / _RUNG**k for k in range(max(1, math.ceil(math.log(tau, _RUNG))))]
    stiffness = np.maximum.reduce([_stiffness(y, w, sigma, rung) for rung in rungs])
    return torch.from_numpy(_solve(followers, w, stiffness)).to(follow)


def _stiffness(y: np.ndarray, w: np.ndarray, sigma: np.ndarray, tau: float) -> np.ndarray:
    """(T - 2,) how stiff the track of y (T, C) may be with a time constant: tau^4, less where the data are surprising."""
    x, surprise = _solve(y, w, np.full(len(y) - 2, _FIRST)), np.zeros(len(y) - 2)  # the data, bridged where they are not believed
    for _ in range(_ROUNDS):
        bend = np.pad(_pooled(np.diff(x, 2, axis=0) / (math.sqrt(6) * sigma)), 1)  # a peak's flanks do not bend, but belong to it
        stray = _pooled((y - x) * np.sqrt(w)[:, None] / sigma)
        # What once proved to be motion stays motion: otherwise a stretch would be smoothed and released in turns.
        surprise = np.maximum.reduce([surprise, bend[:-2], bend[1:-1], bend[2:], stray[:-2], stray[1:-1], stray[2:]])
        stiffness = tau**4 * np.exp(-((surprise / _TOLERANCE) ** _STEEP))
        x = _solve(y, w, stiffness)
    return stiffness


def _pooled(z: np.ndarray) -> np.ndarray:
    """(T, C) -> (T,): how far the channels of a group are from rest, together."""
    return np.mean(np.abs(z) ** _POOL, axis=1) ** (1 / _POOL)


def _solve(y: np.ndarray, w: np.ndarray, q: np.ndarray) -> np.ndarray:
    """argmin_x sum w (x - y)^2 + sum q (second difference of x)^2 for y (T, C), w (T,), q (T - 2,)."""
    bands = np.zeros((3, len(y)))  # upper form: second, first off-diagonal, diagonal
    bands[2] = w
    bands[2, :-2] += q
    bands[2, 1:-1] += 4 * q
    bands[2, 2:] += q
    bands[1, 1:-1] -= 2 * q
    bands[1, 2:] -= 2 * q
    bands[0, 2:] = q
    return solveh_banded(bands, w[:, None] * y)


def _short_runs(prior: FacePrior, marked: Tensor, longest: int) -> Tensor:
    """(F,) marked frames whose run, within a shot, is at most so long."""
    _, lengths = torch.unique_consecutive(shot_numbers(prior) * 2 + marked.long(), return_counts=True)
    return marked & (lengths.repeat_interleave(lengths) <= longest)


def _neighbours(prior: FacePrior, good: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each frame the good frames left and right of it, in its own shot where there are any, and how far it is from left to right."""
    frames = torch.arange(len(prior), device=good.device)
    shot = shot_numbers(prior)
    right = torch.searchsorted(good, frames).clamp(max=len(good) - 1)
    left = (torch.searchsorted(good, frames, right=True) - 1).clamp_min(0)
    left, right = good[left], good[right]
    before, after = (shot[left] == shot) & (left <= frames), (shot[right] == shot) & (right >= frames)
    nearest = torch.where((frames - left).abs() <= (right - frames).abs(), left, right)
    left = torch.where(before, left, torch.where(after, right, nearest))
    right = torch.where(after, right, left)
    t = ((frames - left) / (right - left).clamp_min(1)).clamp(0, 1).to(prior.confidence)
    return left, right, t


def _between(value: Tensor, left: Tensor, right: Tensor, t: Tensor, rotation: bool) -> Tensor:
    """Factor (F, ..) at t between frames left and right; a frame that is its own neighbour keeps its value to the bit."""
    a, b = value[left], value[right]
    mixed = slerp(a, b, t) if rotation else torch.lerp(a, b, t.view(-1, *[1] * (value.dim() - 1)))
    return torch.where((left == right).view(-1, *[1] * (value.dim() - 1)), a, mixed)
