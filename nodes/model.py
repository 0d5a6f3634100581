"""The embedded generator: as an ordinary MODEL for every stock sampler (Load DynamicFace), or all in one node (Generate Face)."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io

from ..dynamicface.pipeline import render_composite
from ..dynamicface.streams import Fusion
from .guides import OCCLUSION_TOOLTIP, PRIOR_IN, per_frame, result_outputs
from .host import embedded, folders
from .host.models import face_generator, head_model, to_graph_device, to_working_device
from .host.run import preview, progress
from .schema import Prior, advanced, schema, slider

EMBEDDED = "embedded"


def weights_input() -> io.Input:
    return io.Combo.Input(
        "weights",
        options=[EMBEDDED, *folders.model_files()],
        default=EMBEDDED,
        tooltip="'embedded' ships with the pack. Others: generators trained with DynamicFace's recipe, put into models/dynamicface as "
        ".safetensors.",
    )


def weights_path(weights: str) -> str | None:
    """Where the chosen weights lie; None = the shipped ones."""
    return None if weights == EMBEDDED else folders.model_path(weights)


class LoadDynamicFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadDynamicFace",
            "Load DynamicFace",
            "Loads DynamicFace's own face generator, a small pixel-space diffusion model, with the VAE and the empty conditioning for "
            "it. Next: Apply DynamicFace, then any sampler (1 step, cfg 1, euler, simple), VAE Decode, Paste Back.",
            search_aliases=["checkpoint", "generator", "diffusion"],
            inputs=[weights_input()],
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
        model = embedded.load(weights_path(weights))
        return io.NodeOutput(model, comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}), embedded.empty_conditioning())


class GenerateFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "GenerateFace",
            "Generate Face",
            "Composites the prior into its plate and lets DynamicFace's own generator repair the face: seams, mouth, lids, shading. "
            "Guides, streams, sampler and paste in one node; only the face changes. For the same as a graph: Load and Apply DynamicFace.",
            search_aliases=["refine", "diffusion", "enhance face"],
            inputs=[
                Prior.Input("prior", tooltip=PRIOR_IN),
                weights_input(),
                io.Int.Input("steps", default=1, min=1, max=50, tooltip="Sampling steps: 1 is the fastest, time grows with them."),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise, one for the whole clip."
                ),
                slider("strength", 0.0, 1.0, "How far to follow the generator; 0 is the composite, to the bit.", default=1.0),
                Prior.Input(
                    "source",
                    optional=True,
                    tooltip="Of a swap: the fitted source person, whose pictures show the detail. Else leave it empty.",
                ),
                io.Mask.Input("occlusion", optional=True, tooltip=OCCLUSION_TOOLTIP),
                advanced(
                    slider(
                        "identity_share",
                        -0.01,
                        1.0,
                        "Share of the identity stream against the detail stream. Below 0: by the face's size (3:7 at the trained size).",
                        default=-0.01,
                        optional=True,
                    )
                ),
            ],
            outputs=result_outputs(),
        )

    @classmethod
    def execute(cls, prior, weights, steps, seed, strength, source=None, occlusion=None, identity_share=-0.01) -> io.NodeOutput:
        prior, source, occlusion = to_working_device((prior, source, per_frame(occlusion, len(prior))))
        composed, mask = render_composite(prior, head_model(), occlusion=occlusion)
        if strength > 0:
            options = {"source": source, "occlusion": occlusion, "strength": strength, "steps": steps, "seed": seed}
            fusion = Fusion(None if identity_share < 0 else identity_share)
            generator = face_generator(weights_path(weights))
            composed, alpha = generator.render(prior, head_model(), composed, fusion=fusion, progress=progress(), **options)
            mask = torch.maximum(mask, alpha)
        images, mask = to_graph_device((composed, mask))
        preview(images)
        return io.NodeOutput(images, mask)
