"""Reference attention against plain attention on concatenated tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dynamicface.reference import BLOCKS, KeysValues, read, reads

HEADS = 2


def attention(q, k, v, mask):
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None])
    return out.transpose(1, 2).flatten(2)


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, 5, 8, generator=generator) for _ in range(3))  # 2 chunks of 3 frames


@pytest.fixture
def memory():
    generator = torch.Generator().manual_seed(1)
    return KeysValues(*(torch.randn(2, 7, 8, generator=generator) for _ in range(2)))


def test_full_weight_is_attention_over_both(tokens, memory):
    q, k, v = tokens
    out = read(q, k, v, memory, torch.ones(3, 2), (True, True), attention)
    both = (torch.cat([own, kept.flatten(0, 1).expand(6, -1, -1)], 1) for own, kept in ((k, memory.keys), (v, memory.values)))
    torch.testing.assert_close(out, attention(q, *both, None))


def test_the_unconditional_chunk_sees_itself_only(tokens, memory):
    q, k, v = tokens
    out = read(q, k, v, memory, torch.ones(3, 2), (True, False), attention)
    assert torch.equal(out[3:], attention(q[3:], k[3:], v[3:], None))
    assert not torch.allclose(out[:3], attention(q[:3], k[:3], v[:3], None))


def test_weight_zero_is_absent_to_the_bit(tokens, memory):
    q, k, v = tokens
    assert torch.equal(read(q, k, v, memory, torch.zeros(3, 2), (True, True), attention), attention(q, k, v, None))


def test_a_forgotten_source_is_not_read(tokens, memory):
    q, k, v = tokens
    alone = KeysValues(memory.keys[:1], memory.values[:1])
    weights = torch.tensor([[1.0, 0.0]]).expand(3, -1)
    out = read(q, k, v, memory, weights, (True, True), attention)
    assert torch.equal(out, read(q, k, v, alone, torch.ones(3, 1), (True, True), attention))


def test_a_weight_multiplies_what_a_source_counts(tokens, memory):
    """Two equal sources at half weight count as one at full weight."""
    q, k, v = tokens
    twice = KeysValues(memory.keys[:1].repeat(2, 1, 1), memory.values[:1].repeat(2, 1, 1))
    alone = KeysValues(memory.keys[:1], memory.values[:1])
    half = read(q, k, v, twice, torch.full((3, 2), 0.5), (True, True), attention)
    torch.testing.assert_close(half, read(q, k, v, alone, torch.ones(3, 1), (True, True), attention))


def test_every_choice_reads_the_output_blocks():
    assert all(reads(choice, "output") for choice in BLOCKS)
    assert reads("all", "input") and not reads("output", "middle") and not reads("middle and output", "input")
