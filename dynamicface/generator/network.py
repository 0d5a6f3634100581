"""The embedded generator: a pixel-space U-Net that repairs and refines the prior path's composite.

It predicts the clean picture x0 as the composite plus a residual (zero at initialisation), from a noisy picture on the straight path
x_sigma = (1 - sigma) x0 + sigma noise (rectified flow, x-prediction), so one step from pure noise is already a full answer and more steps
refine it. Pictures are sRGB in -1..1. Conditions:

- guiders       five attribute maps through compact guiders, run as one grouped pass, mixed into the first feature map and read again
                as tokens by one parallel attention (`guiders.py`);
- identity      Face Former: identity embedding and shape coefficients -> query tokens -> cross-attention;
- detail        reference attention: the source's own features, written once, are keys and values beside the picture's own.

Everything works at any size that is a multiple of 16, batch = frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..guiders import GUIDERS, Constant, ParallelAttention, mix

_GUIDE_GRID = 8  # a guider is read by attention as 8 x 8 tokens
_GROUPS = 8  # of group normalisation


@dataclass(frozen=True)
class GeneratorConfig:
    """What a weight file's metadata states about its network."""

    patch: int = 4  # pixels folded into channels at the first layer
    widths: tuple[int, ...] = (48, 96, 192)
    depths: tuple[int, ...] = (1, 1, 1)  # residual blocks per level and side
    attention: tuple[bool, ...] = (False, False, True)  # levels with transformer blocks
    head_dim: int = 32
    guiders: tuple[str, ...] = GUIDERS
    guider_width: int = 32
    tokens: int = 8  # identity tokens
    token_dim: int = 192
    embedding: int = 1024  # length of the identity embedding
    shape: int = 80  # number of shape coefficients

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return self.patch * 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class Conditions:
    """What steers a sampling run, computed once per frame and kept over the steps (:meth:`Generator.condition`)."""

    features: Tensor | None = None  # (B, K, C, h, w) guiders' features
    strength: Tensor | None = None  # (B, K, 1, h|1, w|1) guiders' weights, 0 = absent
    window: Tensor | None = None  # (K, 2) highest and lowest sigma at which each guider acts; None = all
    tokens: Tensor | None = None  # (B, T, D) identity tokens
    identity: Tensor | None = None  # (B,) weight of the identity stream, None = 1
    identity_window: Tensor | None = None  # (2,) highest and lowest sigma at which it acts; None = all
    bank: tuple[Tensor, ...] | None = None  # per transformer block (B, N, D): the reference's features
    detail: Tensor | None = None  # (B,) weight of the detail stream, None = 1
    detail_window: Tensor | None = None  # (2,) as identity_window
    mode: str = "mixture"
    # What follows from the above for all steps (:meth:`Generator.keep`)
    mixed: Tensor | None = None  # (B, C, h, w) what the guiders add to the first feature map
    told: tuple[Tensor, ...] | None = None  # per transformer block (B, K T + 1, 2 D): keys and values of the guiders' tokens
    seen: Tensor | None = None  # (B, K T + 1) which of them are in view; None = all
    recalled: tuple[Tensor, ...] | None = None  # per transformer block (B, N, 2 D): keys and values of the bank

    def replace(self, **changes) -> Conditions:
        """A copy with some conditions replaced."""
        return replace(self, **changes)

    def frames(self, part: slice) -> Conditions:
        """The conditions of some of the frames; what is one row for all stays so."""

        def cut(value: Tensor | None) -> Tensor | None:
            return value if value is None or len(value) == 1 else value[part]

        per_frame = {name: cut(getattr(self, name)) for name in ("features", "strength", "tokens", "identity", "detail")}
        return replace(self, **per_frame, bank=None if self.bank is None else tuple(cut(b) for b in self.bank))


