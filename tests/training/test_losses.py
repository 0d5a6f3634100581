"""What the generator is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dynamicface.training.data import Shards
from dynamicface.training.losses import Criterion, LossWeights, contour_of, flow_weight, parts_of

ALL = LossWeights(features=1.0, identity=1.0, landmarks=1.0)


@pytest.fixture(scope="module")
def batch(shards):
    return Shards(shards, 2, lambda number: 96)[0]


@pytest.fixture(scope="module")
def criterion(pipeline):
    return Criterion(ALL, pipeline.perception.identity, pipeline.perception.landmarks, frame=64)


def test_the_answer_itself_costs_nothing(criterion, batch):
    terms = criterion(batch["target"], batch, torch.ones(2))
    assert set(terms) == {"pixels", "low", "contour", "bands", "features", "identity", "landmarks"}
    assert all(float(value) == pytest.approx(0, abs=1e-5) for value in terms.values())


def test_every_term_pulls_at_the_picture(criterion, batch):
    for name in criterion(batch["composite"], batch, torch.ones(2)):
        picture = batch["composite"].clone().requires_grad_()
        term = criterion(picture, batch, torch.ones(2))[name]
        assert float(term.detach()) > 0, name
        (gradient,) = torch.autograd.grad(term, picture)
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, name


def test_the_frame_that_is_moved_at_random_is_drawn(criterion, batch):
    def features(seed: int | None) -> float:
        draw = None if seed is None else torch.Generator().manual_seed(seed)
        return float(criterion(batch["composite"], batch, torch.ones(2), draw)["features"])

    assert features(1) == features(1) and len({features(None), features(1), features(2)}) == 3
    answer = criterion(batch["target"], batch, torch.ones(2), torch.Generator().manual_seed(1))
    assert float(answer["features"]) == pytest.approx(0, abs=1e-5)


def test_a_term_of_weight_nothing_is_left_out(pipeline, batch):
    weights = replace(ALL, features=0.0, identity=0.0, landmarks=0.0)
    terms = Criterion(weights, pipeline.perception.identity)(batch["composite"], batch, torch.ones(2))
    assert set(terms) == {"pixels", "low", "contour", "bands"}


def test_beside_the_mask_a_fault_counts_little(criterion, batch):
    inside, outside = batch["target"].clone(), batch["target"].clone()
    face = batch["mask"].expand_as(inside) > 0.9
    beside = batch["mask"].expand_as(inside) < 0.1
    inside[face] += 0.3
    outside[beside] += 0.3
    costs = [float(criterion(x, batch, torch.ones(2))["pixels"]) for x in (inside, outside)]
    assert costs[1] / beside.sum() < 0.2 * costs[0] / face.sum()


def test_flow_weight_never_forgets_pure_noise():
    assert flow_weight(torch.tensor([1.0, 0.5, 0.01]), 5.0).tolist() == [1.0, 1.0, 5.0]
    assert flow_weight(torch.rand(8), 1.0).tolist() == [1.0] * 8


def test_parts_and_contour_are_where_they_should_be():
    expression = torch.zeros(1, 3, 64, 64)
    expression[:, 0, 40:44, 24:40] = 1
    parts = parts_of(expression)
    assert parts[0, 0, 42, 30] > 0.99 and parts[0, 0, 10, 30] == 0
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    contour = contour_of(mask)
    assert contour[0, 0, 32, 16] == 1 and contour[0, 0, 32, 32] == 0 and contour[0, 0, 2, 2] == 0
