"""What was measured of a clip: a curve per metric, a summary, and the frames to look at first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import DynamicFaceError


@dataclass(frozen=True)
class Metric:
    """One curve of a report and how to read it."""

    name: str
    label: str
    unit: str
    better: str  # "higher" or "lower"
    step: float  # a difference between frames that is worth a look; smaller ones are measuring noise. Infinite: none is
    meaning: str

    @property
    def informative(self) -> bool:
        """Shown beside the plate's own, but it marks no frame."""
        return math.isinf(self.step)

    def is_worse(self, value: float, than: float) -> bool:
        return value < than if self.better == "higher" else value > than


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("presence", "face found", "", "higher", 0.2, "the landmark net's own score; 0 = no face in this frame"),
        Metric("identity", "identity cosine", "", "higher", 0.05, "to the source person, or to the plate's where no source is given"),
        Metric("identity_drift", "identity drift", "", "lower", 0.02, "1 - cosine to the clip's mean identity"),
        Metric("expression", "expression change", "RMS", "lower", 0.03, "52 coefficients against the plate's"),
        Metric("gaze", "gaze change", "degrees", "lower", 3.0, "against the plate's"),
        Metric("pose", "pose change", "degrees", "lower", 1.0, "against the plate's"),
        Metric("light", "light change", "of shading", "lower", 0.05, "against the plate's, as the skin shows it"),
        Metric("ssim", "inter-frame SSIM", "", "higher", 0.02, "face against the frame before"),
        Metric("ssim_compensated", "... motion taken out", "", "higher", 0.02, "by the plate's optical flow"),
        Metric("warp_error", "warp error", "RMS", "lower", 0.005, "difference from the frame before, motion taken out"),
        Metric(
            "landmark_jitter", "landmark jitter", "% of eyes", "lower", 0.3, "second difference over the distance of the outer eye corners"
        ),
        Metric("pose_jitter", "pose jitter", "degrees", "lower", 0.3, "change of the head's turn from frame to frame"),
        Metric("sharpness", "sharpness", "of plate", "higher", 0.1, "fine detail of the face over the plate's; 1 = as filmed"),
        Metric("outside", "outside of the mask", "", "lower", 1 / 255, "largest difference from the plate where the mask is 0"),
        Metric("lpips", "LPIPS", "", "lower", 0.05, "perceptual difference of the face from the plate's"),
        Metric("niqe", "NIQE", "", "lower", math.inf, "how unnatural the picture around the face is; read it beside the plate's"),
    )
}

SETS = {
    "face_frechet": "face-feature Fréchet distance (x 100): all faces of the result against the plate's, by the identity net; no FID",
    "fid": "FID: all faces of the result against the plate's, by the Inception file of yours; too large for less than thousands of frames",
}
"""What is measured of all frames together. Fewer frames give a larger distance: compare clips of the same length only."""


@dataclass(frozen=True)
class Summary:
    """One metric over a clip."""

    mean: float
    worst: float
    worst_frame: int
    plate: float | None  # the plate's own mean, where it has one


@dataclass(frozen=True)
class QualityReport:
    """Curves (F,) by metric; not a number where a frame could not be measured (no face, or no frame before)."""

    curves: dict[str, Tensor]
    plate: dict[str, Tensor]  # the same of the plate itself, for what compares neighbouring frames
    notes: tuple[str, ...] = ()  # what was not measured, and why
    sets: Mapping[str, float] = field(default_factory=dict)  # distances of all frames together, by the names of `SETS`

    @classmethod
    def of(
        cls, curves: Mapping[str, Tensor], plate: Mapping[str, Tensor], notes: tuple[str, ...] = (), sets: Mapping[str, float] | None = None
    ) -> QualityReport:
        """A report with its metrics in the order of `METRICS`; those without a single measured frame are left out."""

        def ordered(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[name].float().cpu() for name in METRICS if name in values and not values[name].isnan().all()}

        return cls(ordered(curves), ordered(plate), notes, sets or {})

    def __len__(self) -> int:
        return len(self.curves["presence"])

    def summary(self, name: str) -> Summary:
        """One metric in numbers. Raises DynamicFaceError where it was not measured."""
        if name not in self.curves:
            why = f" ({' '.join(self.notes)})" if self.notes else ""
            raise DynamicFaceError(f"'{name}' was not measured; this report has {', '.join(self.curves)}{why}. Connect what it needs.")
        curve = self.curves[name]
        worst = int(_badness(METRICS[name], curve).argmax())
        plate = float(self.plate[name].nanmean()) if name in self.plate else None
        return Summary(float(curve.nanmean()), float(curve[worst]), worst, plate)

    def scores(self) -> Tensor:
        """(F,) how far each frame stands out from the rest of the clip; above 1 is beyond the noise, infinite without a face.

        It is the largest deviation, in the bad direction, from a metric's median, in steps of that metric or of the clip's own spread where
        that is larger. Where the plate has the same curve, what counts is the difference from it: a quick turn of the head is no fault.
        """
        score = torch.where(self.curves["presence"] > 0, 0.0, torch.inf)
        for name, curve in self.curves.items():
            metric = METRICS[name]
            if metric.informative:
                continue
            own = curve - self.plate[name] if name in self.plate else curve
            middle = own.nanmedian()
            limit = max(metric.step, 1.4826 * float((own - middle).abs().nanmedian()))
            score = torch.maximum(score, _badness(metric, own - middle) / limit)
        return score

    def worst_frames(self, count: int = 5) -> list[int]:
        """Numbers of the frames to look at first, worst first; frames within the noise are not listed."""
        score = self.scores()
        order = score.argsort(descending=True, stable=True)[:count]
        return [int(frame) for frame in order if score[frame] > 1]

    def failure(self, name: str, threshold: float, worst: bool = False) -> str | None:
        """Why a threshold is missed, as a sentence; None where it is kept. worst: every frame must keep it, not only the mean."""
        found, metric = self.summary(name), METRICS[name]
        value = found.worst if worst else found.mean
        if not metric.is_worse(value, threshold):
            return None
        limit = f"{'at least' if metric.better == 'higher' else 'at most'} {threshold:g} {metric.unit}".strip()
        where = f"in frame {found.worst_frame}" if worst else f"on average over {len(self)} frames, worst in frame {found.worst_frame}"
        label = metric.label.lstrip(". ")
        return f"{label[0].upper()}{label[1:]} is {value:.3g} {where}; it must be {limit}."

    def to_json(self) -> str:
        """Everything as JSON: metrics, their curves (null = not measured), the worst frames, the notes."""
        metrics = {}
        for name, curve in self.curves.items():
            metric, found = METRICS[name], self.summary(name)
            metrics[name] = {
                "label": metric.label.lstrip(". "),
                "meaning": metric.meaning,
                "unit": metric.unit,
                "better": metric.better,
                "mean": round(found.mean, 5),
                "worst": round(found.worst, 5),
                "worst_frame": found.worst_frame,
                "plate_mean": None if found.plate is None else round(found.plate, 5),
                "curve": [None if value != value else round(value, 5) for value in curve.tolist()],
            }
        sets = {name: {"meaning": SETS[name], "better": "lower", "value": round(value, 5)} for name, value in self.sets.items()}
        report = {"frames": len(self), "worst_frames": self.worst_frames(), "notes": list(self.notes), "metrics": metrics, "sets": sets}
        return json.dumps(report, indent=1)


def _badness(metric: Metric, curve: Tensor) -> Tensor:
    """A curve so turned that more is worse; least where nothing was measured."""
    return torch.where(curve.isnan(), -torch.inf, curve if metric.better == "lower" else -curve)
