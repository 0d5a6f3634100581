"""The step of a Gauss-Newton fit whose per-frame unknowns have bounds and whose frames share some unknowns.

    minimise  sum_n (1/2 x_n' A_n x_n + a_n' x_n + x_n' C_n y) + 1/2 y' B y + b' y   over low_n <= x_n <= high_n and y

Which unknowns lie on a bound is part of the answer. It is found by principal pivoting (Judice and Pires 1994): solve with the bounds
assumed, exchange every unknown that violates its own condition, repeat until none does. Assuming them once per step, from the gradient
alone, looks the same but never settles: the fit then flips between two answers for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_EXCHANGES = 12  # two or three are the rule; the fit's next step goes on from there


@dataclass(frozen=True)
class Shared:
    """What the frames of one person share."""

    cross: Tensor  # (G, N, P, S) C
    normal: Tensor  # (G, S, S) B
    gradient: Tensor  # (G, S) b


def bounded_step(
    normal: Tensor, gradient: Tensor, low: Tensor, high: Tensor, bound: Tensor, shared: Shared | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Solve for the steps of G people in N frames each.

    normal: (G, N, P, P) positive definite A. gradient: (G, N, P) a. low, high: (G, N, P), may be infinite. bound: (G, N, P) the first
    guess: -1 on the lower bound, 1 on the upper, 0 between. Returns x (G, N, P), y (G, S) or None, and where the answer lies.
    """
    for _ in range(_EXCHANGES):
        step, shared_step, slope = _solve(normal, gradient, low, high, bound, shared)
        leaves = (step > high).to(bound) - (step < low).to(bound)
        settled = torch.where(bound == 0, leaves, torch.where(bound * slope > 0, 0, bound))
        if torch.equal(settled, bound):
            break
        bound = settled
    return step, shared_step, bound


def _solve(
    normal: Tensor, gradient: Tensor, low: Tensor, high: Tensor, bound: Tensor, shared: Shared | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The minimum with some unknowns held on their bounds, and the slope (G, N, P) that pulls at those. Shared unknowns go last (Schur)."""
    free = (bound == 0).to(normal)
    held = torch.where(bound < 0, low, torch.where(bound > 0, high, 0.0))
    factor = torch.linalg.cholesky(normal * free[..., None] * free[..., None, :] + torch.diag_embed(1 - free))
    step = held - torch.cholesky_solve(((gradient + _times(normal, held)) * free)[..., None], factor)[..., 0]
    if shared is None:
        return step, None, gradient + _times(normal, step)
    cross = shared.cross * free[..., None]
    carried = torch.cholesky_solve(cross, factor)
    right = shared.gradient + _times(shared.cross.mT, step).sum(1)
    shared_step = -torch.linalg.solve(shared.normal - (cross.mT @ carried).sum(1), right)
    step = step - _times(carried, shared_step[:, None])
    return step, shared_step, gradient + _times(normal, step) + _times(shared.cross, shared_step[:, None])


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
