"""The Mixture-of-Guiders against injecting the same guiders one after another and against diffusers' ControlNets; the reference's cache;
precision; cost over frames.

Speed and memory only: the networks have random weights, which cost the same as trained ones. Three ways to inject K guiders over S steps,
with the same weights:

serial, every step   each guider's convolutions at every step, then one attention per guider, one after another
serial, kept         features, their mixture, keys and values once per frame, then one attention per guider, one after another
mixture              the same once per frame (one grouped pass, but on a CPU), then one attention over all guiders' tokens
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynamicface import FacePipeline
from dynamicface.generator.network import Conditions, Generator, GeneratorConfig
from dynamicface.guiders import GUIDERS, MixtureOfGuiders, ParallelAttention, mix

from .common import SEED, Figure, Options, SkippedError, Table, command
from .controlnets import Peers
from .speed import timed

SIZE, STEPS, FRAMES, REPEATS = 256, 4, 2, 5
WIDTH, TOKEN, QUERIES, TOKENS, HEADS = 320, 320, 1024, 64, 8  # of Stable Diffusion 1.5's first attention at 256 px
SHRINK = 4  # of the peer's widths, for a CPU
COUNTS, CLIPS = tuple(range(1, len(GUIDERS) + 1)), (1, 2, 4, 8, 16)
WAYS = ("serial, every step", "serial, kept", "mixture")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    torch.manual_seed(SEED)
    repeats, counts, clips = (1, (len(GUIDERS),), (1, 4)) if options.quick else (REPEATS, COUNTS, CLIPS)
    with torch.inference_mode():
        return [
            published_stack(options.device, repeats, counts),
            whole_generator(options.device, repeats, counts),
            against_controlnets(options.device, repeats, counts, size=SIZE // 2 if options.quick else SIZE),
            reference_cache(options.device, repeats),
            precision(options.device, repeats, *((1, SIZE // 2) if options.quick else (FRAMES, SIZE))),
            over_frames(options.device, repeats, clips),
        ]


def published_stack(device: str, repeats: int, counts: Sequence[int] = COUNTS) -> Table:
    """Injection alone, at the width of Stable Diffusion 1.5."""
    x = torch.randn(FRAMES, QUERIES, WIDTH, device=device)
    rows, gain = [], {}
    for count in counts:
        guiders = stirred(MixtureOfGuiders(GUIDERS[:count], WIDTH)).to(device)
        attention = stirred(ParallelAttention(WIDTH, TOKEN, count, HEADS)).to(device)
        maps = {name: torch.rand(FRAMES, 3, SIZE, SIZE, device=device) for name in guiders.names}
        ways = zip(WAYS, injections(guiders, attention, maps, x), strict=True)
        times = compare(dict(ways), device, repeats)
        gain[count] = [slow / fast for slow, fast in zip(times[WAYS[0]], times[WAYS[2]], strict=True)]
        kept = median(a / b for a, b in zip(times[WAYS[1]], times[WAYS[2]], strict=True))
        rows.append((count, *(1e3 * FRAMES / median(times[way]) for way in WAYS), median(gain[count]), kept))
    what = f"injection alone: {FRAMES} frames of {SIZE} px, {STEPS} steps, published stack, {QUERIES} queries on {TOKENS} tokens a guider"
    return Table(
        "Injecting guiders: frames/s",
        ("guiders", *WAYS, "mixture over serial", "mixture over serial, kept"),
        rows,
        f"{what.capitalize()}. Ratios are medians of paired repeats.",
        (Figure.repeated("mixture.speedup_5", gain[5], "", "higher", what),),
    )


def whole_generator(device: str, repeats: int, counts: Sequence[int] = COUNTS) -> Table:
    """The same comparison with the embedded generator around it."""
    rows, gain = [], []
    for count in counts:
        network = generator(device, guiders=GUIDERS[:count])
        picture, maps, _ = inputs(FRAMES, device, GUIDERS[:count])
        times = compare({way: partial(guided_run, network, picture, maps, way) for way in WAYS}, device, repeats)
        gain = [slow / fast for slow, fast in zip(times[WAYS[0]], times[WAYS[2]], strict=True)]
        rows.append((count, *(1e3 * FRAMES / median(times[way]) for way in WAYS), median(gain)))
    what = f"{FRAMES} frames of {SIZE} px, {STEPS} steps"
    figure = Figure.repeated(f"mixture.generator_speedup_{counts[-1]}", gain, "", "higher", f"whole embedded generator: {what}")
    note = f"The whole generator: {what}."
    return Table("Embedded generator with guiders: frames/s", ("guiders", *WAYS, "mixture over serial"), rows, note, (figure,))


def guided_run(network: Generator, picture: Tensor, maps: dict[str, Tensor], way: str) -> None:
    """All steps of the generator, its guiders injected one way or another."""
    readers = [module for module in network.modules() if isinstance(getattr(module, "guiders", None), ParallelAttention)]
    together = [module.guiders for module in readers]
    for reader, attention in zip(readers, together, strict=True):
        reader.guiders = attention if way == WAYS[2] else OneAfterAnother(attention)
    if way != WAYS[0]:
        kept = network.keep(network.condition(maps) if way == WAYS[2] else serial_conditions(network, maps))
    for _ in range(STEPS):
        denoise(network, picture, serial_conditions(network, maps) if way == WAYS[0] else kept)
    for reader, attention in zip(readers, together, strict=True):
        reader.guiders = attention


def against_controlnets(
    device: str,
    repeats: int,
    counts: Sequence[int] = COUNTS,
    *,
    frames: int = 1,
    size: int = SIZE,
    steps: int = STEPS,
    shrink: int = SHRINK,
) -> Table:
    """A plain diffusers pipeline with a ControlNet per guide, against the mixture on the same U-Net."""
    title, key = "Against diffusers' ControlNets in series, the same U-Net: frames/s", f"mixture.over_controlnets_{counts[-1]}"
    columns = (
        "guiders",
        "U-Net alone",
        "ControlNets in series",
        "mixture",
        "mixture over ControlNets",
        "peak MB, ControlNets",
        "peak MB, mixture",
    )
    what = f"frames of {size} px, {frames} at once, {steps} DDIM steps, Stable Diffusion 1.5's layout at 1/{shrink} of its widths"
    rows, gain = [], []
    for count in counts:
        try:
            peers = Peers(GUIDERS[:count], shrink, device)
        except SkippedError as reason:
            return Table(title, columns, [], f"Not measured: {reason}", missing={key: str(reason)})
        given, one = peers.inputs(frames, size, steps), peers.inputs(frames, size, 1)
        ways = (peers.alone, peers.series, peers.mixture)
        times = list(compare({way.__name__: partial(way, given) for way in ways}, device, repeats).values())
        gain = [slow / fast for slow, fast in zip(times[1], times[2], strict=True)]
        peaks = [
            peers.weights(part) + peak(partial(way, one)) for part, way in ((peers.controls, peers.series), (peers.guiders, peers.mixture))
        ]
        rows.append((count, *(1e3 * frames / median(time) for time in times), median(gain), *(value / 1e6 for value in peaks)))
    note = (
        f"Measured on {what}, no classifier-free guidance, no text encoder and no VAE. Both sides share one U-Net, scheduler, latents, "
        "prompt and guides; weights are random, so this says nothing about pictures. A ControlNet is a copy of half the U-Net that runs at "
        "every step; a guider is eight convolutions once per frame. Ratios are medians of paired repeats; memory: weights and one step."
    )
    return Table(title, columns, rows, note, (Figure.repeated(key, gain, "", "higher", what),))


def reference_cache(device: str, repeats: int) -> Table:
    """The detail stream written once per clip, or at every step."""
    network = generator(device)
    picture, maps, source = inputs(FRAMES, device, GUIDERS)
    conditions = network.keep(network.condition(maps))

    def once() -> None:
        kept = network.keep(replace(conditions, bank=network.remember(source)))
        for _ in range(STEPS):
            denoise(network, picture, kept)

    def always() -> None:
        for _ in range(STEPS):
            denoise(network, picture, replace(conditions, bank=network.remember(source)))

    def without() -> None:
        for _ in range(STEPS):
            denoise(network, picture, conditions)

    times = compare({"written once": once, "written at every step": always, "no reference": without}, device, repeats)
    rows = [(name, 1e3 * FRAMES / median(values)) for name, values in times.items()]
    return Table("Reference attention: frames/s", ("", "frames/s"), rows, f"{FRAMES} frames of {SIZE} px, {STEPS} steps, one source.")


def precision(device: str, repeats: int, frames: int = FRAMES, size: int = SIZE) -> Table:
    """Time, weights and peak memory of one step in each precision."""
    rows, peaks = [], {}
    for name, dtype in PRECISIONS.items():
        network = generator(device).to(dtype)
        picture, maps, source = (cast(value, dtype) for value in inputs(frames, device, GUIDERS, size))
        conditions = network.keep(network.condition(maps, reference=source))
        times = 1 if dtype is torch.float16 and device == "cpu" else repeats  # processors compute it in software, very slowly
        work = partial(denoise, network, picture, conditions)
        time = median(float(timed(lambda _, work=work: work(), None, device)[0]) for _ in range(times))
        weights = sum(parameter.nbytes for parameter in network.parameters())
        made = peak(partial(denoise, network, picture, conditions))
        peaks[name] = weights + made
        rows.append((name, time / frames, weights / 1e6, made / 1e6, 1 - peaks[name] / peaks["float32"]))
    saved = 100 * (1 - peaks["float16"] / peaks["float32"])
    return Table(
        "Precision of the embedded generator, one step",
        ("precision", "ms per frame", "weights, MB", "peak of what a step makes, MB", "memory saved"),
        rows,
        f"Frames of {size} px, {frames} at once. Memory is counted from the tensors themselves, so it is the same on every device.",
        (Figure("mixture.fp16_memory_saved", saved, "%", "higher", f"weights and one step, frames of {size} px"),),
    )


def over_frames(device: str, repeats: int, clips: Sequence[int] = CLIPS) -> Table:
    """Time over the number of frames: a straight line."""
    network, rows = generator(device), []
    for frames in clips:
        picture, maps, source = inputs(frames, device, GUIDERS)

        def work(picture=picture, maps=maps, source=source) -> None:
            conditions = network.keep(network.condition(maps, reference=source))
            for _ in range(STEPS):
                denoise(network, picture, conditions)

        time = min(compare({"": work}, device, repeats)[""])
        rows.append((frames, time, time / frames))
    return Table("Cost over frames", ("frames", "ms", "ms per frame"), rows, f"Everything on, {SIZE} px, {STEPS} steps; fastest repeat.")


def injections(guiders: MixtureOfGuiders, attention: ParallelAttention, maps: dict[str, Tensor], x: Tensor) -> tuple[Callable, ...]:
    """The three ways as functions without arguments."""
    strength = x.new_ones(len(x), len(maps), 1, 1, 1)
    serial = OneAfterAnother(attention)

    def prepare(features: Tensor, read: nn.Module) -> tuple[Tensor, Tensor]:
        return mix(features, strength, guiders.fusion), read.remember(tokens_of(features), strength.flatten(1))[0]

    def add(prepared: tuple[Tensor, Tensor], read: nn.Module) -> Tensor:
        return prepared[0].sum() + read.read(x, prepared[1]).sum()

    def every_step() -> None:
        for _ in range(STEPS):
            add(prepare(guiders.features(maps, grouped=False), serial), serial)

    def kept() -> None:
        prepared = prepare(guiders.features(maps, grouped=False), serial)
        for _ in range(STEPS):
            add(prepared, serial)

    def mixture() -> None:
        prepared = prepare(guiders.features(maps), attention)
        for _ in range(STEPS):
            add(prepared, attention)

    return every_step, kept, mixture


def tokens_of(features: Tensor) -> Tensor:
    """(B, K, T, C): features (B, K, C, h, w) on an 8 x 8 grid."""
    return F.adaptive_avg_pool2d(features.flatten(0, 1), 8).flatten(2).mT.unflatten(0, features.shape[:2])


class OneAfterAnother(nn.Module):
    """A parallel attention's weights, one attention per guider, each on what the one before it left."""

    def __init__(self, together: ParallelAttention) -> None:
        super().__init__()
        self.together = together

    def forward(self, x: Tensor, tokens: Tensor, strength: Tensor) -> Tensor:
        memory, seen = self.remember(tokens, strength)
        return self.read(x, memory, None if seen.all() else seen)

    def remember(self, tokens: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        return self.together.remember(tokens, strength)

    def read(self, x: Tensor, memory: Tensor, seen: Tensor | None = None) -> Tensor:
        length, out = (memory.shape[1] - 1) // len(self.together.gate.weight), x
        for start in range(0, memory.shape[1] - 1, length):  # each guider's own, with the silent null token
            part = [*range(start, start + length), -1]
            out = out + self.together.read(out, memory[:, part], None if seen is None else seen[:, part])
        return out - x


def serial_conditions(network: Generator, maps: dict[str, Tensor]) -> Conditions:
    """The generator's guiders run one by one, with the weights of the grouped pass."""
    compact = network.guiders
    convs, count = (compact.conv_in, compact.conv_out), len(compact.names)
    out = []
    for k, name in enumerate(compact.names):
        x = F.pixel_unshuffle(maps[name], compact.patch)
        for conv in convs:
            weight, bias = (value.chunk(count)[k] for value in (conv.weight, conv.bias))
            x = F.conv2d(x if conv is convs[0] else F.silu(x), weight, bias, padding=1)
        out.append(x)
    return Conditions(features=torch.stack(out, 1), strength=network.strengths(maps, {}))


def generator(device: str, **changes) -> Generator:
    """The embedded generator's network with random weights, of which no layer is silent; in memory as one that was loaded."""
    return stirred(Generator(GeneratorConfig(**changes))).to(device, memory_format=torch.channels_last)


def stirred(module: nn.Module) -> nn.Module:
    """Random numbers in place of zeros."""
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.02 * torch.randn_like(parameter)
    return module.eval().requires_grad_(False)


def inputs(frames: int, device: str, names: tuple[str, ...], size: int = SIZE) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Pictures (F, 3, S, S), a map per guider and one source."""
    picture = torch.rand(frames, 3, size, size, device=device) * 2 - 1
    return picture, {name: torch.rand(frames, 3, size, size, device=device) for name in names}, picture[:1].clone()


def denoise(network: Generator, picture: Tensor, conditions: Conditions) -> Tensor:
    """One step."""
    return network(picture, picture.new_full((len(picture),), 0.5), picture, torch.ones_like(picture[:, :1]), conditions)


def cast(value: Tensor | dict[str, Tensor], dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in value.items()} if isinstance(value, dict) else value.to(dtype)


def compare(ways: dict[str, Callable[[], None]], device: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each way, the ways taking turns, so that what else the machine does disturbs all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, work in ways.items():
            elapsed = float(timed(lambda _, work=work: work(), None, device)[0])
            if repeat:  # the first warms up
                times[name].append(elapsed)
    return times


def peak(work: Callable[[], object]) -> int:
    """Bytes that some work holds at once, beside what there was before."""
    with PeakMemory() as memory:
        work()
    return memory.peak


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors made inside, at their highest."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        self.now = self.peak = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


def main(argv: list[str] | None = None) -> None:
    command("Mixture of Guiders", measure, argv)


if __name__ == "__main__":
    main()
