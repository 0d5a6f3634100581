"""The Mixture-of-Guiders: one grouped pass is the guiders one after another, and attention may keep what it reads."""

from __future__ import annotations

import torch
from torch import nn

from dynamicface.guiders import MixtureOfGuiders, ParallelAttention


@torch.inference_mode()
def test_the_grouped_pass_is_the_guiders_one_after_another():
    mixture = awake(MixtureOfGuiders(("normal", "pose", "light"), 8, (4, 4, 8, 8)))
    maps = {name: torch.rand(2, 3, 32, 32) for name in mixture.names[:2]}  # the third has no map
    serial, grouped = mixture.features(maps, grouped=False), mixture.features(maps, grouped=True)
    assert serial.shape == (2, 3, 8, 4, 4) and serial.abs().max() > 0
    torch.testing.assert_close(grouped, serial, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixture.features(maps), serial, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_attention_reads_what_it_remembered():
    attention = awake(ParallelAttention(16, 8, 3, 2))
    x, tokens = torch.randn(2, 5, 16), torch.randn(2, 3, 4, 8)
    strength = torch.tensor([[1.0, 0.0, -0.5], [0.5, 1.0, 0.0]])
    memory, seen = attention.remember(tokens, strength)
    assert memory.shape == (2, 13, 32) and seen.sum(1).tolist() == [9, 9]
    assert torch.equal(attention.read(x, memory, seen), attention(x, tokens, strength))
    others = tokens.clone()
    others[0, 1], others[1, 2] = 7.0, 7.0
    assert torch.equal(attention(x, others, strength), attention(x, tokens, strength))  # a guider of strength 0 is not looked at


@torch.inference_mode()
def test_with_all_in_view_no_mask_is_needed():
    attention = awake(ParallelAttention(16, 8, 3, 2))
    x, tokens = torch.randn(2, 5, 16), torch.randn(2, 3, 4, 8)
    memory, seen = attention.remember(tokens, torch.ones(2, 3))
    assert seen.all()
    torch.testing.assert_close(attention.read(x, memory), attention.read(x, memory, seen), atol=1e-5, rtol=0)


def awake(module: nn.Module) -> nn.Module:
    """Random numbers in place of zeros."""
    draw = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return module
