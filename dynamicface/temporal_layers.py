"""Temporal layers between a picture U-Net's own layers, with AnimateDiff's parameter names.

Champ, Moore-AnimateAnyone and DynamicPose use the same modules; PersonaLive calls them temporal_modules. One module follows each block of
the U-Net; its frames look at each other, position by position. One frame is left as it is, to the bit: temporal layers are off for stills.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .errors import DynamicFaceError

HEADS = 8
_PLACE = re.compile(r"^(down_blocks\.\d+|up_blocks\.\d+|mid_block)\.(?:motion|temporal)_modules\.(\d+)\.")

Place = tuple[str, int]
"""A block of a diffusers U-Net and a position in it, e.g. ("down_blocks.0", 1); the layer follows that block's attention."""

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""attention(q, k, v, heads) on (B, N, heads * d)."""


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention on (B, N, heads * d)."""
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


class TemporalLayer(nn.Module):
    """(B * F, C, h, w) -> the same; parameter names temporal_transformer.* (AnimateDiff's VanillaTemporalModule, one transformer block).

    length: how many frames it knows the places of; 0 = a module without place encoding.
    """

    def __init__(self, channels: int, length: int = 32, heads: int = HEADS, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.temporal_transformer = _Transformer(channels, length, heads, operations, factory)
        self.length = length

    def forward(self, x: Tensor, frames: int, attention: Attention = attend) -> Tensor:
        """frames: F; the batch holds whole clips of F frames. Raises DynamicFaceError beyond `length` frames."""
        if frames == 1:
            return x
        if self.length and frames > self.length:
            raise DynamicFaceError(
                f"The temporal layers know {self.length} frames at once, but the sampler gave them {frames}. "
                f"Put FusionTVO (while sampling) with a segment of {self.length} or less, or Context Windows, behind Apply DynamicFace."
            )
        return x + self.temporal_transformer(x, frames, attention)


class TemporalLayers(nn.Module):
    """The layers of one file, by place. channels: width at each place."""

    def __init__(
        self, channels: Mapping[Place, int], length: int = 32, heads: int = HEADS, *, operations: ModuleType | Any = nn, **factory
    ) -> None:
        super().__init__()
        self.places = tuple(channels)
        self.layers = nn.ModuleList(TemporalLayer(width, length, heads, operations=operations, **factory) for width in channels.values())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, operations: ModuleType | Any = nn, **factory) -> TemporalLayers:
        """Layers out of a file's tensors; names that are no temporal layer's are left aside."""
        parts: dict[Place, dict[str, Tensor]] = {}
        for name, value in state.items():
            if found := _PLACE.match(name):
                parts.setdefault((found[1], int(found[2])), {})[name[found.end() :]] = value
        places = [value for name, value in state.items() if name.endswith("pos_encoder.pe")]
        widths = {place: len(part["temporal_transformer.norm.weight"]) for place, part in parts.items()}
        layers = cls(widths, places[0].shape[1] if places else 0, operations=operations, **factory)
        for layer, part in zip(layers.layers, parts.values(), strict=True):
            layer.load_state_dict(part)
        return layers.eval().requires_grad_(False)


class _Transformer(nn.Module):
    def __init__(self, channels: int, length: int, heads: int, operations: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList([_Block(channels, length, heads, operations, factory)])
        self.proj_out = operations.Linear(channels, channels, **factory)

    def forward(self, x: Tensor, frames: int, attention: Attention) -> Tensor:
        h = self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        for block in self.transformer_blocks:
            h = block(h, frames, attention)
        return rearrange(self.proj_out(h), "b (h w) c -> b c h w", h=x.shape[2])


class _Block(nn.Module):
    def __init__(self, channels: int, length: int, heads: int, operations: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([_Attention(channels, length, heads, operations, factory) for _ in range(2)])
        self.norms = nn.ModuleList([operations.LayerNorm(channels, **factory) for _ in range(2)])
        self.ff = FeedForward(channels, operations, factory)
        self.ff_norm = operations.LayerNorm(channels, **factory)

    def forward(self, x: Tensor, frames: int, attention: Attention) -> Tensor:
        for block, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + block(norm(x), frames, attention)
        return x + self.ff(self.ff_norm(x))


class _Attention(nn.Module):
    def __init__(self, channels: int, length: int, heads: int, operations: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (operations.Linear(channels, channels, bias=False, **factory) for _ in range(3))
        self.to_out = nn.ModuleList([operations.Linear(channels, channels, **factory)])
        self.pos_encoder = _Places(channels, length, factory) if length else None

    def forward(self, x: Tensor, frames: int, attention: Attention) -> Tensor:
        places = x.shape[1]
        x = rearrange(x, "(b f) n c -> (b n) f c", f=frames)
        if self.pos_encoder is not None:
            x = x + self.pos_encoder(x)[:, :frames]
        out = self.to_out[0](attention(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))
        return rearrange(out, "(b n) f c -> (b f) n c", n=places)


class _Places(nn.Module):
    """Sinusoidal places (1, length, C); files carry them as `pe`."""

    def __init__(self, channels: int, length: int, factory: dict[str, Any]) -> None:
        super().__init__()
        place = torch.arange(length)[:, None] * torch.exp(torch.arange(0, channels, 2) * (-9.210340371976184 / channels))
        self.pe = nn.Parameter(torch.stack([place.sin(), place.cos()], -1).flatten(1)[None].to(**factory), requires_grad=False)

    def forward(self, like: Tensor) -> Tensor:
        return self.pe.to(like)


class FeedForward(nn.Module):
    """Gated GELU under diffusers' names net.0.proj and net.2."""

    def __init__(self, channels: int, operations: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        gate = nn.Module()
        gate.proj = operations.Linear(channels, channels * 8, **factory)
        self.net = nn.ModuleList([gate, nn.Identity(), operations.Linear(channels * 4, channels, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.net[0].proj(x).chunk(2, -1)
        return self.net[2](value * F.gelu(gate))
