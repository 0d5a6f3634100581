"""The mixture's benchmark compares like with like: the same weights, the same features, and memory counted right."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def mixture(benchmarks):
    return benchmarks("mixture")


@torch.inference_mode()
def test_guiders_one_by_one_have_the_grouped_pass_features(mixture):
    torch.manual_seed(0)
    network = mixture.generator("cpu")
    maps = {name: torch.rand(1, 3, 32, 32) for name in mixture.GUIDERS}
    together, serial = network.condition(maps), mixture.serial_conditions(network, maps)
    assert together.features.abs().max() > 0
    torch.testing.assert_close(serial.features, together.features)
    assert torch.equal(serial.strength, together.strength)


@torch.inference_mode()
def test_one_guider_is_read_the_same_either_way(mixture):
    torch.manual_seed(0)
    attention = mixture.stirred(mixture.ParallelAttention(32, 16, 1, 4))
    x, tokens, strength = torch.randn(2, 5, 32), torch.randn(2, 1, 3, 16), torch.ones(2, 1)
    torch.testing.assert_close(mixture.OneAfterAnother(attention)(x, tokens, strength), attention(x, tokens, strength))


@torch.inference_mode()
def test_one_after_another_each_guider_reads_its_own_tokens(mixture):
    torch.manual_seed(0)
    attention = mixture.stirred(mixture.ParallelAttention(32, 16, 3, 4))
    x, tokens = torch.randn(2, 5, 32), torch.randn(2, 3, 4, 16)
    expected = x
    for k in range(3):
        alone = torch.zeros(2, 3)
        alone[:, k] = 1  # the others are not looked at
        expected = expected + attention(expected, tokens, alone)
    torch.testing.assert_close(mixture.OneAfterAnother(attention)(x, tokens, torch.ones(2, 3)), expected - x)


@torch.inference_mode()
def test_the_serial_way_leaves_the_network_as_it_was(mixture):
    torch.manual_seed(0)
    network = mixture.generator("cpu", guiders=mixture.GUIDERS[:2])
    picture, maps = torch.rand(1, 3, 32, 32), {name: torch.rand(1, 3, 32, 32) for name in mixture.GUIDERS[:2]}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for way in mixture.WAYS[:2]:
        mixture.guided_run(network, picture, maps, way)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_peak_memory_counts_what_lives_at_once(mixture):
    x = torch.zeros(250_000)
    with mixture.PeakMemory() as memory:
        for _ in range(3):
            y = x + 1  # 1 MB, the one before dies after it is made
            y.view(500, 500).add_(1)  # nothing new
    assert memory.peak == 2_000_000
