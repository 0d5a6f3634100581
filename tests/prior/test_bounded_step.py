"""The bounded step meets the optimality conditions of its quadratic, with and without unknowns that the frames share."""

from __future__ import annotations

import pytest
import torch

from dynamicface.prior.bounded_step import Shared, bounded_step

PEOPLE, FRAMES, OWN, COMMON = 3, 4, 20, 6


@pytest.fixture
def problem() -> tuple[torch.Tensor, ...]:
    """Correlated unknowns, about half of which end on a bound."""
    random = torch.Generator().manual_seed(0)
    jacobian = torch.randn(PEOPLE, FRAMES, 60, OWN + COMMON, generator=random, dtype=torch.double)
    jacobian = jacobian @ (torch.eye(OWN + COMMON, dtype=torch.double) + 0.2)
    normal = jacobian.mT @ jacobian + torch.eye(OWN + COMMON, dtype=torch.double)
    gradient = 40 * torch.randn(PEOPLE, FRAMES, OWN + COMMON, generator=random, dtype=torch.double)
    low, high = -0.3 * torch.rand(2, PEOPLE, FRAMES, OWN, generator=random, dtype=torch.double) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    return normal, gradient, low, high


@pytest.mark.parametrize("with_shared", [False, True])
def test_the_answer_is_optimal(problem, with_shared):
    normal, gradient, low, high = problem
    own, ours = normal[..., :OWN, :OWN], gradient[..., :OWN]
    shared = Shared(normal[..., :OWN, OWN:], normal[..., OWN:, OWN:].sum(1), gradient[..., OWN:].sum(1)) if with_shared else None
    step, common, bound = bounded_step(own, ours, low, high, torch.zeros_like(low), shared)
    slope = ours + (own @ step[..., None])[..., 0]
    if shared is not None:
        slope = slope + (shared.cross @ common[:, None, :, None])[..., 0]
        pull = shared.gradient + (shared.normal @ common[..., None])[..., 0] + (shared.cross.mT @ step[..., None])[..., 0].sum(1)
        assert pull.abs().max() < 1e-9
    assert (bound != 0).double().mean() > 0.2, "the problem is one of bounds"
    assert (step >= low - 1e-12).all() and (step <= high + 1e-12).all()
    assert slope[bound == 0].abs().max() < 1e-9
    assert (slope[bound < 0] >= 0).all() and (slope[bound > 0] <= 0).all()


def test_without_bounds_it_is_the_newton_step(problem):
    normal, gradient, low, _ = problem
    far = torch.full_like(low, torch.inf)
    step, _, bound = bounded_step(normal[..., :OWN, :OWN], gradient[..., :OWN], -far, far, torch.zeros_like(low))
    torch.testing.assert_close(step, -torch.linalg.solve(normal[..., :OWN, :OWN], gradient[..., :OWN]))
    assert not bound.any()
