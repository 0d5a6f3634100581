"""Steering: what artists set becomes the network's conditions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dynamicface.errors import DynamicFaceError
from dynamicface.generator.steering import Steering, detail_stream, full_mixture, identity_stream, pose_confidence, steer
from dynamicface.guiders import GUIDERS, Guidance
from dynamicface.streams import DetailStream, Fusion, IdentityStream, Mixture


@pytest.fixture
def steering(pictures) -> Steering:
    guidances = tuple(Guidance(name, value) for name, value in pictures["guides"].items())
    who = IdentityStream(pictures["embedding"][0], pictures["shape"][0])
    look = DetailStream(torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([-30.0, 30.0]))
    yaw = torch.tensor([-25.0, 5.0, 40.0])
    return Steering(pictures["composite"], pictures["mask"], Mixture(guidances), who, look, yaw)


def test_everything_is_computed_once_per_frame(tiny, steering):
    conditions = steering.conditions(tiny)
    assert conditions.features.shape[:2] == (3, len(GUIDERS)) and conditions.tokens.shape[:2] == (1, tiny.config.tokens)
    assert all(len(bank) == 3 for bank in conditions.bank)
    assert conditions.window is conditions.identity_window is conditions.detail_window is None


def test_each_frame_reads_the_reference_nearest_in_yaw(tiny, steering):
    bank = steering.conditions(tiny).bank[0]
    assert not torch.equal(bank[0], bank[1]) and torch.equal(bank[1], bank[2])


def test_weight_zero_is_absent(tiny, steering):
    off = replace(
        steering,
        mixture=Mixture(tuple(replace(g, weight=0.0) for g in steering.mixture.guidances)),
        identity=replace(steering.identity, weight=0.0),
        detail=replace(steering.detail, weight=0.0),
    )
    conditions = off.conditions(tiny)
    assert conditions.features is conditions.tokens is conditions.bank is None


def test_start_and_end_become_sigmas(tiny, steering):
    late = replace(steering, identity=replace(steering.identity, start=0.25, end=0.75), detail=replace(steering.detail, end=0.5))
    late = replace(late, mixture=Mixture((Guidance("pose", steering.mixture.guidances[2].map, start=0.5),)))
    conditions = late.conditions(tiny)
    assert conditions.identity_window.tolist() == [0.75, 0.25] and conditions.detail_window.tolist() == [1.0, 0.5]
    assert conditions.window[GUIDERS.index("pose")].tolist() == [0.5, 0.0] and conditions.window[0].tolist() == [1.0, 0.0]


def test_an_identity_without_an_embedding_is_a_sentence(tiny, steering):
    with pytest.raises(DynamicFaceError, match="needs an identity embedding"):
        replace(steering, identity=IdentityStream(shape=torch.ones(80))).conditions(tiny)


def test_trust_falls_with_yaw():
    torch.testing.assert_close(pose_confidence(torch.tensor([0.0, -45.0, 62.5, 80.0, 90.0])), torch.tensor([1, 1, 0.65, 0.3, 0.3]))


def test_from_a_fitted_prior(pipeline, fitted):
    guides = pipeline.guides(fitted, 64, zoom=1.3)
    steering = steer(guides, None, identity_stream(fitted), detail_stream(fitted, 64), Fusion(0.3))
    assert steering.composite.shape == (1, 3, 64, 64) and steering.composite.min() >= -1 and steering.composite.max() <= 1
    assert [g.name for g in full_mixture(guides).guidances] == list(GUIDERS) and steering.strengths == pytest.approx((1, 1))
    assert steering.detail.pictures.shape == (1, 64, 64, 3)
    with pytest.raises(DynamicFaceError, match="carries no plate"):
        detail_stream(fitted.filmed)
