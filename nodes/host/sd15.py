"""DynamicFace on the artist's own Stable Diffusion 1.5 MODEL: patches on a clone, gone when it is not used.

What each part becomes there: guiders add to the first features, the detail stream is reference attention in the self-attentions, the
identity stream is read beside (or in place of) the prompt, temporal layers are put between the U-Net's own. A part of weight 0 leaves no
patch. Without any adapter file there is still the composite as start picture and reference attention by the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.lora
import comfy.model_management as mm
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn

from ...dynamicface.errors import DynamicFaceError
from ...dynamicface.generator.adapters.families import families, missing, sampling_of
from ...dynamicface.generator.adapters.files import Adapter
from ...dynamicface.generator.adapters.guiders import GUIDER_LAYOUTS, load_guider
from ...dynamicface.guides import Guides
from ...dynamicface.identity_stream import face_id, id2token, purify
from ...dynamicface.reference import reads
from ...dynamicface.streams import DetailStream, Fusion, IdentityStream, Mixture
from ...dynamicface.temporal_layers import Place, TemporalLayer, TemporalLayers
from .sd15_run import STILL, Guiding, Identity, Recipe, Reference, Window, diffusers_order, install, transformer_blocks

_TEMPORAL = ("motion", "temporal_personalive")
_CONTROLNETS = ("controlnet_embedding", "controlnet_hint")
_OPERATIONS = comfy.ops.manual_cast  # weights as in the file, cast to the sampler's precision where they are used


def apply(
    model: ModelPatcher,
    positive: list,
    negative: list,
    vae: Any,
    guides: Guides,
    *,
    mixture: Mixture | None = None,
    identity: IdentityStream | None = None,
    detail: DetailStream | None = None,
    fusion: Fusion | None = None,
    adapters: Sequence[Adapter] = (),
    picture_prompt: Tensor | None = None,
    purification: float = 1.0,
) -> tuple[ModelPatcher, list, list, dict]:
    """(model, positive, negative, latent) for a stock sampler.

    picture_prompt: (1, D) CLIP embedding of the source, what AnimateAnyone's family reads in place of a prompt.
    purification: alpha of `identity_stream.purify`, 1 = off.
    """
    if not is_unet(model):
        raise DynamicFaceError(
            f"Apply DynamicFace works on DynamicFace's own generator and on Stable Diffusion 1.5, but this model is a "
            f"{type(model.model).__name__}. Connect Load DynamicFace, or Load Checkpoint with an SD 1.5 checkpoint."
        )
    if vae is None:
        raise DynamicFaceError("On a Stable Diffusion model Apply DynamicFace needs its VAE: connect the 'vae' of Load Checkpoint.")
    for adapter in adapters:
        _check_fits(adapter, model)
    patched = model.clone()
    latent = _start(vae, guides)
    to_identity, to_detail = (fusion or Fusion()).strengths_of(guides)

    positive, negative = _denoiser(patched, adapters, positive, negative, picture_prompt)
    recipe = Recipe(
        frames=len(guides.mask),
        guiding=_guiding(patched, mixture, adapters),
        reference=_reference(patched, detail, to_detail, guides, vae, adapters),
        identity=_identity(patched, identity, to_identity, adapters),
    )
    _temporal(patched, adapters, recipe.key)
    if recipe.guiding or recipe.reference or recipe.identity:
        install(patched, recipe)
        networks = [part.network for part in (recipe.guiding, recipe.reference) if part is not None and part.network is not None]
        patched.set_additional_models(recipe.key, networks + patched.get_additional_models_with_key(recipe.key))
    if purification != 1:
        patched.set_model_sampler_post_cfg_function(_purified(purification))
    return patched, positive, negative, latent


def is_unet(model: ModelPatcher) -> bool:
    """Whether a MODEL is a Stable Diffusion 1.x or 2.x U-Net (four latent channels, a prompt and nothing else)."""
    network = model.model.diffusion_model
    return isinstance(network, UNetModel) and network.num_classes is None and network.in_channels == 4


def _start(vae: Any, guides: Guides) -> dict[str, Tensor]:
    """The composite as latent, with the face as what may change and one noise for the whole clip."""
    samples = vae.encode(guides.composite[..., :3].clamp(0, 1))
    mask = guides.mask[:, None].to(samples)
    return {"samples": samples, "noise_mask": mask, "batch_index": [0] * len(samples)}


def _check_fits(adapter: Adapter, model: ModelPatcher) -> None:
    config = model.model.model_config.unet_config
    for size, ours, what in (("m", config["model_channels"], "first features"), ("t", config["context_dim"], "prompt tokens")):
        found = adapter.sizes.get(size, ours)
        if found != ours:
            raise DynamicFaceError(
                f"{adapter.file} is made for a model whose {what} are {found} wide, this one's are {ours}. "
                "Use it with a Stable Diffusion 1.5 checkpoint."
            )


def _window(model: ModelPatcher, start: float, end: float) -> Window:
    levels = model.get_model_object("model_sampling")
    return Window(levels.percent_to_sigma(start), levels.percent_to_sigma(end))


def _patcher(network: nn.Module) -> ModelPatcher:
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
    return kind(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def _guiding(model: ModelPatcher, mixture: Mixture | None, adapters: Sequence[Adapter]) -> Guiding | None:
    guidances = tuple(g for g in mixture.guidances if g.weight != 0) if mixture is not None else ()
    if not guidances:
        return None
    files = {adapter.guider or (adapter.row.guider if adapter.row else ""): adapter for adapter in adapters if adapter.has(*GUIDER_LAYOUTS)}
    for name, adapter in files.items():
        if adapter.has(*_CONTROLNETS):
            raise DynamicFaceError(
                f"{adapter.file} is a ControlNet: its embedding alone does not steer this model. Use it with ComfyUI's ControlNet nodes "
                f"and the '{name or 'normal'}' picture of Render Guides, and remove it from Load Adapter."
            )
        if not name:
            raise DynamicFaceError(f"{adapter.file} is a guider, but not said for which attribute. Choose one in Load Adapter.")
    for guidance in guidances:
        if guidance.name not in files:
            rows = [row for row in families()[0] if row.layout in GUIDER_LAYOUTS and row.guider in ("", guidance.name)]
            need = (
                f"The {guidance.name} guider has no weights for this model. Load a file with Load Adapter, or disconnect it and drive a "
                f"ControlNet with the '{guidance.name}' picture of Render Guides."
            )
            raise DynamicFaceError(missing(need, rows))
    network = nn.ModuleDict({g.name: load_guider(files[g.name], operations=_OPERATIONS) for g in guidances})
    windows = tuple(_window(model, g.start, g.end) for g in guidances)
    return Guiding(guidances, windows, _patcher(network), mixture.mode)


def _reference(
    model: ModelPatcher, detail: DetailStream | None, strength: float, guides: Guides, vae: Any, adapters: Sequence[Adapter]
) -> Reference | None:
    weight = 0.0 if detail is None else detail.weight * strength
    if weight == 0:
        return None
    size = guides.crop.size
    pictures = comfy.utils.common_upscale(detail.pictures[..., :3].movedim(-1, 1), size, size, "bilinear", "disabled").movedim(1, -1)
    latents = model.model.process_latent_in(vae.encode(pictures.clamp(0, 1)))
    weights = weight * detail.weights_for(guides.yaw.cpu())
    blocks = frozenset(block for block, _ in transformer_blocks(model.model.diffusion_model) if reads(detail.blocks, block[0]))
    net = next((adapter for adapter in adapters if _role(adapter) == "reference"), None)
    network = None if net is None else _reference_net(model, net)
    return Reference(latents, weights, _window(model, detail.start, detail.end), blocks, network)


def _identity(model: ModelPatcher, identity: IdentityStream | None, strength: float, adapters: Sequence[Adapter]) -> Identity | None:
    weight = 0.0 if identity is None else identity.weight * strength
    if weight == 0:
        return None
    adapter = next((adapter for adapter in adapters if adapter.has("id2token", "face_id")), None)
    if adapter is None:
        rows = [row for row in families()[0] if row.layout in ("id2token", "face_id")]
        need = (
            "The identity stream has no weights for this model. Load a file with Load Adapter, or disconnect Identity Stream: "
            "the detail stream alone carries the person too."
        )
        raise DynamicFaceError(missing(need, rows))
    if identity.embedding is None:
        raise DynamicFaceError("The identity stream carries no embedding; connect a fitted prior or an embedding file to it.")
    former, layout = (id2token, "id2token") if adapter.has("id2token") else (face_id, "face_id")
    tokens = former(adapter.part(layout), identity.embedding)
    if tokens.low_rank:
        _add_low_rank(model, tokens.low_rank, weight)
    return Identity(tokens, weight, _window(model, identity.start, identity.end))


def _add_low_rank(model: ModelPatcher, changes: dict, strength: float) -> None:
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


def _temporal(model: ModelPatcher, adapters: Sequence[Adapter], key: str) -> None:
    """Put a file's temporal layers between the U-Net's own."""
    adapter = next((adapter for adapter in adapters if adapter.has(*_TEMPORAL)), None)
    if adapter is None:
        return
    layout = next(name for name in _TEMPORAL if name in adapter.parts)
    layers = TemporalLayers.from_state(adapter.part(layout), operations=_OPERATIONS)
    model.set_additional_models(key, [_patcher(layers)])
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


def _role(adapter: Adapter) -> str:
    """What a U-Net in a file is for: a family's ReferenceNet lacks the last layers."""
    if not adapter.has("unet"):
        return ""
    return "denoising" if "conv_out.weight" in adapter.state else "reference"


