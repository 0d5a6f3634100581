"""Load Adapter and Apply DynamicFace: everything that steers meets the MODEL, and stock samplers do the rest."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.errors import DynamicFaceError
from ..dynamicface.guiders import GUIDERS
from .host import embedded, sd15
from .host.adapter_files import NONE, adapter_files, load_adapter
from .schema import Adapter, Detail, Fusion, Guides, Identity, Mixture, advanced, schema, slider

BY_NAME = "by its name"


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadAdapter",
            "Load Adapter",
            "Loads a file of another project for Stable Diffusion 1.5: guiders, ReferenceNets, denoising U-Nets and temporal layers of "
            "Champ, Moore-AnimateAnyone, DynamicPose and PersonaLive, AnimateDiff's motion modules, Face-Adapter's and "
            "IP-Adapter-FaceID's identity files. What it is is told by its contents. Chain several through 'previous'. Next: Apply "
            "DynamicFace.",
            search_aliases=["champ", "animateanyone", "animatediff", "personalive", "dynamicpose"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[NONE, *adapter_files()],
                    tooltip="From models/dynamicface (a folder per project) and the folders of packs that use the same files.",
                ),
                io.Combo.Input(
                    "guider",
                    options=[BY_NAME, *GUIDERS],
                    tooltip="For guider files: which attribute's map it reads. 'by its name' knows the published names.",
                ),
                Adapter.Input("previous", optional=True, tooltip="Files loaded before."),
            ],
            outputs=[Adapter.Output("adapters", display_name="adapters", tooltip="This file and those before it.")],
        )

    @classmethod
    def execute(cls, file, guider, previous=()) -> io.NodeOutput:
        return io.NodeOutput(previous if file == NONE else (*previous, load_adapter(file, "" if guider == BY_NAME else guider)))


class ApplyDynamicFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ApplyDynamicFace",
            "Apply DynamicFace",
            "Puts guides and streams onto a model: DynamicFace's own generator, or any Stable Diffusion 1.5 checkpoint, where LoRA, "
            "ControlNet and IPAdapter keep working. All optional inputs may stay open. Before: Render Guides, Load DynamicFace or Load "
            "Checkpoint. Next: KSampler (with the latent from here; on Stable Diffusion a denoise of 0.3 to 0.6), VAE Decode, Paste "
            "Back.",
            search_aliases=["swap", "generator", "animate anyone"],
            inputs=[
                io.Model.Input("model", tooltip="From Load DynamicFace, or a Stable Diffusion 1.5 model."),
                io.Conditioning.Input("positive", tooltip="The prompt; 'empty' of Load DynamicFace with its own generator."),
                io.Conditioning.Input("negative", tooltip="The negative prompt; 'empty' of Load DynamicFace with its own generator."),
                Guides.Input(
                    "guides", tooltip="From Render Guides: 256 px at zoom 1.3 for DynamicFace's generator, 512 px for Stable Diffusion."
                ),
                advanced(
                    slider(
                        "purification",
                        0.5,
                        3.0,
                        "Stable Diffusion with cfg above 1: raises what guidance adds along the prediction and damps what it adds "
                        "across it, which keeps the person. 1 is off.",
                        default=1.0,
                    )
                ),
                io.Vae.Input("vae", optional=True, tooltip="Needed on Stable Diffusion."),
                Mixture.Input("mixture", optional=True, tooltip="From Mixture of Guiders. Open: all guiders the generator has."),
                Identity.Input("identity", optional=True, tooltip="From Identity Stream."),
                Detail.Input("detail", optional=True, tooltip="From Detail Stream."),
                Fusion.Input("fusion", optional=True, tooltip="From Dual-Stream Fusion. Open: by its rule."),
                Adapter.Input("adapters", optional=True, tooltip="From Load Adapter; Stable Diffusion only."),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="From CLIP Vision Encode of the source photo; only where a denoising U-Net of the AnimateAnyone family is "
                    "loaded.",
                ),
            ],
            outputs=[
                io.Model.Output("patched_model", display_name="model", tooltip="For any sampler; the model you connected stays as it is."),
                io.Conditioning.Output("patched_positive", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("patched_negative", display_name="negative", tooltip="For the sampler."),
                io.Latent.Output("latent", display_name="latent", tooltip="The composite with its mask; one noise for the whole clip."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        guides,
        purification,
        vae=None,
        mixture=None,
        identity=None,
        detail=None,
        fusion=None,
        adapters=(),
        clip_vision_output=None,
    ) -> io.NodeOutput:
        streams = {"mixture": mixture, "identity": identity, "detail": detail, "fusion": fusion}
        if embedded.is_embedded(model):
            if adapters:
                raise DynamicFaceError(
                    "Adapter files are for Stable Diffusion 1.5; DynamicFace's own generator needs none. Disconnect them."
                )
            return io.NodeOutput(*embedded.apply(model, positive, negative, guides=guides, **streams))
        picture = None if clip_vision_output is None else clip_vision_output.image_embeds
        options = {"adapters": adapters, "picture_prompt": picture, "purification": purification}
        return io.NodeOutput(*sd15.apply(model, positive, negative, vae, guides, **streams, **options))
