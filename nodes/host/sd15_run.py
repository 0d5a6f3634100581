"""One sampling run on a patched Stable Diffusion model: what the patches read, computed when first needed and gone with the run.

A Recipe says what was asked for; it is never changed and is shared by clones. A Run lives in transformer_options from the sampler's outer
wrapper to its end. Patches are plain functions over the Recipe's key, because ComfyUI deep-copies a MODEL's options with every clone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management as mm
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer, optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...dynamicface.errors import DynamicFaceError
from ...dynamicface.guiders import Guidance, mix
from ...dynamicface.identity_stream import IdentityTokens
from ...dynamicface.reference import KeysValues, read

Block = tuple[str, int, int]
"""("input" | "middle" | "output", number, transformer in it), as ComfyUI names blocks."""

STILL = "dynamicface_still"  # set in a pass whose batch is no clip: temporal layers stay off
_FRAMES_AT_ONCE = 8  # through the guiders; keeps memory flat over a clip


@dataclass(frozen=True)
class Window:
    """When something acts: from the higher to the lower noise level."""

    start: float
    end: float

    def holds(self, sigma: float) -> bool:
        return self.end <= sigma <= self.start


@dataclass(frozen=True)
class Guiding:
    """Guiders that add to the first features."""

    guidances: tuple[Guidance, ...]
    windows: tuple[Window, ...]
    network: ModelPatcher  # of a ModuleDict: guidance name -> guider
    mode: str


@dataclass(frozen=True)
class Reference:
    """The detail stream."""

    latents: Tensor  # (N, 4, h, w) as the U-Net takes them
    weights: Tensor  # (F, N) strength x yaw weight
    window: Window
    blocks: frozenset[Block]  # that read
    network: ModelPatcher | None = None  # a ReferenceNet; None = the model itself writes


@dataclass(frozen=True)
class Identity:
    """The identity stream."""

    tokens: IdentityTokens
    weight: float
    window: Window


@dataclass(frozen=True)
class Recipe:
    """All that was asked for, for F frames."""

    key: str  # under which the run is found; of this recipe alone
    frames: int
    guiding: Guiding | None = None
    reference: Reference | None = None
    identity: Identity | None = None


class Run:
    """What one sampling run has computed so far."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.sigma = 0.0
        self.blocks: dict[Block, BasicTransformerBlock] = {}
        self.memory: dict[Block, KeysValues] = {}
        self._features: dict[tuple[int, ...], Tensor] = {}
        self._said: dict[Block, tuple[Tensor, Tensor]] = {}
        self.asking: dict[Block, Tensor] = {}

    def begin_step(self, unet: nn.Module, x: Tensor, context: Tensor, options: dict[str, Any]) -> None:
        """Before each call of the U-Net. Writes the reference when it is first needed."""
        mm.throw_exception_if_processing_interrupted()
        self.sigma = float(options["sigmas"][0])
        self.blocks = self.blocks or dict(transformer_blocks(unet))
        reference, conditional = self.recipe.reference, conditional_chunks(options)
        if reference is not None and not self.memory and any(conditional) and reference.window.holds(self.sigma):
            prompt = context.chunk(len(conditional))[conditional.index(True)][:1]
            self._write(reference, unet, x, prompt, options)

    def frames(self, options: dict[str, Any], batch: int) -> list[int]:
        """Which frames of the clip a chunk of `batch` latents holds; a context window may show a part of it."""
        total, window = self.recipe.frames, options.get("context_window")
        if total == 1:
            return [0] * batch
        part = _shown(window) if window is not None and window.dim == 0 else (options.get("ad_params") or {}).get("sub_idxs")
        index = list(range(batch)) if part is None and batch == total else list(part or ())
        if len(index) != batch or max(index) >= total:
            raise DynamicFaceError(
                f"The guides have {total} frames, but the sampler works on {batch}. "
                "Connect the latent of Apply DynamicFace to the sampler, or make one of as many frames."
            )
        return index

    def guide(self, h: Tensor, options: dict[str, Any]) -> Tensor | None:
        """(B, C, h, w) to add to the first features; None where no guider acts now."""
        guiding = self.recipe.guiding
        acting = tuple(k for k, window in enumerate(guiding.windows) if window.holds(self.sigma))
        if not acting:
            return None
        chunks = len(options["cond_or_uncond"])
        if acting not in self._features:
            self._features[acting] = self._mix([guiding.guidances[k] for k in acting], h)
        index = self.frames(options, len(h) // chunks)
        return self._features[acting][index].repeat(chunks, 1, 1, 1)

    def said(self, block: Block) -> tuple[tuple[Tensor, Tensor], ...]:
        """Keys and values (1, T, C) of the identity tokens in a block: of the conditional half and, where there are any, of the other."""
        if block not in self._said:
            tokens, attention = self.recipe.identity.tokens, self.blocks[block].attn2
            number = list(diffusers_order(self.blocks)).index(block)
            like = self.asking[block]
            halves = [half.to(like) for half in (tokens.tokens, tokens.unconditional) if half is not None]
            if tokens.projections is None:
                self._said[block] = tuple((attention.to_k(half), attention.to_v(half)) for half in halves)
            else:
                self._said[block] = tuple(tuple(F.linear(half, w.to(like)) for w in tokens.projections[number]) for half in halves)
        return self._said[block]

    def _mix(self, guidances: Sequence[Guidance], h: Tensor) -> Tensor:
        """(F, C, h, w): the guiders' features of the whole clip, fused."""
        guiders, size = self.recipe.guiding.network.model, [8 * n for n in h.shape[-2:]]
        out = []
        for index in torch.arange(self.recipe.frames).split(_FRAMES_AT_ONCE):
            mm.throw_exception_if_processing_interrupted()
            maps = (_resize(g.map[index].to(h), size) for g in guidances)
            features = torch.stack([guiders[g.name](picture) for g, picture in zip(guidances, maps, strict=True)], 1)
            strength = torch.stack([F.adaptive_avg_pool2d(g.strength()[index].to(h), h.shape[-2:]) for g in guidances], 1)
            out.append(mix(features, strength, mode=self.recipe.guiding.mode))
        return torch.cat(out)

    def _write(self, reference: Reference, unet: nn.Module, x: Tensor, prompt: Tensor, options: dict[str, Any]) -> None:
        """One pass of the source through a U-Net; what enters its self-attentions becomes keys and values of the reading ones."""
        seen: dict[Block, Tensor] = {}

        def keep(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            if place_of(extra) in reference.blocks:
                seen[place_of(extra)] = n
            return n, context, value

        writer = unet if reference.network is None else reference.network.model.diffusion_model
        latents = _resize(reference.latents.to(x), x.shape[-2:])
        still = x.new_zeros(len(latents))
        patches = {"attn1_patch": [keep]}
        if layers := options.get("patches", {}).get("forward_timestep_embed_patch"):
            patches["forward_timestep_embed_patch"] = layers  # how to call the layers that were put into the U-Net
        fresh = {"patches": patches, "cond_or_uncond": [0], "sigmas": still, STILL: True}
        writer(latents, still, context=prompt.expand(len(latents), -1, -1), transformer_options=fresh)
        for block, tokens in seen.items():
            attention = self.blocks[block].attn1
            self.memory[block] = KeysValues(attention.to_k(tokens), attention.to_v(tokens))


def new_key() -> str:
    """A key of its own for each recipe, so that two may be on one model."""
    return f"dynamicface.{uuid.uuid4().hex}"


def install(model: ModelPatcher, recipe: Recipe) -> None:
    """Put a recipe's patches on a MODEL (a clone of the artist's). What is absent in the recipe leaves no patch."""
    key = recipe.key
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, _with_run(recipe))
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, _with_step(key))
    if recipe.guiding is not None:
        model.set_model_input_block_patch(_guide(key))
    if recipe.reference is not None:
        earlier = model.model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
        for block in recipe.reference.blocks:
            model.set_model_attn1_replace(_refer(key, block, earlier.get(block) or earlier.get(block[:2])), *block)
    if recipe.identity is not None:
        model.set_model_attn2_patch(_ask(key))
        model.set_model_attn2_output_patch(_answer(key))