def _native_names(model: ModelPatcher, adapter: Adapter) -> dict[str, Tensor]:
    """A diffusers U-Net's tensors under ComfyUI's names."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {names[name]: value for name, value in adapter.part("unet").items()}


def _reference_net(model: ModelPatcher, adapter: Adapter) -> ModelPatcher:
    """A second U-Net of the model's build with a ReferenceNet's weights."""
    network = model.model.model_config.get_model({}, "", device=mm.unet_offload_device())
    unet = network.diffusion_model
    unet.load_state_dict({name: value.to(unet.dtype) for name, value in _native_names(model, adapter).items()}, strict=False, assign=True)
    return _patcher(network)


def _denoiser(
    model: ModelPatcher, adapters: Sequence[Adapter], positive: list, negative: list, picture_prompt: Tensor | None
) -> tuple[list, list]:
    """Put a family's denoising U-Net in the model's place, with the noise schedule and the kind of prompt it was trained on."""
    adapter = next((adapter for adapter in adapters if _role(adapter) == "denoising"), None)
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
        model.add_object_patch("model_sampling", _model_sampling(sampling))
    said = picture_prompt.flatten(1)[:1, None]
    return [[said, extra] for _, extra in positive], [[torch.zeros_like(said), extra] for _, extra in negative]


def _model_sampling(sampling) -> nn.Module:
    kinds = {"eps": comfy.model_sampling.EPS, "v_prediction": comfy.model_sampling.V_PREDICTION}

    class FamilySampling(comfy.model_sampling.ModelSamplingDiscrete, kinds[sampling.prediction]):
        """The schedule a family was trained with."""

    levels = FamilySampling(zsnr=sampling.zsnr)
    levels._register_schedule(
        beta_schedule=sampling.beta_schedule, linear_start=0.00085, linear_end=sampling.linear_end, zsnr=sampling.zsnr
    )
    return levels


def _purified(alpha: float):
    """A post-cfg function: purified guidance in the space of predicted noise."""

    def guided(args: dict[str, Any]) -> Tensor:
        if args["uncond_denoised"] is None or args["cond_scale"] == 1:
            return args["denoised"]
        sigma = args["sigma"].view(-1, *[1] * (args["input"].dim() - 1))
        noise = [(args["input"] - args[name]) / sigma for name in ("cond_denoised", "uncond_denoised")]
        return args["input"] - sigma * purify(*noise, args["cond_scale"], alpha)

    return guided
