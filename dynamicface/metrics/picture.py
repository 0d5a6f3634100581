"""A quality report as a picture: one row per metric with its figures and its curve over time."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .report import METRICS, SETS, Metric, QualityReport

_WIDTH, _ROW, _HEAD, _MARGIN = 1120, 52, 64, 20
_COLUMNS = (("metric", 20), ("mean", 300), ("worst", 380), ("in frame", 460), ("plate", 540))
_CURVES = 620, _WIDTH - _MARGIN  # x of the curves' ends
_PAPER, _RULE, _INK, _FAINT = (24, 24, 26), (52, 52, 56), (228, 228, 228), (140, 140, 146)
_RESULT, _PLATE, _WORST = (88, 176, 255), (120, 120, 126), (255, 96, 88)


def draw_report(report: QualityReport, title: str = "Quality report") -> Tensor:
    """The report as (1, H, W, 3): blue is the result, grey the plate, red marks the frames to look at."""
    marked = report.worst_frames()
    notes = [f"{SETS[name]}: {value:.3g}" for name, value in report.sets.items()] + [note[:150] for note in report.notes]
    height = _HEAD + _ROW * len(report.curves) + 18 * len(notes) + _MARGIN
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 12), title, fill=_INK, font_size=18)
    frames = f"{len(report)} frame{'s' * (len(report) != 1)}"
    listed = f"look at frame {', '.join(map(str, marked))}" if marked else "no frame stands out"
    draw.text((_CURVES[0], 14), f"{frames}; {listed}", fill=_WORST if marked else _FAINT, font_size=14)
    for text, x in _COLUMNS:
        draw.text((x, 40), text, fill=_FAINT, font_size=13)
    for number, (name, curve) in enumerate(report.curves.items()):
        top = _HEAD + number * _ROW
        draw.line([(0, top), (_WIDTH, top)], fill=_RULE)
        _figures(draw, top, METRICS[name], report)
        _plot(draw, top + 6, curve, report.plate.get(name), marked)
    for number, note in enumerate(notes):
        draw.text((_MARGIN, height - _MARGIN - 18 * (len(notes) - number) + 10), _without_accents(note), fill=_FAINT, font_size=13)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def _figures(draw: ImageDraw.ImageDraw, top: int, metric: Metric, report: QualityReport) -> None:
    found = report.summary(metric.name)
    draw.text((20, top + 8), metric.label, fill=_INK, font_size=15)
    draw.text((20, top + 28), f"{metric.unit}{', ' * bool(metric.unit)}{metric.better} is better", fill=_FAINT, font_size=12)
    plate = "" if found.plate is None else f"{found.plate:.3g}"
    texts = (f"{found.mean:.3g}", f"{found.worst:.3g}", str(found.worst_frame), plate)
    for (_, x), text in zip(_COLUMNS[1:], texts, strict=True):
        draw.text((x, top + 16), text, fill=_INK, font_size=15)


def _plot(draw: ImageDraw.ImageDraw, top: int, curve: Tensor, plate: Tensor | None, marked: list[int]) -> None:
    """Curves in the row's right part, scaled to their own range; a clip of one frame shows a dot."""
    left, right = _CURVES
    values = torch.cat([curve, curve if plate is None else plate])
    values = values[~values.isnan()]
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-3 * max(abs(high), abs(low)), 1e-9)
    bottom, step = top + _ROW - 12, (right - left) / max(len(curve) - 1, 1)

    def points(line: Tensor) -> list[list[tuple[float, float]]]:
        """Unbroken pieces of a curve."""
        pieces: list[list[tuple[float, float]]] = [[]]
        for frame, value in enumerate(line.tolist()):
            if math.isnan(value):
                pieces.append([])
            else:
                pieces[-1].append((left + frame * step, bottom - (value - low) / span * (bottom - top)))
        return [piece for piece in pieces if piece]

    for frame in marked:
        draw.line([(left + frame * step, top - 4), (left + frame * step, bottom + 4)], fill=(96, 44, 42), width=2)
    for line, colour in ((plate, _PLATE), (curve, _RESULT)):
        for piece in [] if line is None else points(line):
            draw.line(piece, fill=colour, width=2)
            if len(piece) == 1:
                x, y = piece[0]
                draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)


def _without_accents(text: str) -> str:
    """The text with plain letters: the font has no others."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
