"""Cost of the embedded generator: per frame against steps, size and number of frames; what the caches save.

Needs no data: time and memory of a network do not depend on the picture. Uses the shipped weights, or where there are none a new network of
the same size.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import torch
from torch import Tensor

from dynamicface import FacePipeline
from dynamicface.generator.files import embedded_path, load_generator
from dynamicface.generator.network import Generator
from dynamicface.generator.sampling import sample
from dynamicface.guiders import GUIDERS

from .common import SEED, Figure, Options, Table, command
from .mixture import compare

SIZE = 256
REPEATS = 5


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    net = load_generator(device=options.device) if embedded_path() else Generator().to(options.device).eval().requires_grad_(False)
    repeats, steps = (1, 3) if options.quick else (REPEATS, 8)
    with torch.inference_mode():
        return [cost_table(net, options.device, repeats, options.quick), cache_table(net, options.device, repeats, steps)]


def cost_table(net: Generator, device: str, repeats: int, quick: bool) -> Table:
    rows, figures = [], []
    sizes, counts, lengths = ((), (1, 4), (1, 2, 4)) if quick else ((SIZE, 384, 512), (1, 4, 16), (1, 2, 4, 8))
    cases = [(SIZE, 1, steps) for steps in lengths]
    cases += [(size, 4, 2) for size in sizes] + [(SIZE, count, 2) for count in counts]
    for size, frames, steps in dict.fromkeys(cases):
        composite, mask, maps, vectors = inputs(net, frames, size)
        work = partial(run, net, composite, mask, maps, vectors, steps)
        each = [t / frames for t in compare({"run": work}, device, repeats)["run"]]
        rows.append((size, frames, steps, median(each)))
        if frames == 1:
            figures.append(Figure.repeated(f"sampling.ms_{steps}_steps", each, "ms", "lower", f"1 frame of {size} px"))
    note = (
        "Median per frame, conditions included (guiders, Face Former, reference). Linear in steps, frames and pixels where columns agree."
    )
    return Table("Embedded generator: cost per frame", ("size px", "frames", "steps", "ms per frame"), rows, note, tuple(figures))


def cache_table(net: Generator, device: str, repeats: int, steps: int) -> Table:
    composite, mask, maps, vectors = inputs(net, 4, SIZE)

    def every_step() -> None:
        for _ in range(steps):
            run(net, composite, mask, maps, vectors, 1)

    times = compare({"once": partial(run, net, composite, mask, maps, vectors, steps), "always": every_step}, device, repeats)
    cached, plain = (median(values) / len(composite) for values in times.values())
    rows = [("once per run (as shipped)", cached), ("at every step", plain)]
    figure = Figure("sampling.cache_gain", plain / cached, "", "higher", f"4 frames, {steps} steps")
    note = f"{steps} steps: guiders' features, identity tokens and the reference's bank do not depend on the step."
    return Table("Conditions computed", ("when", "ms per frame"), rows, note, (figure,))


def run(net: Generator, composite: Tensor, mask: Tensor, maps: dict[str, Tensor], vectors: tuple[Tensor, ...], steps: int) -> None:
    """One sampling run, its conditions included."""
    sample(net, composite, mask, net.condition(maps, None, *vectors), steps=steps)


def inputs(net: Generator, frames: int, size: int) -> tuple[Tensor, Tensor, dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Composite, mask, guides and (embedding, shape, reference) of random pictures."""
    like, draw = net.stem.weight, torch.Generator().manual_seed(SEED)
    pictures = torch.rand(frames, 3, size, size, generator=draw).to(like)
    maps = {name: pictures.roll(k, 0) for k, name in enumerate(GUIDERS)}
    embedding = torch.randn(frames, net.config.embedding, generator=draw).to(like)
    shape = torch.randn(frames, net.config.shape, generator=draw).to(like)
    vectors = torch.nn.functional.normalize(embedding, dim=-1), shape, pictures * 2 - 1
    return pictures * 2 - 1, torch.ones_like(pictures[:, :1]), maps, vectors


def main(argv: list[str] | None = None) -> None:
    command("Cost of the embedded generator", measure, argv)


if __name__ == "__main__":
    main()
