"""Noise that moves with the plate: what a model draws from it then moves with the plate, too.

Each cell's noise is a particle that rides on the flow. Where several arrive in a cell, the one nearest to its centre stays; where none
arrives, fresh noise is born. No value is ever interpolated or used twice in a frame, so every frame remains white Gaussian noise of unit
variance (interpolated noise does not; Chang et al. 2024, "How I Warped Your Noise").
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..filters import pixel_grid, sample
from .flow import PairFlow


def carried_noise(noise: Tensor, flow: PairFlow, share: float) -> Tensor:
    """Frame-wise noise (F, C, h, w) turned into noise of which `share` 0..1 (of the variance) rides on the flow of F - 1 pairs.

    share 0 returns the noise itself. The first frame is unchanged; what is born later is the noise of its own frame.
    """
    if share <= 0 or len(noise) < 2:
        return noise
    size = tuple(noise.shape[-2:])
    forward = flow.resized(size).forward.to(noise)
    centres = pixel_grid(*size, noise).reshape(-1, 2)
    place, value = centres, noise[0].flatten(1)
    out = [noise[0]]
    for step, fresh in zip(forward, noise[1:].flatten(2), strict=True):
        place = place + sample(step[None], place[None])[0].mT
        cell, winner = _winners(place, centres, size)
        value = fresh.clone().index_copy(1, cell, value[:, winner])
        place = centres.index_copy(0, cell, place[winner])
        mixed = fresh.clone()
        mixed[:, cell] = share**0.5 * value[:, cell] + (1 - share) ** 0.5 * fresh[:, cell]
        out.append(mixed.view_as(noise[0]))
    return torch.stack(out)


def _winners(place: Tensor, centres: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cells that particles at places (P, 2) arrive in, and the one of each that lies nearest to the cell's centre."""
    height, width = size
    x, y = place.floor().long().unbind(-1)
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).nonzero()[:, 0]
    cell = y[inside] * width + x[inside]
    order = (place[inside] - centres[cell]).square().sum(-1).argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    best = rank.new_full((height * width,), len(rank)).scatter_reduce(0, cell, rank, "amin")
    wins = best[cell] == rank
    return cell[wins], inside[wins]
