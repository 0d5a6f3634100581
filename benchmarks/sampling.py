"""Cost of the embedded generator: per frame against steps, size and number of frames; what the caches save; half precision.

Needs no data: time and memory of a network do not depend on the picture. Uses the shipped weights, or where there are none a new network of
the same size.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dynamicface import FacePipeline
from dynamicface.generator.files import embedded_path, load_generator
from dynamicface.generator.network import Generator
from dynamicface.generator.sampling import sample
from dynamicface.guiders import GUIDERS

from .common import SEED, Figure, Options, Table, command

SIZE = 256
REPEATS = 5


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    device = torch.device(options.device)
    net = load_generator(device=device) if embedded_path() else Generator().to(device).eval().requires_grad_(False)
    repeats = 3 if options.quick else REPEATS
    return [cost_table(net, repeats, options.quick), cache_table(net, repeats), precision_table(net, repeats)]


def cost_table(net: Generator, repeats: int, quick: bool) -> Table:
    rows, figures = [], []
    sizes, counts = ((SIZE,), (1, 8)) if quick else ((SIZE, 384, 512), (1, 4, 16))
    cases = [(SIZE, 1, steps) for steps in (1, 2, 4, 8)]
    cases += [(size, 4, 2) for size in sizes] + [(SIZE, count, 2) for count in counts]
    for size, frames, steps in dict.fromkeys(cases):
        composite, mask, maps, vectors = inputs(net, frames, size)
        times = timed(
            lambda c=composite, m=mask, g=maps, v=vectors, s=steps: sample(net, c, m, net.condition(g, None, *v), steps=s), repeats
        )
        each = [t * 1000 / frames for t in times]
        rows.append((size, frames, steps, median(each)))
        if frames == 1:
            figures.append(Figure.repeated(f"sampling.ms_{steps}_steps", each, "ms", "lower", f"1 frame of {size} px"))
    note = (
        "Median per frame, conditions included (guiders, Face Former, reference). Linear in steps, frames and pixels where columns agree."
    )
    return Table("Embedded generator: cost per frame", ("size px", "frames", "steps", "ms per frame"), rows, note, tuple(figures))


def cache_table(net: Generator, repeats: int, steps: int = 8) -> Table:
    composite, mask, maps, vectors = inputs(net, 4, SIZE)

    def once() -> None:
        sample(net, composite, mask, net.condition(maps, None, *vectors), steps=steps)

    def every_step() -> None:
        for _ in range(steps):
            sample(net, composite, mask, net.condition(maps, None, *vectors), steps=1)

    cached, plain = (median(timed(work, repeats)) * 250 for work in (once, every_step))
    rows = [("once per run (as shipped)", cached), ("at every step", plain)]
    figure = Figure("sampling.cache_gain", plain / cached, "", "higher", f"4 frames, {steps} steps")
    note = f"{steps} steps: guiders' features, identity tokens and the reference's bank do not depend on the step."
    return Table("Conditions computed", ("when", "ms per frame"), rows, note, (figure,))


def precision_table(net: Generator, repeats: int) -> Table:
    rows, figures = [], []
    reference: Tensor | None = None
    base = 0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        cast = Generator(net.config).to(net.stem.weight.device, dtype).eval().requires_grad_(False)
        cast.load_state_dict(net.state_dict())
        composite, mask, maps, vectors = inputs(cast, 4, SIZE)
        conditions = cast.condition(maps, None, *vectors)
        times = timed(lambda n=cast, c=composite, m=mask, k=conditions: sample(n, c, m, k, steps=2), repeats)
        with PeakMemory() as memory:
            out = sample(cast, composite, mask, conditions, steps=2).float()
        weights = sum(p.nbytes for p in cast.parameters())
        total = weights + memory.peak
        reference, base = (out, total) if reference is None else (reference, base)
        rows.append((str(dtype).removeprefix("torch."), median(times) * 250, total / 2**20, (out - reference).abs().mean().item() * 127.5))
        if dtype == torch.float16:
            figures.append(
                Figure("sampling.fp16_memory_saved", 100 * (1 - total / base), "%", "higher", "4 frames of 256 px, weights and peak")
            )
    note = "Weights and the largest sum of live tensors during two steps; difference to float32 in 8-bit levels."
    columns = ("precision", "ms per frame", "MiB", "mean difference")
    return Table("Precision of the embedded generator", columns, rows, note, tuple(figures))


def inputs(net: Generator, frames: int, size: int) -> tuple[Tensor, Tensor, dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Composite, mask, guides and (embedding, shape, reference) of random pictures."""
    like, draw = net.stem.weight, torch.Generator().manual_seed(SEED)
    pictures = torch.rand(frames, 3, size, size, generator=draw).to(like)
    maps = {name: pictures.roll(k, 0) for k, name in enumerate(GUIDERS)}
    embedding = torch.randn(frames, net.config.embedding, generator=draw).to(like)
    shape = torch.randn(frames, net.config.shape, generator=draw).to(like)
    vectors = torch.nn.functional.normalize(embedding, dim=-1), shape, pictures * 2 - 1
    return pictures * 2 - 1, torch.ones_like(pictures[:, :1]), maps, vectors


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each repeat, after one to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return times[1:]


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors made inside that live at once, at most; the same count on every device."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self._known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._watch(tensor)
        return result

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._known or not storage.nbytes():
            return
        self._known.add(storage.data_ptr())
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor, self._gone, storage.data_ptr(), storage.nbytes())

    def _gone(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def main(argv: list[str] | None = None) -> None:
    command("Cost of the embedded generator", measure, argv)


if __name__ == "__main__":
    main()
