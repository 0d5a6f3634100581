"""Edits of one factor of a prior. With every dial at its default the very same prior comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .conventions import ARKIT_NAMES
from .dials import DIALS, MEASURES
from .errors import DynamicFaceError
from .prior import light
from .prior.camera import rotation_from_euler
from .prior.fit import landmark_bases
from .prior.head import HeadModel
from .regions import STRONGEST
from .types import FacePrior, Identity

Dialled = float | Tensor
NECK_PIVOT = (0.0, -0.075, -0.075)  # metres: about where the skull sits on the spine
_MEASURE_STEP = 0.12  # a measure grows by this share at +1


def edit_expression(
    prior: FacePrior, dials: Mapping[str, Dialled] | None = None, channels: Mapping[str, Dialled] | None = None, intensity: Dialled = 1.0
) -> FacePrior:
    """Move dials (`dials.DIALS`, -1..1), add to single ARKit channels (-1..1), scale the filmed expression (intensity 0..2).

    Every value is a number, or a tensor (F,) with one for each frame.
    """
    dials, channels = dials or {}, channels or {}
    _known(dials, DIALS, "expression dial")
    _known(channels, ARKIT_NAMES, "ARKit channel")
    dials, channels = ({k: _per_frame(v, prior) for k, v in given.items() if _moved(v)} for given in (dials, channels))
    if not dials and not channels and not _moved(intensity, 1):
        return prior
    add, release = torch.zeros_like(prior.expression), torch.ones_like(prior.expression)
    gaze = prior.gaze
    for name, value in dials.items():
        dial = DIALS[name]
        for strength, active, passive in ((value.clamp_min(0), dial.up, dial.down), ((-value).clamp_min(0), dial.down, dial.up)):
            add = add + strength * _vector(active, add)
            released = _vector(dict.fromkeys(passive.keys() - active.keys(), 1.0), add)
            release = release * (1 - strength.clamp_max(1) * released)
        gaze = gaze + value[..., None] * gaze.new_tensor(dial.gaze) * (math.pi / 180)
    for name, value in channels.items():
        add = add + value * _vector({name: 1.0}, add)
    expression = prior.expression * _per_frame(intensity, prior)
    return prior.replace(expression=(expression * release + add).clamp(0, STRONGEST), gaze=gaze)


def edit_pose(prior: FacePrior, yaw: Dialled = 0.0, pitch: Dialled = 0.0, roll: Dialled = 0.0) -> FacePrior:
    """Turn the head about the top of the neck by degrees (meant for +-25), numbers or (F,); signs as in `conventions.py`."""
    if not any(map(_moved, (yaw, pitch, roll))):
        return prior
    return turn_head(prior, rotation_from_euler(yaw, pitch, roll).to(prior.rotation))


def turn_head(prior: FacePrior, turn: Tensor) -> FacePrior:
    """Turn the head about the top of the neck by rotations (F, 3, 3) or (3, 3) in the head's own axes."""
    rotation = prior.rotation @ turn
    pivot = prior.rotation.new_tensor(NECK_PIVOT)
    return prior.replace(rotation=rotation, translation=prior.translation + (prior.rotation - rotation) @ pivot)


def edit_light(
    prior: FacePrior,
    azimuth: float = 45.0,
    elevation: float = 30.0,
    strength: float = 0.0,
    warmth: float = 0.0,
    exposure: float = 0.0,
    turn: float = 0.0,
) -> FacePrior:
    """Relight the face.

    strength 0..1 (2 by typing): fade from the filmed light to a key light from azimuth (> 0: viewer's right) and elevation (degrees).
    warmth -1..1 tints towards tungsten or sky; exposure in stops; turn rotates the filmed light about the vertical, degrees.
    """
    if strength == warmth == exposure == turn == 0:
        return prior
    lit = prior.illumination
    if turn:
        lit = light.rotate(lit, rotation_from_euler(turn, 0.0, 0.0).to(lit).expand(len(lit), 3, 3))
    if strength:
        level = light.frontal_level(lit)
        key = light.directional(azimuth, elevation, lit)[None, :, None] * (level / light.luminance(level)[:, None])[:, None]
        key = key / light.luminance(light.frontal_level(key))[:, None, None] * light.luminance(level)[:, None, None]
        ambient = torch.zeros_like(lit)
        ambient[:, 0] = level / 0.282095
        lit = torch.lerp(lit, 0.3 * ambient + 0.7 * key, strength)
    tint = lit.new_tensor([2.0 ** (0.45 * warmth), 1.0, 2.0 ** (-0.6 * warmth)])
    tint = tint / light.luminance(tint)
    return prior.replace(illumination=lit * tint * 2.0**exposure)


