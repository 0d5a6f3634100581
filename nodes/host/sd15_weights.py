"""What other projects' files change on a Stable Diffusion 1.5 MODEL: networks beside it, layers in it, weights, noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.lora
import comfy.model_management as mm
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Upsample
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn

from ...dynamicface.errors import DynamicFaceError
from ...dynamicface.generator.adapters.families import Sampling, sampling_of
from ...dynamicface.generator.adapters.files import Adapter
from ...dynamicface.temporal_layers import Place, TemporalLayer, TemporalLayers
from .sd15_run import STILL, diffusers_order, transformer_blocks

OPERATIONS = comfy.ops.manual_cast  # weights as in the file, cast to the sampler's precision where they are used
_TEMPORAL = ("motion", "temporal_personalive")


def patcher_of(network: nn.Module) -> ModelPatcher:
    """A network under ComfyUI's memory management."""
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
    return kind(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def add_low_rank(model: ModelPatcher, changes: dict, strength: float) -> None:
    """A FaceID file's changes of the attentions' projections, as ordinary weight patches."""
    places = diffusers_order([block for block, _ in transformer_blocks(model.model.diffusion_model)])
    names = {module: name for name, module in model.model.named_modules()}
    blocks = dict(transformer_blocks(model.model.diffusion_model))
    state, targets = {}, {}
    for (number, projection), (up, down) in changes.items():
        attention = getattr(blocks[places[number // 2]], "attn2" if number % 2 else "attn1")
        target = f"{names[attention]}.{'to_out.0' if projection == 'to_out' else projection}"
        state |= {f"{target}.lora_up.weight": up, f"{target}.lora_down.weight": down}
        targets[target] = f"{target}.weight"
    model.add_patches(comfy.lora.load_lora(state, targets), strength)


def add_temporal_layers(model: ModelPatcher, adapters: Sequence[Adapter], key: str) -> None:
    """Put a file's temporal layers between the U-Net's own, with the noise levels they know, unless a denoiser brings its own."""
    adapter = next((adapter for adapter in adapters if adapter.has(*_TEMPORAL)), None)
    if adapter is None:
        return
    layout = next(name for name in _TEMPORAL if name in adapter.parts)
    layers = TemporalLayers.from_state(adapter.part(layout), operations=OPERATIONS)
    model.set_additional_models(key, [patcher_of(layers)])
    placed = [(_sequence(model.model.diffusion_model, place), layer) for place, layer in zip(layers.places, layers.layers, strict=True)]

    def inject(patcher: ModelPatcher) -> None:
        for sequence, layer in placed:
            # before what changes the resolution (or, in the middle, before the last block): right after the attention
            last = sequence is patcher.model.diffusion_model.middle_block or isinstance(sequence[-1], Upsample)
            sequence.insert(len(sequence) - 1 if last else len(sequence), layer)

    def eject(patcher: ModelPatcher) -> None:
        for sequence, layer in placed:
            del sequence[next(k for k, module in enumerate(sequence) if module is layer)]

    model.set_injections(key, [PatcherInjection(inject, eject)])
    model.set_model_forward_timestep_embed_patch((TemporalLayer, _call_layer))
    sampling = sampling_of(adapter.row.family) if adapter.row else None
    if sampling is not None and not any(role(other) == "denoising" for other in adapters):
        predicts_v = isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION)
        sampling = replace(sampling, prediction="v_prediction" if predicts_v else "eps", zsnr=False)  # the checkpoint's own
        model.add_object_patch("model_sampling", model_sampling(sampling))


def _call_layer(layer: TemporalLayer, x: Tensor, emb: Tensor, context: Tensor, options: dict[str, Any], *_: Any) -> Tensor:
    frames = 1 if options.get(STILL) else len(x) // len(options["cond_or_uncond"])
    return layer(x, frames, optimized_attention)


def _sequence(unet: nn.Module, place: Place) -> nn.Module:
    """The list of layers of ComfyUI's U-Net at a place of a diffusers U-Net."""
    block, position = place
    if block == "mid_block":
        return unet.middle_block
    level, repeats = int(block.split(".")[1]), unet.num_res_blocks
    if block.startswith("down"):
        return unet.input_blocks[1 + sum(n + 1 for n in repeats[:level]) + position]
    return unet.output_blocks[sum(n + 1 for n in repeats[::-1][:level]) + position]


def role(adapter: Adapter) -> str:
    """What a U-Net in a file is for: a family's ReferenceNet lacks the last layers."""
    if not adapter.has("unet"):
        return ""
    return "denoising" if "conv_out.weight" in adapter.state else "reference"


def _native_names(model: ModelPatcher, adapter: Adapter) -> dict[str, Tensor]:
    """A diffusers U-Net's tensors under ComfyUI's names."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {names[name]: value for name, value in adapter.part("unet").items()}


def reference_net(model: ModelPatcher, adapter: Adapter) -> ModelPatcher:
    """A second U-Net of the model's build with a ReferenceNet's weights."""
    network = model.model.model_config.get_model({}, "", device=mm.unet_offload_device())
    unet = network.diffusion_model
    unet.load_state_dict({name: value.to(unet.dtype) for name, value in _native_names(model, adapter).items()}, strict=False, assign=True)
    return patcher_of(network)


def replace_denoiser(
    model: ModelPatcher, adapters: Sequence[Adapter], positive: list, negative: list, picture_prompt: Tensor | None
) -> tuple[list, list]:
    """Put a family's denoising U-Net in the model's place, with the noise schedule and the kind of prompt it was trained on."""
    adapter = next((adapter for adapter in adapters if role(adapter) == "denoising"), None)
    if adapter is None:
        return positive, negative
    if picture_prompt is None:
        raise DynamicFaceError(
            f"{adapter.file} reads the source's picture in place of a prompt: connect CLIP Vision Encode of the source photo to "
            "'clip_vision_output' (with the image encoder of sd-image-variations-diffusers), or remove the file."
        )
    state = {f"diffusion_model.{name}": ("set", (value,)) for name, value in _native_names(model, adapter).items()}
    model.add_patches(state)
    for name in state:  # first, so that LoRAs that are already on the model stay on top
        model.patches[name] = model.patches[name][-1:] + model.patches[name][:-1]
    sampling = sampling_of(adapter.row.family) if adapter.row else None
    if sampling is not None:
        model.add_object_patch("model_sampling", model_sampling(sampling))
    said = picture_prompt.flatten(1)[:1, None]
    return [[said, extra] for _, extra in positive], [[torch.zeros_like(said), extra] for _, extra in negative]


def model_sampling(sampling: Sampling) -> nn.Module:
    """The noise levels and the kind of prediction a family was trained with."""
    kinds = {"eps": comfy.model_sampling.EPS, "v_prediction": comfy.model_sampling.V_PREDICTION}

    class FamilySampling(comfy.model_sampling.ModelSamplingDiscrete, kinds[sampling.prediction]):
        """The schedule a family was trained with."""

    levels = FamilySampling(zsnr=sampling.zsnr)
    levels._register_schedule(
        beta_schedule=sampling.beta_schedule, linear_start=0.00085, linear_end=sampling.linear_end, zsnr=sampling.zsnr
    )
    return levels
