"""How far a face animated by hand in another program is from the head model: the exported rig without its correctives."""

from __future__ import annotations

import torch

from dynamicface import FacePipeline
from dynamicface.drive import hold_still
from dynamicface.io.presets import apply_preset, shipped_presets
from dynamicface.rig import rig_error, rig_of

from .common import Figure, Options, Table, command, log
from .fit import fitted

INTENSITIES = (0.25, 0.5, 0.75, 1.0)
PEOPLE = 12
_WORST = 6


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    """Vertices of every preset at four intensities on several people's heads."""
    head, presets = pipe.head, shipped_presets()
    means, worst = [], dict.fromkeys(presets, 0.0)
    people = [fit for path in options.data.faces(options.count(PEOPLE)) if (fit := fitted(pipe, path, options, texture_size=0))]
    for person in people:
        log.info("%s", person.path.name)
        rest = person.prior.replace(expression=torch.zeros_like(person.prior.expression), background=None)
        posed = [apply_preset(rest, preset, intensity) for preset in presets.values() for intensity in INTENSITIES]
        shot = hold_still(rest, len(posed)).replace(expression=torch.cat([prior.expression for prior in posed]))
        error = 1000 * rig_error(rig_of(shot, head, correctives=0), shot, head)
        means.append(float(error.mean()))
        for name, vertices in zip(presets, error.amax(1).view(-1, len(INTENSITIES)).amax(1).tolist(), strict=True):
            worst[name] = max(worst[name], vertices)
    order = sorted(worst.items(), key=lambda row: -row[1])
    rows = [*((name, f"{value:.2f}") for name, value in order[:_WORST]), (f"the other {len(order) - _WORST}", f"{order[_WORST][1]:.2f}")]
    data = f"{len(people)} portraits, {len(presets)} presets, {len(INTENSITIES)} intensities"
    mean = sum(means) / len(means)
    figures = (Figure("rig.mean_error", mean, "mm", "lower", data), Figure("rig.worst_error", order[0][1], "mm", "lower", data))
    return [
        Table("Rig without correctives: worst vertex, mm", ("preset", "worst"), rows, f"{data}; mean over vertices {mean:.4f} mm.", figures)
    ]


def main(argv: list[str] | None = None) -> None:
    command("Rig", measure, argv)


if __name__ == "__main__":
    main()
