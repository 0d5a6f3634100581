"""Sampling the embedded generator outside of ComfyUI, with diffusers' flow-matching schedulers or, without diffusers, Euler steps.

The path is x_sigma = (1 - sigma) x0 + sigma noise with sigma from 1 to 0 in equal steps (the same as ComfyUI's sampler "euler" with the
scheduler "simple"). All frames of a clip share one noise, so that what is generated does not boil.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .network import Conditions, Generator

_BATCH = 8  # frames at once


def clip_noise(composite: Tensor, seed: int) -> Tensor:
    """One noise picture (1, 3, H, W) for all frames, drawn on the CPU so that every device gets the same."""
    return torch.randn((1, *composite.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(composite)


def sigma_steps(steps: int, denoise: float = 1.0) -> list[float]:
    """sigma of each step and the final 0, from `denoise` down."""
    return [denoise * (1 - k / steps) for k in range(steps + 1)]


@torch.inference_mode()
def sample(
    generator: Generator,
    composite: Tensor,
    mask: Tensor,
    conditions: Conditions | None = None,
    *,
    steps: int = 2,
    seed: int = 0,
    denoise: float = 1.0,
    scheduler: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Generate pictures (F, 3, H, W) in about -1..1 from composites (F, 3, H, W) in -1..1 and masks (F, 1, H, W).

    denoise < 1 starts from the composite with that much noise. scheduler: a diffusers flow-matching scheduler
    (e.g. `FlowMatchEulerDiscreteScheduler()`); None takes Euler steps. progress(done, total) counts frames x steps.
    """
    if steps < 1:
        raise ValueError(f"Sampling takes at least one step, but {steps} were asked for.")
    conditions = conditions or Conditions()
    noise = clip_noise(composite, seed)
    out, total = [], len(composite) * steps
    for first in range(0, len(composite), _BATCH):
        part = slice(first, first + _BATCH)
        here, allowed, steering = composite[part], mask[part], generator.keep(conditions.frames(part))
        x = (1 - denoise) * here + denoise * noise
        sigmas = sigma_steps(steps, denoise)
        if scheduler is not None:
            scheduler.set_timesteps(sigmas=sigmas[:-1], device="cpu")
        for k, sigma in enumerate(sigmas[:-1]):
            clean = generator(x, x.new_full((len(x),), sigma), here, allowed, steering)
            slope = (x - clean) / sigma
            x = x + (sigmas[k + 1] - sigma) * slope if scheduler is None else scheduler.step(slope, scheduler.timesteps[k], x)[0]
            if progress is not None:
                progress(min(first * steps + (k + 1) * len(x), total), total)
        out.append(x)
    return torch.cat(out)
