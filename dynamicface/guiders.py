"""Guiders, one per attribute, and the Mixture-of-Guiders that injects them together (paper section 3.2).

    out = sum_k g_k F_k + FusionNet(concat_k(g_k F_k))

F_k is guider k's feature map; g_k its weight: the artist's weight x start/end gate x spatial mask x confidence of the frame. FusionNet
starts at zero, so an untrained or partial mixture is Champ's plain sum; the mode "mean" is the brief's sum / len. Features do not depend on
the timestep: compute them once per frame and keep them over the steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

GUIDERS: tuple[str, ...] = ("normal", "expression", "pose", "illumination", "background")
"""The attributes, in the order in which networks stack them. "normal" carries identity: the composed shape under the composed pose."""

MODES: tuple[str, ...] = ("mixture", "sum", "mean")

PUBLISHED_CHANNELS = (16, 32, 96, 256)
"""Widths of the conv stack that Champ, Moore-AnimateAnyone, DynamicPose and ControlNet's conditioning embedding share."""


@dataclass(frozen=True)
class Guidance:
    """One attribute map of F frames on its way into a generator."""

    name: str  # one of GUIDERS, or a name a loaded file brings
    map: Tensor  # (F, 3, H, W) 0..1
    weight: float = 1.0  # 0 = absent, to the bit; negative pushes away
    start: float = 0.0  # share of the sampling at which it begins ..
    end: float = 1.0  # .. and ends to act
    mask: Tensor | None = None  # (F, H, W) 0..1, where it acts
    confidence: Tensor | None = None  # (F,) 0..1, how far each frame is trusted

    def strength(self) -> Tensor:
        """(F, 1, h, w) weight x mask x confidence; h = w = 1 where there is no mask."""
        strength = self.map.new_full((len(self.map), 1, 1, 1), self.weight)
        if self.confidence is not None:
            strength = strength * self.confidence.to(strength)[:, None, None, None]
        return strength if self.mask is None else strength * self.mask.to(strength)[:, None]


def mix(features: Tensor, strength: Tensor, fusion: nn.Module | None = None, mode: str = "mixture") -> Tensor:
    """Fuse K guiders' features (B, K, C, h, w) by their strengths, broadcastable to (B, K, 1, h, w), into (B, C, h, w).

    mode "mixture" adds fusion(concat) to the sum; "sum" is the sum; "mean" the sum over the number of guiders that act anywhere.
    """
    if mode not in MODES:
        raise ValueError(f"The mixture's mode is {mode!r}; it must be one of {', '.join(MODES)}.")
    weighted = features * strength
    total = weighted.sum(1)
    if mode == "mean":
        acting = (strength != 0).flatten(2).any(-1).sum(1).clamp_min(1)
        return total / acting.to(total)[:, None, None, None]
    if mode == "mixture" and fusion is not None:
        total = total + fusion(weighted.flatten(1, 2))
    return total


class GuiderStack(nn.Module):
    """The published guider: eight 3x3 convolutions with SiLU between, three of them halving the resolution.

    (B, 3, H, W) in 0..1 -> (B, out_channels, H/8, W/8). Parameter names are diffusers' ControlNetConditioningEmbedding:
    conv_in, blocks.0 .. blocks.5, conv_out (zero-initialised).
    """

    def __init__(
        self, out_channels: int = 320, channels: tuple[int, ...] = PUBLISHED_CHANNELS, *, operations: ModuleType | Any = nn, **factory
    ) -> None:
        super().__init__()
        conv = operations.Conv2d
        self.conv_in = conv(3, channels[0], 3, padding=1, **factory)
        self.blocks = nn.ModuleList()
        for narrow, wide in itertools.pairwise(channels):
            self.blocks.append(conv(narrow, narrow, 3, padding=1, **factory))
            self.blocks.append(conv(narrow, wide, 3, padding=1, stride=2, **factory))
        self.conv_out = conv(channels[-1], out_channels, 3, padding=1, **factory)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def convolutions(self) -> list[nn.Module]:
        """The convolutions in the order they run."""
        return [self.conv_in, *self.blocks, self.conv_out]

    def trunk(self, picture: Tensor) -> Tensor:
        """(B, C, H/8, W/8): everything but the last convolution."""
        # A processor convolves few channels at a high resolution faster with the channels last.
        x = picture.contiguous(memory_format=torch.channels_last) if picture.device.type == "cpu" else picture
        for conv in self.convolutions()[:-1]:
            x = F.silu(conv(x))
        return x.contiguous()

    def forward(self, picture: Tensor) -> Tensor:
        return self.conv_out(self.trunk(picture))