def transformer_blocks(unet: nn.Module) -> Iterator[tuple[Block, BasicTransformerBlock]]:
    """Every transformer block of a U-Net with its place."""
    groups = [("input", unet.input_blocks), ("middle", [unet.middle_block]), ("output", unet.output_blocks)]
    for name, sequences in groups:
        for number, layers in enumerate(sequences):
            for layer in layers:
                if isinstance(layer, SpatialTransformer):
                    yield from (((name, number, k), block) for k, block in enumerate(layer.transformer_blocks))


def diffusers_order(blocks: Sequence[Block]) -> list[Block]:
    """Blocks as diffusers numbers their attentions: down, up, middle."""
    return sorted(blocks, key=lambda block: (("input", "output", "middle").index(block[0]), block[1:]))


def place_of(extra: dict[str, Any]) -> Block:
    """The block a patch was called in."""
    return (*extra["block"], extra["block_index"])


def conditional_chunks(options: dict[str, Any]) -> list[bool]:
    """Which chunks of the batch are conditional."""
    return [kind == 0 for kind in options["cond_or_uncond"]]


def _shown(window) -> list[int]:
    """Which frames a context window of core shows; newer cores put one before it that they leave out of the result."""
    before = getattr(window, "causal_anchor_index", None)
    return [*([] if before is None or before < 0 else [before]), *window.index_list]


