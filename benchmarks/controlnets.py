"""The peer of the Mixture-of-Guiders: one diffusers U-Net in plain diffusers pipelines, steered by ControlNets in series or by the mixture.

Both sides share the U-Net object, the scheduler, the start latents and the prompt's embeddings. The layout is Stable Diffusion 1.5's, every
width divided by `shrink` (the published guider's as well). Weights are random: speed and memory only, nothing about pictures.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynamicface.guiders import PUBLISHED_CHANNELS, MixtureOfGuiders

from .common import SkippedError

WIDTHS, PROMPT, GROUPS, HEADS = (320, 640, 1280, 1280), (77, 768), 32, 8  # of Stable Diffusion 1.5
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False}


@dataclass(frozen=True)
class Inputs:
    """What both sides are given."""

    latents: Tensor  # (F, 4, S/8, S/8)
    prompt: Tensor  # (F, 77, D)
    maps: dict[str, Tensor]  # a guide per attribute (F, 3, S, S) 0..1
    steps: int


class Peers:
    """One U-Net under both kinds of steering. Raises SkippedError where diffusers is missing or does not work."""

    def __init__(self, names: tuple[str, ...], shrink: int, device: str = "cpu") -> None:
        diffusers = _diffusers()
        self.shrink, widths = shrink, tuple(width // shrink for width in WIDTHS)
        channels = tuple(width // shrink for width in PUBLISHED_CHANNELS)
        sizes = {"block_out_channels": widths, "norm_num_groups": GROUPS // shrink, "cross_attention_dim": PROMPT[1] // shrink}
        self.unet = diffusers.UNet2DConditionModel(sample_size=64, attention_head_dim=HEADS, **sizes)
        self.controls = nn.ModuleList(
            diffusers.ControlNetModel.from_unet(self.unet, conditioning_embedding_out_channels=channels) for _ in names
        )
        self.guiders = MixtureOfGuiders(names, widths[0], channels)
        for part in (self.unet, self.controls, self.guiders):
            _stir(part).to(device)
        absent = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        parts = {**absent, "unet": self.unet, "scheduler": diffusers.DDIMScheduler(**_SCHEDULE), "requires_safety_checker": False}
        self._plain = diffusers.StableDiffusionPipeline(**parts)
        self._series = diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=list(self.controls))
        for pipeline in (self._plain, self._series):
            pipeline.set_progress_bar_config(disable=True)

    def inputs(self, frames: int, size: int, steps: int) -> Inputs:
        """Random latents, prompt and guides."""
        like = next(self.unet.parameters())
        draw = torch.Generator().manual_seed(0)
        latents = torch.randn(frames, 4, size // 8, size // 8, generator=draw).to(like)
        prompt = torch.randn(frames, PROMPT[0], PROMPT[1] // self.shrink, generator=draw).to(like)
        maps = {name: torch.rand(frames, 3, size, size, generator=draw).to(like) for name in self.guiders.names}
        return Inputs(latents, prompt, maps, steps)

    def alone(self, given: Inputs) -> Tensor:
        """Denoised latents, nothing steers."""
        return self._run(self._plain, given)

    def series(self, given: Inputs, strength: float = 1.0) -> Tensor:
        """Denoised latents; at every step one ControlNet after another, their answers added, as the pipeline does it."""
        pictures, scales = list(given.maps.values()), [strength] * len(given.maps)
        return self._run(self._series, given, image=pictures, controlnet_conditioning_scale=scales)

    def mixture(self, given: Inputs, strength: float = 1.0) -> Tensor:
        """Denoised latents; the guiders run once per frame, their sum is added behind the U-Net's first convolution at every step.

        This is how adapters of the artist's checkpoint are trained (`dynamicface/training/sd15.py`) and patched in.
        """
        strengths = given.latents.new_full((1, len(given.maps), 1, 1, 1), strength)
        with _added(self.unet.conv_in, self.guiders(given.maps, strengths, mode="sum")):
            return self._run(self._plain, given)

    def weights(self, *parts: nn.Module) -> int:
        """Bytes of the U-Net's weights and those of further parts."""
        return sum(parameter.nbytes for part in (self.unet, *parts) for parameter in part.parameters())

    @staticmethod
    def _run(pipeline: Any, given: Inputs, **steering: Any) -> Tensor:
        height, width = (8 * side for side in given.latents.shape[-2:])
        settings = {"num_inference_steps": given.steps, "guidance_scale": 1.0, "output_type": "latent"}
        return pipeline(
            prompt_embeds=given.prompt, latents=given.latents.clone(), height=height, width=width, **settings, **steering
        ).images


@contextmanager
def _added(layer: nn.Module, features: Tensor):
    """Features are added to what a layer answers."""
    hook = layer.register_forward_hook(lambda module, inputs, answer: answer + features)
    try:
        yield
    finally:
        hook.remove()


def _stir(module: nn.Module) -> nn.Module:
    """Random numbers in place of zeros, so that nothing is silent."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module.eval().requires_grad_(False)


def _diffusers() -> Any:
    """diffusers, of which all that is needed here can be imported."""
    try:
        import diffusers

        if not diffusers.utils.is_transformers_available():
            raise ImportError("there is no transformers, without which diffusers has no such pipeline")
        for name in ("UNet2DConditionModel", "ControlNetModel", "StableDiffusionPipeline", "StableDiffusionControlNetPipeline"):
            getattr(diffusers, name)
    except (ImportError, RuntimeError) as error:  # diffusers raises the latter where a package it finds does not fit torch
        reason = str(error).strip().splitlines()[-1]
        raise SkippedError(f"the peer needs a working diffusers (`pip install diffusers transformers`), but: {reason}") from error
    return diffusers