class MixtureOfGuiders(nn.Module):
    """Published guiders side by side and their FusionNet.

    All guiders of the layout run as one grouped pass where `grouped`; None = unless on a CPU, which is faster with one after another
    (`benchmarks/mixture.py`). The answer is the same.
    """

    def __init__(
        self,
        names: tuple[str, ...] = GUIDERS,
        out_channels: int = 320,
        channels: tuple[int, ...] = PUBLISHED_CHANNELS,
        *,
        operations: ModuleType | Any = nn,
        **factory,
    ) -> None:
        super().__init__()
        self.names = names
        self.guiders = nn.ModuleDict({name: GuiderStack(out_channels, channels, operations=operations, **factory) for name in names})
        self.fusion = operations.Conv2d(len(names) * out_channels, out_channels, 1, **factory)
        nn.init.zeros_(self.fusion.weight)
        nn.init.zeros_(self.fusion.bias)

    def features(self, maps: Mapping[str, Tensor], grouped: bool | None = None) -> Tensor:
        """(B, K, C, H/8, W/8) of all guiders of the layout; maps a guider has no entry in count as black."""
        shape = next(iter(maps.values()))
        stacked = torch.stack([maps.get(name, torch.zeros_like(shape)) for name in self.names], 1)
        if grouped is False or (grouped is None and shape.device.type == "cpu"):
            return torch.stack([guider(stacked[:, k]) for k, guider in enumerate(self.guiders.values())], 1)
        x = stacked.flatten(1, 2)
        layers = list(zip(*(guider.convolutions() for guider in self.guiders.values()), strict=True))
        for depth, convs in enumerate(layers):
            weight, bias = torch.cat([c.weight for c in convs]).to(x), torch.cat([c.bias for c in convs]).to(x)
            x = F.conv2d(x, weight, bias, stride=convs[0].stride, padding=1, groups=len(convs))
            if depth < len(layers) - 1:
                x = F.silu(x)
        return x.unflatten(1, (len(self.names), -1))

    def forward(self, maps: Mapping[str, Tensor], strength: Tensor, mode: str = "mixture", grouped: bool | None = None) -> Tensor:
        """(B, C, H/8, W/8). strength: broadcastable to (B, K, 1, H/8, W/8), 0 for guiders without a map."""
        return mix(self.features(maps, grouped), strength, self.fusion, mode)


class ParallelAttention(nn.Module):
    """Every guider's tokens in one attention call, with one learned gate per guider (starts closed).

    x (B, N, D) reads tokens (B, K, T, C); strength (B, K) scales what a guider says. A guider of strength 0 is not looked at.
    """

    def __init__(self, dim: int, token_dim: int, guiders: int, heads: int, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(token_dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(token_dim, dim, bias=False, **factory)
        self.to_out = operations.Linear(dim, dim, **factory)
        self.gate = Constant(torch.zeros(guiders), **factory)

    def forward(self, x: Tensor, tokens: Tensor, strength: Tensor) -> Tensor:
        return self.read(x, *self.remember(tokens, strength))

    def remember(self, tokens: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values side by side (B, K T + 1, 2 D), and which of them are in view (B, K T + 1); they do not depend on x."""
        scale = strength.to(tokens) * self.gate(tokens).tanh()
        memory = torch.cat([self.to_k(tokens), self.to_v(tokens) * scale[..., None, None]], -1).flatten(1, 2)
        seen = (strength != 0).repeat_interleave(tokens.shape[2], 1)
        # A silent null token, always in view, keeps the softmax defined when every guider is off.
        return F.pad(memory, (0, 0, 0, 1)), F.pad(seen, (0, 1), value=True)

    def read(self, x: Tensor, memory: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, N, D) from what :meth:`remember` returned; seen None = all of it is in view, which is faster."""
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in (self.to_q(x), *memory.chunk(2, -1)))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if seen is None else seen[:, None, None])
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class Constant(nn.Module):
    """One learned tensor as a leaf module, so that hosts which load module by module move it too."""

    def __init__(self, value: Tensor, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(value.to(device=device, dtype=dtype))

    def forward(self, like: Tensor) -> Tensor:
        return self.weight.to(like)
