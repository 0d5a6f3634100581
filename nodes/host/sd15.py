"""DynamicFace on the artist's own Stable Diffusion 1.5 MODEL: patches on a clone, gone when it is not used.

What each part becomes there: guiders add to the first features, the detail stream is reference attention in the self-attentions, the
identity stream is read beside (or in place of) the prompt, temporal layers are put between the U-Net's own. A part of weight 0 leaves no
patch. Without any adapter file there is still the composite as start picture and reference attention by the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.utils
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...dynamicface.errors import DynamicFaceError
from ...dynamicface.generator.adapters.families import families, missing
from ...dynamicface.generator.adapters.files import Adapter
from ...dynamicface.generator.adapters.guiders import GUIDER_LAYOUTS, load_guider
from ...dynamicface.generator.steering import full_mixture
from ...dynamicface.guides import Guides
from ...dynamicface.identity_stream import face_id, id2token, purify
from ...dynamicface.reference import reads
from ...dynamicface.streams import DetailStream, Fusion, IdentityStream, Mixture
from .sd15_run import Guiding, Identity, Recipe, Reference, Window, install, new_key, transformer_blocks
from .sd15_weights import OPERATIONS, add_low_rank, add_temporal_layers, patcher_of, reference_net, replace_denoiser, role

_CONTROLNETS = ("controlnet_embedding", "controlnet_hint")


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

    key, frames = new_key(), len(guides.mask)
    positive, negative = replace_denoiser(patched, adapters, positive, negative, picture_prompt)
    if frames > 1:
        add_temporal_layers(patched, adapters, key)
    recipe = Recipe(
        key,
        frames,
        guiding=_guiding(patched, mixture, guides, adapters),
        reference=_reference(patched, detail, to_detail, guides, vae, adapters),
        identity=_identity(patched, identity, to_identity, adapters),
    )
    if recipe.guiding or recipe.reference or recipe.identity:
        install(patched, recipe)
        networks = [part.network for part in (recipe.guiding, recipe.reference) if part is not None and part.network is not None]
        patched.set_additional_models(key, networks + patched.get_additional_models_with_key(key))
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


def _guider_files(adapters: Sequence[Adapter]) -> dict[str, Adapter]:
    """Guiders' files by attribute. Raises DynamicFaceError for one that cannot be used as it is."""
    files = {}
    for adapter in adapters:
        if not adapter.has(*GUIDER_LAYOUTS):
            continue
        name = adapter.guider or (adapter.row.guider if adapter.row else "")
        if adapter.has(*_CONTROLNETS):
            raise DynamicFaceError(
                f"{adapter.file} is a ControlNet: its embedding alone does not steer this model. Use it with ComfyUI's ControlNet nodes "
                f"and the '{name or 'normal'}' picture of Render Guides, and remove it from Load Adapter."
            )
        if not name:
            raise DynamicFaceError(f"{adapter.file} is a guider, but not said for which attribute. Choose one in Load Adapter.")
        files[name] = adapter
    return files


def _guiding(model: ModelPatcher, mixture: Mixture | None, guides: Guides, adapters: Sequence[Adapter]) -> Guiding | None:
    files = _guider_files(adapters)
    if mixture is None:  # all guiders there are
        mixture = Mixture(tuple(guidance for guidance in full_mixture(guides).guidances if guidance.name in files))
    guidances = tuple(guidance for guidance in mixture.guidances if guidance.weight != 0)
    if not guidances:
        return None
    for guidance in guidances:
        if guidance.name not in files:
            rows = [row for row in families()[0] if row.layout in GUIDER_LAYOUTS and row.guider in ("", guidance.name)]
            need = (
                f"The {guidance.name} guider has no weights for this model. Load a file with Load Adapter, or disconnect it and drive a "
                f"ControlNet with the '{guidance.name}' picture of Render Guides."
            )
            raise DynamicFaceError(missing(need, rows))
    network = nn.ModuleDict({g.name: load_guider(files[g.name], operations=OPERATIONS) for g in guidances})
    windows = tuple(_window(model, g.start, g.end) for g in guidances)
    return Guiding(guidances, windows, patcher_of(network), mixture.mode)


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
    net = next((adapter for adapter in adapters if role(adapter) == "reference"), None)
    network = None if net is None else reference_net(model, net)
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
        add_low_rank(model, tokens.low_rank, weight)
    return Identity(tokens, weight, _window(model, identity.start, identity.end))


def _purified(alpha: float):
    """A post-cfg function: purified guidance in the space of predicted noise."""

    def guided(args: dict[str, Any]) -> Tensor:
        if args["uncond_denoised"] is None or args["cond_scale"] == 1:
            return args["denoised"]
        sigma = args["sigma"].view(-1, *[1] * (args["input"].dim() - 1))
        noise = [(args["input"] - args[name]) / sigma for name in ("cond_denoised", "uncond_denoised")]
        return args["input"] - sigma * purify(*noise, args["cond_scale"], alpha)

    return guided
