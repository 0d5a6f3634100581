"""Load DynamicFace: the embedded generator as an ordinary MODEL for every stock sampler."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io

from .host import embedded, folders
from .schema import schema

EMBEDDED = "embedded"


class LoadDynamicFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadDynamicFace",
            "Load DynamicFace",
            "Loads DynamicFace's own face generator, a small pixel-space diffusion model, with the VAE and the empty conditioning for "
            "it. Next: Apply DynamicFace, then any sampler (2 steps, cfg 1, euler, simple), VAE Decode, Paste Back.",
            subcategory="generator",
            search_aliases=["checkpoint", "generator", "diffusion"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=[EMBEDDED, *folders.model_files()],
                    default=EMBEDDED,
                    tooltip="'embedded' ships with the pack. Others: generators trained with DynamicFace's recipe, put into "
                    "models/dynamicface as .safetensors.",
                )
            ],
            outputs=[
                io.Model.Output("model", display_name="model", tooltip="For Apply DynamicFace. LoRA and other patches work on it."),
                io.Vae.Output("vae", display_name="vae", tooltip="Pixels in, pixels out: this generator works on the picture itself."),
                io.Conditioning.Output(
                    "conditioning", display_name="empty", tooltip="For positive and negative of Apply DynamicFace: it reads no text."
                ),
            ],
        )

    @classmethod
    def execute(cls, weights) -> io.NodeOutput:
        model = embedded.load(None if weights == EMBEDDED else folders.model_path(weights))
        return io.NodeOutput(model, comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}), embedded.empty_conditioning())