def _with_run(recipe: Recipe) -> Callable:
    def sample(executor, *args, **kwargs):
        options = executor.class_obj.model_options["transformer_options"]
        options[recipe.key] = Run(recipe)
        try:
            return executor(*args, **kwargs)
        finally:
            del options[recipe.key]

    return sample


def _with_step(key: str) -> Callable:
    def step(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        run = transformer_options.get(key)
        if run is not None:
            run.begin_step(executor.class_obj, x, context, transformer_options)
        return executor(x, timesteps, context, y, control, transformer_options, **kwargs)

    return step


def _guide(key: str) -> Callable:
    def patch(h: Tensor, options: dict[str, Any]) -> Tensor:
        run = options.get(key)
        if run is None or options["block"] != ("input", 0):
            return h
        added = run.guide(h, options)
        return h if added is None else h + added

    return patch


def _refer(key: str, block: Block, earlier: Callable | None) -> Callable:
    def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            if earlier is not None:
                return earlier(q, k, v, extra)
            return optimized_attention(q, k, v, extra["n_heads"], mask=mask, attn_precision=extra["attn_precision"])

        run = extra.get(key)
        if run is None or block not in run.memory or not run.recipe.reference.window.holds(run.sigma):
            return attention(q, k, v, None)
        conditional = conditional_chunks(extra)
        weights = run.recipe.reference.weights[run.frames(extra, len(q) // len(conditional))]
        return read(q, k, v, run.memory[block], weights, conditional, attention)

    return attend


def _ask(key: str) -> Callable:
    def patch(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        run = extra.get(key)
        if run is not None and run.recipe.identity.window.holds(run.sigma):
            run.asking[place_of(extra)] = n
        return n, context, value

    return patch


def _answer(key: str) -> Callable:
    def patch(out: Tensor, extra: dict[str, Any]) -> Tensor:
        run, block = extra.get(key), place_of(extra)
        if run is None or block not in run.asking:
            return out
        identity, attn2 = run.recipe.identity, run.blocks[block].attn2
        halves, queries = run.said(block), attn2.to_q(run.asking.pop(block))
        conditional, parts = conditional_chunks(extra), []
        for own, query, seen in zip(out.chunk(len(conditional)), queries.chunk(len(conditional)), conditional, strict=True):
            if not seen and len(halves) == 1:
                parts.append(own)
                continue
            key_, value = (half.expand(len(query), -1, -1) for half in halves[0 if seen else 1])
            said = attn2.to_out(optimized_attention(query, key_, value, extra["n_heads"], attn_precision=extra["attn_precision"]))
            if identity.tokens.instead:
                parts.append(torch.lerp(own, said, identity.weight))
            else:
                bias = attn2.to_out(torch.zeros_like(said[:1, :1]))  # is in `own` already
                parts.append(own + identity.weight * (said - bias))
        return torch.cat(parts)

    return patch


def _resize(picture: Tensor, size: Sequence[int]) -> Tensor:
    """(F, C, H, W) to another size."""
    if picture.shape[-2:] == tuple(size):
        return picture
    return F.interpolate(picture, tuple(size), mode="bilinear", antialias=True, align_corners=False)
