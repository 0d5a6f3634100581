"""Guiders out of files: the published conv stack by itself, with Champ's attention before its end, or out of a ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ...errors import WeightsError
from ...guiders import GuiderStack
from ...temporal_layers import FeedForward, attend
from .files import Adapter

GUIDER_LAYOUTS = ("guider_champ", "guider", "guider_personalive", "controlnet_embedding", "controlnet_hint")
_HEADS = 8
_CONVOLUTIONS = ("conv_in", *(f"blocks.{k}" for k in range(6)), "conv_out")


class ChampGuider(GuiderStack):
    """The stack with self-attention over its last features, as Champ runs it (`attentions.5`; its file's other attentions are not used)."""

    def __init__(self, out_channels: int = 320, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__(out_channels, operations=operations, **factory)
        self.attention = _SelfAttention(self.conv_out.in_channels, operations, factory)

    def forward(self, picture: Tensor) -> Tensor:
        return self.conv_out(self.attention(self.trunk(picture)))


def load_guider(adapter: Adapter, *, operations: ModuleType | Any = nn, **factory) -> GuiderStack:
    """The guider in a file. One out of a ControlNet is a start for training: alone it was not made to steer a U-Net's first features.

    Raises WeightsError where the file holds none.
    """
    found = next((name for name in GUIDER_LAYOUTS if name in adapter.parts), None)
    if found is None:
        raise WeightsError(f"{adapter.file} holds no guider, but {' and '.join(adapter.parts)}. Choose a guider's file.")
    state = {_own_name(found, name): value for name, value in adapter.part(found).items()}
    state = {name: value for name, value in state.items() if name}
    kind = ChampGuider if found == "guider_champ" else GuiderStack
    guider = kind(len(state["conv_out.bias"]), operations=operations, **factory)
    guider.load_state_dict(state)
    return guider.eval().requires_grad_(False)


def _own_name(layout: str, name: str) -> str:
    """A file's tensor name as ours; "" for what Champ's network does not run."""
    if layout == "controlnet_hint":
        place, part = name.removeprefix("input_hint_block.").rsplit(".", 1)
        return f"{_CONVOLUTIONS[int(place) // 2]}.{part}"
    name = name.removeprefix("controlnet_cond_embedding.").replace("conv_out_modify.", "conv_out.")
    if layout != "guider_champ" or not name.startswith(("attentions.", "guidance_attention.")):
        return name
    return f"attention.{name.removeprefix('attentions.5.')}" if name.startswith("attentions.5.") else ""


class _SelfAttention(nn.Module):
    """diffusers' Transformer2DModel with one block of self-attention and feed-forward, under its names."""

    def __init__(self, channels: int, operations: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = operations.Conv2d(channels, channels, 1, **factory)
        self.transformer_blocks = nn.ModuleList([_Block(channels, operations, factory)])
        self.proj_out = operations.Conv2d(channels, channels, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        h = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        return x + self.proj_out(rearrange(self.transformer_blocks[0](h), "b (h w) c -> b c h w", h=x.shape[2]))


class _Block(nn.Module):
    def __init__(self, channels: int, operations: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.norm1 = operations.LayerNorm(channels, **factory)
        self.attn1 = _Attention(channels, operations, factory)
        self.norm3 = operations.LayerNorm(channels, **factory)
        self.ff = FeedForward(channels, operations, factory)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        return x + self.ff(self.norm3(x))


class _Attention(nn.Module):
    def __init__(self, channels: int, operations: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (operations.Linear(channels, channels, bias=False, **factory) for _ in range(3))
        self.to_out = nn.ModuleList([operations.Linear(channels, channels, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out[0](attend(self.to_q(x), self.to_k(x), self.to_v(x), _HEADS))