def edit_identity(prior: FacePrior, head: HeadModel, measures: Mapping[str, float] | None = None, exaggerate: float = 0.0) -> FacePrior:
    """Stretch measures of the face (`dials.MEASURES`, -1..1 = -+12 %) or exaggerate what sets it apart (-1 = mean head, 1 = double)."""
    measures = {k: v for k, v in (measures or {}).items() if v != 0}
    _known(measures, MEASURES, "identity dial")
    if not measures and exaggerate == 0:
        return prior
    shape = prior.identity.shape * (1 + exaggerate)
    if measures:
        shape = shape + _measure_step(shape, head, measures)
    who = prior.identity
    return prior.replace(identity=Identity(shape, who.albedo, who.albedo_weight, who.embedding))


def _measure_step(shape: Tensor, head: HeadModel, measures: Mapping[str, float]) -> Tensor:
    """The smallest change of shape that gives the moved measures their new length and leaves the other measures alone."""
    mean, basis, _ = landmark_bases(head)
    points = mean + torch.einsum("s,slc->lc", shape, basis)
    gradients, steps = [], []
    for name, pairs in MEASURES.items():
        a, b = torch.tensor(pairs, device=shape.device).T
        span = points[a] - points[b]
        length = span.norm(dim=-1)
        gradients.append((torch.einsum("pc,spc->ps", span / length[:, None], basis[:, a] - basis[:, b])).sum(0))
        steps.append(length.sum() * _MEASURE_STEP * measures.get(name, 0.0))
    jacobian, target = torch.stack(gradients), torch.stack(steps)
    gram = jacobian @ jacobian.T
    gram = gram + torch.eye(len(gram), device=shape.device, dtype=shape.dtype) * gram.diagonal().mean() * 1e-3
    return jacobian.T @ torch.linalg.solve(gram, target)


def _known(given: Mapping[str, Dialled], names: object, what: str) -> None:
    wrong = sorted(set(given) - set(names))
    if wrong:
        raise DynamicFaceError(f"No {what} is called {', '.join(wrong)}. There are: {', '.join(names)}.")
    for name, value in given.items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise DynamicFaceError(f"The {what} {name} is {value}; expected a number between -1 and 1.")


def _moved(value: Dialled, neutral: float = 0) -> bool:
    return bool((torch.as_tensor(value) != neutral).any())


def _per_frame(value: Dialled, prior: FacePrior) -> Tensor:
    """A number or (F,) as (1, 1) or (F, 1)."""
    return torch.as_tensor(value).to(prior.expression).reshape(-1, 1)


def _vector(weights: Mapping[str, float], like: Tensor) -> Tensor:
    """(52,) from weights by channel name."""
    return like.new_tensor([weights.get(name, 0.0) for name in ARKIT_NAMES])


SETTINGS: dict[str, tuple[str, ...]] = {
    "expression": (*DIALS, *ARKIT_NAMES, "intensity"),
    "pose": ("yaw", "pitch", "roll"),
    "light": ("light", "azimuth", "elevation", "warmth", "exposure", "turn_light"),
    "identity": (*MEASURES, "exaggerate"),
}
"""Every name `apply_settings` (and `--set` of the command line) understands, by the factor it moves."""


def apply_settings(prior: FacePrior, head: HeadModel, settings: Mapping[str, float]) -> FacePrior:
    """Move any dials of any factor by name, for example {"smile": 0.8, "yaw": 10, "light": 0.5}. Names: `SETTINGS`."""
    known = [name for names in SETTINGS.values() for name in names]
    _known(settings, known, "dial")
    chosen = {factor: {n: settings[n] for n in names if n in settings} for factor, names in SETTINGS.items()}
    lamp = chosen["light"]
    if "light" in lamp:
        lamp["strength"] = lamp.pop("light")
    if "turn_light" in lamp:
        lamp["turn"] = lamp.pop("turn_light")
    prior = edit_identity(prior, head, {n: v for n, v in chosen["identity"].items() if n != "exaggerate"}, settings.get("exaggerate", 0.0))
    prior = edit_expression(
        prior,
        {n: v for n, v in chosen["expression"].items() if n in DIALS},
        {n: v for n, v in chosen["expression"].items() if n in ARKIT_NAMES},
        settings.get("intensity", 1.0),
    )
    return edit_light(edit_pose(prior, **chosen["pose"]), **lamp)
