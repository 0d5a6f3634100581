"""The detail stream's reference attention: keys and values of the source, written once, read beside the picture's own at every step.

Write: the source goes through a U-Net once (a ReferenceNet's weights, or the model's own, which needs no extra file); what enters each
self-attention is projected by the reading network and kept. Read: K = [own, reference], V likewise; the unconditional half of
classifier-free guidance looks at itself only (AnimateAnyone, Champ). A token of source n is seen with weight w = strength x yaw weight, as
log w on its logit: w = 1 is the published form, w = 0 not there at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCKS: tuple[str, ...] = ("all", "middle and output", "output")
"""Which of a U-Net's blocks read the reference. Fewer are cheaper and hold the picture's own layout more."""

_READING = {"all": ("input", "middle", "output"), "middle and output": ("middle", "output"), "output": ("output",)}
_FORGOTTEN = 0.01  # a source that counts less than this in every frame of a batch is not read

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""attention(q, k, v, mask): (B, Tq, C), (B, Tk, C), (B, Tk, C) and an additive mask (B, 1, Tk) or None -> (B, Tq, C)."""


@dataclass(frozen=True)
class KeysValues:
    """One block's memory of N sources."""

    keys: Tensor  # (N, T, C)
    values: Tensor  # (N, T, C)

    def pick(self, chosen: Tensor) -> KeysValues:
        """The memory of some of the sources."""
        return self if len(chosen) == len(self.keys) else KeysValues(self.keys[chosen], self.values[chosen])


def reads(blocks: str, place: str) -> bool:
    """Whether a block at "input", "middle" or "output" reads under a choice out of BLOCKS."""
    return place in _READING[blocks]


def read(q: Tensor, k: Tensor, v: Tensor, memory: KeysValues, weights: Tensor, conditional: Sequence[bool], attention: Attention) -> Tensor:
    """Self-attention (B, T, C) that also sees the reference.

    Args:
        q, k, v: (B, T, C) of chunks of F frames; B = F * len(conditional).
        memory: of N sources.
        weights: (F, N) >= 0, strength x yaw weight of each source in each frame; kept on the CPU, where looking at it costs nothing.
        conditional: which chunks read; the others attend to themselves.
    """
    chosen = (weights > _FORGOTTEN * weights.amax()).any(0).nonzero()[:, 0]
    if len(chosen) == 0:
        return attention(q, k, v, None)
    memory, weights = memory.pick(chosen), weights[:, chosen]
    kept_k, kept_v = (kept.flatten(0, 1).to(k) for kept in (memory.keys, memory.values))
    even = bool((weights == 1).all())
    chunks = zip(q.chunk(len(conditional)), k.chunk(len(conditional)), v.chunk(len(conditional)), conditional, strict=True)
    out = []
    for own_q, own_k, own_v, seen in chunks:
        if not seen:
            out.append(attention(own_q, own_k, own_v, None))
            continue
        frames, own = own_k.shape[:2]
        both_k = torch.cat([own_k, kept_k.expand(frames, -1, -1)], 1)
        both_v = torch.cat([own_v, kept_v.expand(frames, -1, -1)], 1)
        mask = None if even else _log_weights(weights.expand(frames, -1), own, memory.keys.shape[1]).to(q)
        out.append(attention(own_q, both_k, both_v, mask))
    return torch.cat(out)


def _log_weights(weights: Tensor, own: int, each: int) -> Tensor:
    """(F, 1, own + N * each) additive mask: 0 for own tokens, log of the weight for each source's."""
    seen = weights.clamp_min(1e-9).log().repeat_interleave(each, 1)
    return torch.cat([seen.new_zeros(len(weights), own), seen], 1)[:, None]
