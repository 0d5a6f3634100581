"""A look at a prior over time: curves and confidence as pictures, and the frames that went wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .conventions import ARKIT_NAMES
from .prior.camera import euler_from_rotation
from .types import FacePrior

_HEIGHT, _STRIP, _MARGIN, _GAP = 110, 22, 46, 14
_PAPER, _INK, _GRID, _CUT = (24, 24, 28), (210, 210, 210), (60, 60, 66), (250, 210, 60)
_COLOURS = ((240, 120, 90), (110, 190, 255), (130, 220, 130), (230, 170, 240))


@dataclass(frozen=True)
class BadFrame:
    """A frame that should be looked at."""

    frame: int
    confidence: float  # 0..1

    def __str__(self) -> str:
        return f"frame {self.frame}: confidence {self.confidence:.2f}" + (", no face" if self.confidence == 0 else "")


def bad_frames(prior: FacePrior, threshold: float = 0.3, most: int | None = None) -> list[BadFrame]:
    """Frames whose confidence is below the threshold, the worst first."""
    confidence = prior.confidence.tolist()
    found = sorted((value, frame) for frame, value in enumerate(confidence) if value < threshold)
    return [BadFrame(frame, value) for value, frame in found[:most]]


def draw_curves(prior: FacePrior, threshold: float = 0.3, width: int = 1024) -> Tensor:
    """One picture (1, h, width, 3): pose, lids and jaw, mouth, gaze over the frames; below, confidence from red to green; cuts as lines."""
    euler = euler_from_rotation(prior.rotation)
    panels = {
        "pose, degrees": dict(zip(("yaw", "pitch", "roll"), euler.T, strict=True)),
        "lids and jaw": {name: _channel(prior, name) for name in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen")},
        "mouth": {name: _channel(prior, name) for name in ("mouthSmileLeft", "mouthPucker", "mouthFunnel", "mouthUpperUpLeft")},
        "gaze, degrees": dict(zip(("yaw", "pitch"), torch.rad2deg(prior.gaze.mean(1)).T, strict=True)),
    }
    height = len(panels) * (_HEIGHT + _GAP) + _GAP + 2 * _STRIP
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    x = _MARGIN + (np.arange(len(prior)) + 0.5) / len(prior) * (width - _MARGIN - 8)
    for row, (title, curves) in enumerate(panels.items()):
        top = _GAP + row * (_HEIGHT + _GAP)
        _panel(draw, x, top, width, title, {name: values.detach().cpu().numpy() for name, values in curves.items()})
    top = _GAP + len(panels) * (_HEIGHT + _GAP)
    half = (x[1] - x[0]) / 2 if len(x) > 1 else (width - _MARGIN) / 2
    for at, value in zip(x, prior.confidence.tolist(), strict=True):
        colour = (220, 60, 50) if value < threshold else (int(220 * (1 - value)), int(90 + 120 * value), 80)
        draw.rectangle((at - half, top, at + half, top + _STRIP), fill=colour)
    draw.text((4, top + 5), "conf", fill=_INK)
    draw.text((_MARGIN, top + _STRIP + 4), f"0 .. {len(prior) - 1}; red: below {threshold:g}", fill=_INK)
    if prior.cuts is not None:
        for at in prior.cuts.nonzero().flatten().tolist():
            draw.line((x[at] - half, _GAP, x[at] - half, top + _STRIP), fill=_CUT)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


def _channel(prior: FacePrior, name: str) -> Tensor:
    return prior.expression[:, ARKIT_NAMES.index(name)]


def _panel(draw: ImageDraw.ImageDraw, x: np.ndarray, top: int, width: int, title: str, curves: dict[str, np.ndarray]) -> None:
    """One frame of curves with its range at the left and its names at the top."""
    values = np.stack(list(curves.values()))
    low = min(float(values.min()), 0.0)
    high = max(float(values.max()), low + 1e-3)
    draw.rectangle((_MARGIN, top, width - 8, top + _HEIGHT), outline=_GRID)
    draw.text((4, top), f"{high:.3g}", fill=_INK)
    draw.text((4, top + _HEIGHT - 10), f"{low:.3g}", fill=_INK)
    at = _MARGIN + 6
    draw.text((at, top + 2), title, fill=_INK)
    at += draw.textlength(title) + 16
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        y = top + _HEIGHT - 2 - (curve - low) / (high - low) * (_HEIGHT - 18)
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=1)
        draw.text((at, top + 2), name, fill=colour)
        at += draw.textlength(name) + 12
