"""The rule that shares the work between identity and detail, and which source picture counts."""

from __future__ import annotations

import pytest
import torch

from dynamicface import DynamicFaceError
from dynamicface.streams import DetailStream, Fusion, IdentityStream, Mixture


def test_three_to_seven_is_neutral():
    assert Fusion().shares(512, 512) == pytest.approx((0.3, 0.7))
    assert Fusion().strengths(512, 512) == pytest.approx((1, 1))


def test_an_octave_moves_a_tenth():
    assert Fusion().shares(1024, 2048) == pytest.approx((0.2, 0.8))
    assert Fusion().shares(256, 1024) == pytest.approx((0.4, 0.6))


def test_the_smaller_size_decides_and_the_rule_is_bounded():
    assert Fusion().shares(4096, 512) == Fusion().shares(512, 4096) == Fusion().shares(512, 512)
    assert Fusion().shares(1, 1) == pytest.approx((0.6, 0.4))
    assert Fusion().shares(1e6, 1e6) == pytest.approx((0.1, 0.9))


def test_the_artist_may_override_the_rule():
    assert Fusion(identity=0.5).shares(64, 4096) == (0.5, 0.5)
    assert Fusion(identity=0.0).strengths(512, 512)[0] == 0
    with pytest.raises(DynamicFaceError, match="between 0 and 1"):
        Fusion(identity=1.5)


def test_the_source_nearest_in_yaw_counts_most():
    stream = DetailStream(torch.zeros(3, 8, 8, 3), torch.tensor([-40.0, 0.0, 40.0]))
    weights = stream.weights_for(torch.tensor([-50.0, 3.0, 20.0]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    assert weights[0].argmax() == 0 and weights[1].argmax() == 1
    torch.testing.assert_close(weights[2, 1], weights[2, 2])


def test_streams_without_content_are_refused():
    with pytest.raises(DynamicFaceError, match="connect a fitted prior"):
        IdentityStream()
    with pytest.raises(DynamicFaceError, match="one yaw for each"):
        DetailStream(torch.zeros(2, 8, 8, 3), torch.zeros(3))
    with pytest.raises(DynamicFaceError, match="mixture, sum, mean"):
        Mixture((), "average")


def test_fusion_reads_the_crop(pipeline, fitted):
    guides = pipeline.guides(fitted, 128)
    side = 128 / float(guides.crop.matrix[0, 0, 0])
    assert Fusion().strengths_of(guides) == pytest.approx(Fusion().strengths(side, 128))
