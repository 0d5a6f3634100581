"""The targets of the method, each with the key of the figure that answers it. Numbers to reach, never quoted as results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .common import Figure, Table


@dataclass(frozen=True)
class Target:
    """One demand on one figure."""

    part: str
    demand: str
    key: str  # of the Figure
    bound: float | None = None  # at most, or at least where more is better; None: reported without a bound
    unit: str = ""
    more: bool = False

    def met(self, value: float) -> bool | None:
        """Whether a value reaches the bound; None where there is none."""
        if self.bound is None:
            return None
        return value >= self.bound if self.more else value <= self.bound

    @property
    def goal(self) -> str:
        return "reported" if self.bound is None else f"{'≥' if self.more else '≤'} {self.bound:g} {self.unit}".strip()


TARGETS: tuple[Target, ...] = (
    Target("3D prior", "an expression dial leaves the pose (by optical flow)", "leakage.expression_to_pose_by_flow", 1.0, "degrees"),
    Target("3D prior", "an expression dial leaves the pose (found anew)", "leakage.expression_to_pose", 1.0, "degrees"),
    Target("3D prior", "a pose dial leaves the expression", "leakage.pose_to_expression", None, "RMS"),
    Target("3D prior", "a light dial leaves the identity", "leakage.light_to_identity", None, "1 - cosine"),
    Target("3D prior", "pose error, yaw 0-90", "yaw.all", None, "degrees"),
    Target("3D prior", "pose error, yaw 60-90", "yaw.beyond_60", None, "degrees"),
    Target("3D prior", "pose stiller than the raw tracker's", "jitter.pose_stiller", 3.0, "times", more=True),
    Target("3D prior", "landmarks stiller than the raw tracker's", "jitter.landmarks_stiller", 3.0, "times", more=True),
    Target("3D prior", "landmarks of a still photograph, likewise", "jitter.still_landmarks_stiller", 3.0, "times", more=True),
    Target("3D prior", "height of blinks kept", "jitter.blink_kept", 95.0, "%", more=True),
    Target("mixture of guiders", "more frames/s in parallel than one after another", "mixture.speedup_5", 1.4, "times", more=True),
    Target("mixture of guiders", "FP16 saves memory", "mixture.fp16_memory_saved", 30.0, "%", more=True),
    Target("FusionTVO", "inter-frame SSIM gained on flickering input", "tvo.ssim_gain", 15.0, "%", more=True),
    Target("FusionTVO", "inter-frame SSIM", "tvo.ssim", 0.92, "", more=True),
    Target("quality", "ID-Error of swaps, studio", "swap.id_error", 2.0, "%"),
    Target("quality", "ID-Error of swaps, any pose and light", "swap.id_error_wild", 2.0, "%"),
    Target("quality", "face-feature Fréchet distance over that of the mesh swap", "rivals.frechet_ratio", 1.0, "times"),
    Target("quality", "LPIPS over that of the mesh swap", "rivals.lpips_ratio", 1.0, "times"),
    Target("speed", "prior path at 1080p", "speed.frames_per_second", 18.0, "frames/s", more=True),
    Target("speed", "embedded generator, two steps, at its working resolution: 18 frames/s", "sampling.ms_2_steps", 55.6, "ms"),
    Target("speed", "latency of a 4K frame", "latency.4k", 80.0, "ms"),
    Target("dials", "smile dial against the smile measured anew, Spearman", "expression.dial_rank", 0.98, "", more=True),
)


MET, MISSED, REPORTED, UNKNOWN = "met", "not met", "no bound", "not measured"


def table(found: Mapping[str, tuple[Figure, str]], missing: Mapping[str, str]) -> Table:
    """Every target with its value and whether it is met, or why it was not measured.

    found: figures by key, each with the command that measured it. missing: why there is none, by key or by the key's first part.
    """
    rows, count = [], dict.fromkeys((MET, MISSED, REPORTED, UNKNOWN), 0)
    for target in TARGETS:
        figure, command = found.get(target.key, (None, ""))
        if figure is None or not math.isfinite(figure.value):
            verdict = UNKNOWN
            reason = missing.get(target.key) or missing.get(target.key.partition(".")[0], "this run did not ask for it")
            row = ("", "", f"{verdict}: {'no number came out' if figure else reason}", "", "")
        else:
            verdict = {None: REPORTED, True: MET, False: MISSED}[target.met(figure.value)]
            row = (figure.value, figure.unit, verdict, figure.data, f"`{command}`")
        count[verdict] += 1
        rows.append((target.part, target.demand, target.goal, *row))
    columns = ("part", "demand", "target", "value", "unit", "verdict", "data", "command")
    note = f"{', '.join(f'{number} {verdict}' for verdict, number in count.items())}. What is not measured is not claimed."
    return Table("What the method demands, and what was measured", columns, rows, note)