class Generator(nn.Module):
    """See the page's head. operations: a namespace with Conv2d, Linear, GroupNorm, LayerNorm (ComfyUI's, where hosted)."""

    def __init__(self, config: GeneratorConfig | None = None, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.config = config = config or GeneratorConfig()
        ops = {"operations": operations, **factory}
        base, dim = config.widths[0], config.widths[0] * 4
        self.time = nn.Sequential(operations.Linear(base, dim, **factory), nn.SiLU(), operations.Linear(dim, dim, **factory))
        self.stem = operations.Conv2d(7 * config.patch**2, base, 3, padding=1, **factory)
        self.guiders = CompactGuiders(config, **ops)
        self.fusion = _zero(operations.Conv2d(len(config.guiders) * base, base, 1, **factory))
        self.face_former = FaceFormer(config, **ops)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [base]
        width = base
        for level, wide in enumerate(config.widths):
            for _ in range(config.depths[level]):
                self.down.append(Stage(width, wide, dim, config, level, **ops))
                skips.append(wide)
                width = wide
            if level + 1 < len(config.widths):
                self.down.append(operations.Conv2d(width, width, 3, stride=2, padding=1, **factory))
                skips.append(width)
        self.middle = Stage(width, width, dim, config, len(config.widths) - 1, **ops)
        for level, wide in reversed(list(enumerate(config.widths))):
            for _ in range(config.depths[level] + 1):
                self.up.append(Stage(width + skips.pop(), wide, dim, config, level, **ops))
                width = wide
            if level:
                self.up.append(Upsample(width, config.widths[level - 1], **ops))
                width = config.widths[level - 1]
        self.head = Head(base, config.patch, **ops)
        self.banks = sum(isinstance(module, TransformerBlock) for module in self.modules())  # a whole bank of the detail stream has

    # Conditions: once per frame

    def condition(
        self,
        guides: Mapping[str, Tensor] | None = None,
        strength: Mapping[str, Tensor | float] | None = None,
        embedding: Tensor | None = None,
        shape: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Conditions:
        """Conditions from their pictures and vectors; what is None is left out.

        guides: name -> (B, 3, H, W) 0..1; strength: name -> number or (B, 1, h, w), default 1; embedding (B, 1024) unit, shape (B, 80),
        reference (B, 3, H, W) in -1..1.
        """
        return Conditions(
            features=self.guiders(guides) if guides else None,
            strength=self.strengths(guides, strength or {}) if guides else None,
            tokens=self.face_former(embedding, shape) if embedding is not None else None,
            bank=self.remember(reference) if reference is not None else None,
        )

    def strengths(self, guides: Mapping[str, Tensor], strength: Mapping[str, Tensor | float]) -> Tensor:
        """(B, K, 1, h, w) of guiders' weights at the feature maps' resolution; 0 for guiders without a map."""
        example = next(iter(guides.values()))
        rows = []
        for name in self.config.guiders:
            value = strength.get(name, 1.0) if name in guides else 0.0
            row = value.to(example) if isinstance(value, Tensor) else example.new_full((1, 1, 1, 1), value)
            rows.append(row.expand(len(example), -1, -1, -1))
        size = tuple(side // self.config.patch for side in example.shape[-2:])
        if any(row.shape[-1] > 1 for row in rows):
            rows = [F.interpolate(row, size, mode="area") for row in rows]
        return torch.stack(rows, 1)

    def remember(self, reference: Tensor) -> tuple[Tensor, ...]:
        """Write the bank of the detail stream: the normed tokens of every transformer block for a reference (B, 3, H, W) in -1..1."""
        bank: list[Tensor] = []
        whole = torch.ones_like(reference[:, :1])
        self._run(reference, reference.new_zeros(len(reference)), reference, whole, Conditions(), write=bank)
        return tuple(bank)

    def keep(self, conditions: Conditions) -> Conditions:
        """The same conditions with everything computed that the steps share, so that they need not repeat it.

        Guiders that act in a part of the steps only, and what follows from them, stay with the steps.
        """
        out = conditions
        if out.features is not None and out.window is None:
            tokens, strengths = self.guiders.tokens(out.features), out.strength.flatten(2).mean(-1)
            told, seen = zip(*(block.guiders.remember(tokens, strengths) for block in self._transformers()), strict=True)
            mixed = mix(out.features, out.strength.to(out.features), self.fusion, out.mode)
            out = out.replace(features=None, strength=None, mixed=mixed, told=told, seen=None if seen[0].all() else seen[0])
        if out.bank is not None:
            out = out.replace(recalled=tuple(b.attn1.remember(kept) for b, kept in zip(self._transformers(), out.bank, strict=True)))
            if out.detail is not None and out.detail_window is None and (out.detail == 1).all():
                out = out.replace(detail=None)
        return out

    def _transformers(self) -> list[TransformerBlock]:
        """The transformer blocks in the order they run."""
        stages = [layer for layer in (*self.down, self.middle, *self.up) if isinstance(layer, Stage)]
        return [stage.transformer for stage in stages if stage.transformer is not None]

    # One step

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        composite: Tensor,
        mask: Tensor,
        conditions: Conditions | None = None,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """The clean picture (B, 3, H, W) in about -1..1.

        x (B, 3, H, W) noisy picture, sigma (B,) 0..1, composite (B, 3, H, W) in -1..1, mask (B, 1, H, W) 1 = the face may change here.
        options: a host's attention patches (`attention_patches.py`).
        """
        return self._run(x, sigma, composite, mask, conditions or Conditions(), options=options)

    def _run(
        self,
        x: Tensor,
        sigma: Tensor,
        composite: Tensor,
        mask: Tensor,
        conditions: Conditions,
        *,
        options: dict[str, Any] | None = None,
        write: list[Tensor] | None = None,
    ) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.config.multiple or width % self.config.multiple:
            raise ValueError(f"The generator's picture is {width} x {height}; both sides must be multiples of {self.config.multiple}.")
        moment = self.time(sinusoid(sigma.float() * 1000, self.config.widths[0]).to(x))
        h = self.stem(F.pixel_unshuffle(torch.cat([x, composite, mask], 1), self.config.patch))
        strength, tokens = None, None
        if conditions.mixed is not None:
            h = h + conditions.mixed.to(h)
        elif conditions.features is not None:
            strength = self._acting(conditions, sigma)
            h = h + mix(conditions.features.to(h), strength.to(h), self.fusion, conditions.mode)
            tokens = self.guiders.tokens(conditions.features.to(h))
        strengths = None if strength is None else strength.flatten(2).mean(-1)
        state = _State(_gated(conditions, sigma), tokens, strengths, options or {}, write)

        skips = [h]
        for layer in self.down:
            h = layer(h, moment, state) if isinstance(layer, Stage) else layer(h)
            skips.append(h)
        h = self.middle(h, moment, state)
        for layer in self.up:
            if write is not None and len(write) == self.banks:
                return h
            h = layer(torch.cat([h, skips.pop()], 1), moment, state) if isinstance(layer, Stage) else layer(h)
        return composite + self.head(h, composite)

    def _acting(self, conditions: Conditions, sigma: Tensor) -> Tensor:
        """The strengths at this sigma."""
        if conditions.window is None:
            return conditions.strength
        acts = _acts(conditions.window, sigma[:, None])
        return conditions.strength * acts.to(conditions.strength)[:, :, None, None, None]


@dataclass
class _State:
    """What travels beside the features through one pass."""

    conditions: Conditions
    tokens: Tensor | None
    strength: Tensor | None
    options: dict[str, Any]
    write: list[Tensor] | None
    block: int = 0  # number of transformer blocks passed


class CompactGuiders(nn.Module):
    """One small guider per attribute; all of them are one grouped pass. Zero-initialised outputs."""

    def __init__(self, config: GeneratorConfig, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.names, self.patch = config.guiders, config.patch
        count, width, base = len(config.guiders), config.guider_width, config.widths[0]
        self.conv_in = operations.Conv2d(count * 3 * config.patch**2, count * width, 3, padding=1, groups=count, **factory)
        self.conv_out = _zero(operations.Conv2d(count * width, count * base, 3, padding=1, groups=count, **factory))
        self.to_token = operations.Linear(base, config.token_dim, **factory)
        self.name = Constant(torch.randn(count, config.token_dim) * 0.02, **factory)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """(B, K, C, h, w) from name -> (B, 3, H, W) in 0..1; names the network does not know are refused."""
        unknown = sorted(set(maps) - set(self.names))
        if unknown:
            raise ValueError(f"This generator has no guider named {', '.join(unknown)}; it has {', '.join(self.names)}.")
        black = torch.zeros_like(next(iter(maps.values())))
        stacked = torch.stack([maps.get(name, black) for name in self.names], 1)
        folded = F.pixel_unshuffle(stacked.flatten(0, 1), self.patch).unflatten(0, stacked.shape[:2]).flatten(1, 2)
        return self.conv_out(F.silu(self.conv_in(folded))).unflatten(1, (len(self.names), -1))

    def tokens(self, features: Tensor) -> Tensor:
        """(B, K, T, D) tokens on a coarse grid, marked with their guider's name and place."""
        batch = features.shape[0]
        coarse = F.adaptive_avg_pool2d(features.flatten(0, 1), _GUIDE_GRID)
        token = self.to_token(rearrange(coarse, "(b k) c h w -> b k (h w) c", b=batch))
        place = grid_position(_GUIDE_GRID, _GUIDE_GRID, token.shape[-1], token)
        return token + self.name(token)[:, None] + place


class FaceFormer(nn.Module):
    """Identity embedding (B, E) and shape coefficients (B, S) -> query tokens (B, T, D) (paper section 3.3)."""

    def __init__(self, config: GeneratorConfig, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        dim = config.token_dim
        self.parts = 4
        self.from_embedding = operations.Linear(config.embedding, self.parts * dim, **factory)
        self.from_shape = operations.Linear(config.shape, dim, **factory)
        self.query = Constant(torch.randn(config.tokens, dim) * 0.02, **factory)
        self.norm = operations.LayerNorm(dim, **factory)
        self.attention = Attention(dim, dim, config.head_dim, operations=operations, **factory)
        self.norm_out = operations.LayerNorm(dim, **factory)
        self.mlp = _mlp(dim, operations, factory)

    def forward(self, embedding: Tensor, shape: Tensor | None = None) -> Tensor:
        scaled = embedding * embedding.shape[-1] ** 0.5  # a unit vector of many entries, brought to entries of about one
        memory = self.from_embedding(scaled).unflatten(-1, (self.parts, -1))
        if shape is not None:
            memory = torch.cat([memory, self.from_shape(shape)[:, None]], 1)
        query = self.query(memory).expand(len(memory), -1, -1)
        query = query + self.attention(query, self.norm(memory))
        return query + self.mlp(self.norm_out(query))


class Stage(nn.Module):
    """A residual block, with a transformer block behind it on the levels that attend."""

    def __init__(self, narrow: int, wide: int, time: int, config: GeneratorConfig, level: int, **ops) -> None:
        super().__init__()
        self.block = ResBlock(narrow, wide, time, **ops)
        self.transformer = TransformerBlock(wide, config, **ops) if config.attention[level] else None

    def forward(self, x: Tensor, moment: Tensor, state: _State) -> Tensor:
        x = self.block(x, moment)
        return x if self.transformer is None else self.transformer(x, state)


class ResBlock(nn.Module):
    def __init__(self, narrow: int, wide: int, time: int, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(_GROUPS, narrow, **factory)
        self.conv1 = operations.Conv2d(narrow, wide, 3, padding=1, **factory)
        self.modulate = _zero(operations.Linear(time, 2 * wide, **factory))
        self.norm2 = operations.GroupNorm(_GROUPS, wide, **factory)
        self.conv2 = _zero(operations.Conv2d(wide, wide, 3, padding=1, **factory))
        self.skip = operations.Conv2d(narrow, wide, 1, **factory) if narrow != wide else nn.Identity()

    def forward(self, x: Tensor, moment: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        scale, shift = self.modulate(F.silu(moment))[:, :, None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h, inplace=True))


class TransformerBlock(nn.Module):
    """Self attention that also reads the reference, identity cross-attention, parallel guider attention, MLP."""

    def __init__(self, dim: int, config: GeneratorConfig, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        ops = {"operations": operations, **factory}
        self.norm = operations.GroupNorm(_GROUPS, dim, **factory)
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.attn1 = Attention(dim, dim, config.head_dim, **ops)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.attn2 = Attention(dim, config.token_dim, config.head_dim, **ops)
        self.norm_guiders = operations.LayerNorm(dim, **factory)
        self.guiders = ParallelAttention(dim, config.token_dim, len(config.guiders), dim // config.head_dim, **ops)
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.mlp = _mlp(dim, operations, factory)

    def forward(self, x: Tensor, state: _State) -> Tensor:
        height, width = x.shape[-2:]
        number, state.block = state.block, state.block + 1
        conditions, patches = state.conditions, AttentionPatches(state.options, number)
        h = rearrange(self.norm(x), "b c h w -> b (h w) c")
        h = h + grid_position(height, width, h.shape[-1], h)

        own = self.norm1(h)
        if state.write is not None:
            state.write.append(own)
        h = h + self._look(own, conditions, number, patches)
        if conditions.tokens is not None:
            said = self.attn2(self.norm2(h), _repeat(conditions.tokens, len(h)).to(h), patches=patches, name="attn2")
            h = h + (said if conditions.identity is None else said * _weight(conditions.identity, said))
        if conditions.told is not None:
            h = h + self.guiders.read(self.norm_guiders(h), conditions.told[number].to(h), conditions.seen)
        elif state.tokens is not None:
            h = h + self.guiders(self.norm_guiders(h), state.tokens, state.strength)
        h = h + self.mlp(self.norm3(h))
        return x + rearrange(h, "b (h w) c -> b c h w", h=height)

    def _look(self, own: Tensor, conditions: Conditions, number: int, patches: AttentionPatches) -> Tensor:
        """Self-attention, with the reference beside the own tokens as far as the detail stream weighs."""
        if conditions.bank is None and conditions.recalled is None:
            return self.attn1(own, own, patches=patches)
        recalled = (
            self.attn1.remember(conditions.bank[number].to(own)) if conditions.recalled is None else conditions.recalled[number].to(own)
        )
        both = self.attn1(own, own, beside=_repeat(recalled, len(own)), patches=patches)
        if conditions.detail is None:
            return both
        alone = self.attn1(own, own, patches=patches)
        return torch.lerp(alone, both, _weight(conditions.detail, alone))


class AttentionPatches:
    """A host's patches of one transformer block, in ComfyUI's form: patches[name] and patches_replace[attn][(block, number)]."""

    def __init__(self, options: dict[str, Any], number: int) -> None:
        self.options, self.place = options, ("middle", number)

    def before(self, name: str, q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run the input patches attn1_patch / attn2_patch on query, key and value tokens."""
        for patch in self.options.get("patches", {}).get(f"{name}_patch", ()):
            q, k, v = patch(q, k, v, self._extra(heads, q.shape[-1]))
        return q, k, v

    def after(self, name: str, out: Tensor, heads: int) -> Tensor:
        """Run the output patches."""
        for patch in self.options.get("patches", {}).get(f"{name}_output_patch", ()):
            out = patch(out, self._extra(heads, out.shape[-1]))
        return out

    def attend(self, name: str, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """The replaced attention where one is set, else the host's own attention function, else torch's."""
        replacing = self.options.get("patches_replace", {}).get(name, {}).get(self.place)
        if replacing is not None:
            return replacing(q, k, v, self._extra(heads, q.shape[-1]))
        host = self.options.get("attention")
        return attend(q, k, v, heads) if host is None else host(q, k, v, heads)

    def _extra(self, heads: int, dim: int) -> dict[str, Any]:
        extra = {key: value for key, value in self.options.items() if key not in ("patches", "patches_replace", "attention")}
        return extra | {"n_heads": heads, "dim_head": dim // heads, "block": self.place, "block_index": self.place[1]}


class Attention(nn.Module):
    def __init__(self, dim: int, context_dim: int, head_dim: int, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.heads = max(dim // head_dim, 1)
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(context_dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(context_dim, dim, bias=False, **factory)
        self.to_out = _zero(operations.Linear(dim, dim, **factory))

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        *,
        beside: Tensor | None = None,
        patches: AttentionPatches | None = None,
        name: str = "attn1",
    ) -> Tensor:
        """beside: keys and values (B, T, 2 D), as :meth:`remember` makes them, that are read besides the context's."""
        patches = patches or AttentionPatches({}, 0)
        query, key, value = patches.before(name, x, context, context, self.heads)
        key, value = self.to_k(key), self.to_v(value)
        if beside is not None:
            key, value = (torch.cat(pair, 1) for pair in zip((key, value), beside.chunk(2, -1), strict=True))
        out = patches.attend(name, self.to_q(query), key, value, self.heads)
        return self.to_out(patches.after(name, out, self.heads))

    def remember(self, context: Tensor) -> Tensor:
        """Keys and values of a context, side by side (B, T, 2 D)."""
        return torch.cat([self.to_k(context), self.to_v(context)], -1)


class Upsample(nn.Module):
    def __init__(self, wide: int, narrow: int, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.conv = operations.Conv2d(wide, narrow, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")


class Head(nn.Module):
    """Features back to a residual at full resolution; the last convolutions see the composite's pixels. Zero-initialised."""

    def __init__(self, width: int, patch: int, *, operations: ModuleType | Any = nn, **factory) -> None:
        super().__init__()
        self.patch, channels = patch, 12
        self.norm = operations.GroupNorm(_GROUPS, width, **factory)
        self.unfold = operations.Conv2d(width, channels * patch**2, 1, **factory)
        self.conv = operations.Conv2d(channels + 3, 16, 3, padding=1, **factory)
        self.out = _zero(operations.Conv2d(16, 3, 3, padding=1, **factory))

    def forward(self, x: Tensor, composite: Tensor) -> Tensor:
        x = F.silu(self.norm(x), inplace=True)
        if x.device.type == "cpu":  # which convolves few channels at full resolution twice as fast with the channels last
            x, composite = (t.contiguous(memory_format=torch.channels_last) for t in (x, composite))
        fine = F.pixel_shuffle(self.unfold(x), self.patch)
        return self.out(F.silu(self.conv(torch.cat([fine, composite], 1)), inplace=True)).contiguous()


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention on (B, N, heads * d)."""
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


def sinusoid(x: Tensor, dim: int) -> Tensor:
    """(.., dim) sine and cosine features of numbers (..,), as in the transformer."""
    rate = torch.exp(-torch.arange(dim // 2, device=x.device, dtype=torch.float32) * (9.21034 / (dim // 2)))
    angle = x[..., None].float() * rate
    return torch.cat([angle.sin(), angle.cos()], -1)


def grid_position(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """(height * width, dim) features of a cell's place, y and x in 0..1, the same at every resolution; small beside the tokens."""
    y, x = ((torch.arange(n, device=like.device) + 0.5) / n for n in (height, width))
    place = torch.cat([t.expand(height, width, -1) for t in (sinusoid(y * 100, dim // 2)[:, None], sinusoid(x * 100, dim // 2)[None])], -1)
    return 0.3 * place.flatten(0, 1).to(like)


def _acts(window: Tensor, sigma: Tensor) -> Tensor:
    """Whether sigma lies in windows (.., 2) of highest and lowest sigma."""
    high, low = window.to(sigma).unbind(-1)
    return (sigma <= high) & (sigma >= low)


def _gated(conditions: Conditions, sigma: Tensor) -> Conditions:
    """The conditions with both streams' weights at this sigma."""
    identity = _inside(conditions.identity_window, conditions.identity, sigma)
    return conditions.replace(identity=identity, detail=_inside(conditions.detail_window, conditions.detail, sigma))


def _inside(window: Tensor | None, weight: Tensor | None, sigma: Tensor) -> Tensor | None:
    """A stream's weight (B,), 0 outside of its window."""
    if window is None:
        return weight
    acts = _acts(window, sigma).to(sigma)
    return acts if weight is None else weight * acts


def _repeat(x: Tensor, batch: int) -> Tensor:
    """One row for all frames, or one per frame."""
    return x.expand(batch, -1, -1) if len(x) == 1 else x


def _weight(weight: Tensor, like: Tensor) -> Tensor:
    return weight.to(like).view(-1, 1, 1)


def _mlp(dim: int, operations: ModuleType | Any, factory: dict[str, Any]) -> nn.Sequential:
    return nn.Sequential(operations.Linear(dim, 2 * dim, **factory), nn.GELU(), _zero(operations.Linear(2 * dim, dim, **factory)))


def _zero(layer: nn.Module) -> nn.Module:
    """Start at nothing: the layer adds zero until it has learnt something."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
