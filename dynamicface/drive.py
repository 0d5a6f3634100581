"""Performances: what a face does over time, taken from one clip, file or set of curves and given to another face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .dials import DIALS
from .edit import edit_expression, edit_pose, turn_head
from .errors import DynamicFaceError
from .io.curves import Curves
from .prior.camera import rotation_from_vector, slerp, vector_from_rotation
from .regions import move_expression
from .types import FacePrior, Filmed

_PER_FRAME = ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset", "confidence")


@dataclass(frozen=True)
class Performance:
    """Expression, gaze and head rotation of F frames, whoever's they are."""

    expression: Tensor  # (F, 52)
    gaze: Tensor  # (F, 2, 2) radians
    rotation: Tensor  # (F, 3, 3)
    fps: float = 24.0

    def __len__(self) -> int:
        return len(self.expression)


def performance_of(prior: FacePrior, fps: float = 24.0) -> Performance:
    """What the face of a prior does."""
    return Performance(prior.expression, prior.gaze, prior.rotation, fps)


def sample_performance(performance: Performance, times: Tensor) -> Performance:
    """A performance at fractional frames (N,), held at both ends; rotations take the shortest way."""
    times = times.clamp(0, len(performance) - 1)
    low = times.floor().long()
    high = (low + 1).clamp_max(len(performance) - 1)
    share = (times - low).to(performance.expression)

    def between(values: Tensor) -> Tensor:
        return torch.lerp(values[low], values[high], share.view(-1, *[1] * (values.dim() - 1)))

    rotation = slerp(performance.rotation[low], performance.rotation[high], share)
    return Performance(between(performance.expression), between(performance.gaze), rotation, performance.fps)


def hold_still(prior: FacePrior, frames: int) -> FacePrior:
    """A still as a shot of so many frames, sharing its pixels; a clip of as many frames is returned as it is.

    Raises DynamicFaceError for a clip of another length.
    """
    if len(prior) == frames:
        return prior
    if len(prior) != 1:
        raise DynamicFaceError(f"The prior has {len(prior)} frames, but {frames} are asked for; use a still, or a clip of {frames} frames.")

    def repeat(values: Tensor) -> Tensor:
        return values.expand(frames, *values.shape[1:])

    background = prior.background
    if background is not None:
        matte = None if background.matte is None else repeat(background.matte)
        background = Filmed(repeat(background.plate), hold_still(background.prior, frames), matte)
    return prior.replace(**{name: repeat(getattr(prior, name)) for name in _PER_FRAME}, background=background, cuts=None)


def drive_face(
    prior: FacePrior,
    performance: Performance,
    *,
    relative: bool = False,
    neutral: int = 0,
    amount: float = 1.0,
    regions: Mapping[str, float] | None = None,
    pose: float = 0.0,
    delay: float = 0.0,
    stretch: bool = False,
) -> FacePrior:
    """Give a face a performance. A still becomes a shot as long as the performance; a clip keeps its own length.

    relative: only what the performance changes since its frame `neutral` is added; otherwise its expressions replace the face's own.
    amount: 0 as filmed, 1 as performed, above 1 stronger; regions: a factor on it for brows, eyes, mouth, jaw.
    pose: the same for the head's turns, 0 as filmed. delay: frames by which it starts later. stretch: fit its length to the clip's;
    otherwise it runs frame by frame and its ends are held. Raises DynamicFaceError where `neutral` is no frame of it.
    """
    if not 0 <= neutral < len(performance):
        raise DynamicFaceError(f"There is no neutral frame {neutral}; the performance has {len(performance)} frames, counted from 0.")
    prior = hold_still(prior, len(performance) if len(prior) == 1 else len(prior))
    pace = (len(performance) - 1) / max(len(prior) - 1, 1) if stretch else 1.0
    times = (torch.arange(len(prior), device=prior.expression.device, dtype=torch.float64) - delay) * pace
    shown = sample_performance(_on(performance, prior), times)
    expression, gaze, rotation = shown.expression, shown.gaze, shown.rotation
    if relative:
        rest = sample_performance(_on(performance, prior), times.new_tensor([float(neutral)]))
        expression, gaze = expression - rest.expression, gaze - rest.gaze
        rotation = prior.rotation @ rest.rotation.mT @ rotation
    driven = move_expression(prior, expression, gaze, amount=amount, regions=regions, add=relative)
    if pose == 0:
        return driven
    return turn_head(driven, rotation_from_vector(pose * vector_from_rotation(prior.rotation.mT @ rotation)))


def apply_curves(prior: FacePrior, curves: Curves, frames: int | None = None) -> FacePrior:
    """Move dials, ARKit channels, intensity and pose by keyframes, on top of what was filmed.

    A still becomes a shot of `frames` frames, or as many as the curves have; a clip keeps its length and its frames are the curves'.
    """
    prior = hold_still(prior, (frames or len(curves)) if len(prior) == 1 else len(prior))
    values = curves.sample(torch.arange(len(prior), dtype=torch.float32, device=prior.expression.device))
    pose = {name: values.pop(name) for name in ("yaw", "pitch", "roll") if name in values}
    intensity = values.pop("intensity", 1.0)
    dials = {name: value for name, value in values.items() if name in DIALS}
    channels = {name: value for name, value in values.items() if name not in DIALS}
    return edit_pose(edit_expression(prior, dials, channels, intensity), **pose)


def _on(performance: Performance, prior: FacePrior) -> Performance:
    """The performance on the prior's device, in its precision."""
    moved = (getattr(performance, name).to(prior.expression) for name in ("expression", "gaze", "rotation"))
    return Performance(*moved, performance.fps)
