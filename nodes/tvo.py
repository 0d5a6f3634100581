"""FusionTVO: on finished frames, on a model while it samples, and as noise that moves with the plate."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.errors import ImageError
from ..dynamicface.tvo import BACKGROUNDS, Dials, stabilise
from ..dynamicface.tvo.flow import resize
from ..dynamicface.tvo.sampling import SamplingDials
from .guides import per_frame
from .host.models import person_matte, to_graph_device, to_working_device
from .host.run import preview, progress
from .host.tvo import Background, CarriedNoise, apply, flow_estimator, flow_of
from .schema import advanced, schema, slider

OpticalFlow = io.Custom("OPTICAL_FLOW")  # ComfyUI core's own, a RAFT network in a ModelPatcher

PLATE_TOOLTIP = "The original frames, before anything was changed: their motion is what the result has to follow."
FLOW_MODEL_TOOLTIP = (
    "A RAFT network from ComfyUI's Load Optical Flow Model, used instead of OpenCV's optical flow: surer in fast motion, slow on a CPU."
)


def flow_model_input() -> io.Input:
    return advanced(OpticalFlow.Input("flow_model", optional=True, tooltip=FLOW_MODEL_TOOLTIP))


class FusionTVO(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "FusionTVO",
            "FusionTVO (stabilise frames)",
            "Takes flicker, colour drift and jitter out of a changed face, any pack's: what differs from the plate is filtered over time "
            "along the plate's motion, so that movement, light, blinks and lips pass untouched. Before: Paste Back, or any swap in the "
            "plate's frame. Jumps of the expression itself are cured earlier, by smoothing the prior. Next: Save.",
            search_aliases=["deflicker", "temporal", "stabilize", "flicker", "optical flow"],
            inputs=[
                io.Image.Input("images", tooltip="The changed frames, in the plate's size. Values outside 0..1 survive."),
                io.Image.Input("plate", tooltip=PLATE_TOOLTIP),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where frames may be stabilised, such as Paste Back's mask; black stays identical."
                ),
                io.Mask.Input(
                    "occlusion", optional=True, tooltip="White where something is in front of the face: neither changed nor carried along."
                ),
                io.Mask.Input(
                    "matte",
                    optional=True,
                    tooltip="The person, white, for 'background'. Not connected: the embedded matte is used, about 20 ms a frame.",
                ),
                slider("strength", 0.0, 1.0, "How much of the correction is applied. 0 returns the frames to the bit.", default=1.0),
                io.Int.Input(
                    "radius",
                    default=4,
                    min=0,
                    max=12,
                    tooltip="Frames on either side that are fused. Raise it for slow flicker, lower it for fast action. Costs time.",
                ),
                slider(
                    "detail_protect",
                    0.0,
                    1.0,
                    "Shortens the reach for fine detail: 0 calms pores and grain as much as colours, 1 leaves the finest as it came.",
                    default=0.5,
                ),
                io.Combo.Input(
                    "background",
                    options=list(BACKGROUNDS),
                    default="leave",
                    tooltip="Outside of the person: 'leave' changes nothing, 'plate' puts the plate back, 'generated' filters it over "
                    "time, too, following the camera.",
                ),
                slider(
                    "background_strength",
                    0.0,
                    1.0,
                    "How much of 'background' is applied: 0 nothing, 1 the plate or the full filter.",
                    default=1.0,
                ),
                advanced(
                    io.Boolean.Input(
                        "lock",
                        default=True,
                        tooltip="Regrades and re-aligns each frame as a whole first: against flickering exposure and crop jitter. Off: "
                        "faster, a third of the look-ahead.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "live",
                        default=False,
                        tooltip="Use only frames of the past, as a live feed would have to. Less calm; for comparing.",
                    )
                ),
                flow_model_input(),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="As many frames as came in, steadier; identical outside the mask.")
            ],
        )

    @classmethod
    def execute(
        cls,
        images,
        plate,
        strength,
        radius,
        detail_protect,
        background,
        background_strength,
        lock,
        live,
        mask=None,
        occlusion=None,
        matte=None,
        flow_model=None,
    ) -> io.NodeOutput:
        dials = Dials(strength, radius, detail_protect, lock, background, background_strength, live)
        if dials.neutral:
            return io.NodeOutput(images)
        if background != "leave" and matte is None:
            matte = _whole(person_matte(to_working_device(plate)), plate)
        images, plate, mask, occlusion, matte = to_working_device((images, plate, mask, occlusion, matte))
        masks = {"occlusion": occlusion, "matte": matte}
        out = stabilise(images, plate, mask, dials, **masks, estimator=flow_estimator(flow_model), progress=progress())
        preview(out)
        return io.NodeOutput(to_graph_device(out))


class FusionTVOSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "FusionTVOSampling",
            "FusionTVO (while sampling)",
            "Makes any image model sample a batch of latents as one clip: overlapping segments fused by weight, less variation along the "
            "plate's motion, noise that moves with the plate, a background that stays as filmed. Between the model (with its LoRA, "
            "ControlNet, DynamicFace) and an ordinary KSampler. With all dials at 0 the model passes through.",
            search_aliases=["context windows", "long shot", "temporal", "deflicker"],
            inputs=[
                io.Model.Input("model", tooltip="A model whose frames are the batch: the embedded one, SD1.5, SDXL. Not video models."),
                io.Image.Input("plate", tooltip="The frames the latents stand for, in the same crop and number."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="The face, white. Only there is variation taken out and, with 'background', sampled."
                ),
                io.Latent.Input(
                    "background",
                    optional=True,
                    tooltip="The plate encoded by the VAE. Connected with 'mask', everything outside is held to it at every step.",
                ),
                io.Int.Input(
                    "segment",
                    default=16,
                    min=0,
                    max=256,
                    tooltip="Frames the model sees at once; 0 = all. Lower it if memory runs out; more helps temporal layers.",
                ),
                io.Int.Input(
                    "overlap",
                    default=4,
                    min=0,
                    max=64,
                    tooltip="Frames that neighbouring segments share. More hides the seams better and costs time in proportion.",
                ),
                slider(
                    "variation",
                    0.0,
                    1.0,
                    "Takes variation along the plate's motion out of the predicted frames, in the last half of sampling. Raise it against "
                    "flicker; too high looks soft. Costs little.",
                    default=0.25,
                ),
                slider(
                    "shared_noise",
                    0.0,
                    1.0,
                    "How much of the noise rides on the plate's motion instead of being new in every frame. 1 is the calmest; lower it if "
                    "the texture seems painted on.",
                    default=0.9,
                ),
                advanced(
                    io.Int.Input(
                        "anchor",
                        default=-1,
                        min=-1,
                        max=100000,
                        tooltip="A frame that every segment also sees, against drift; -1 = none. For models with temporal layers.",
                    )
                ),
                flow_model_input(),
            ],
            outputs=[io.Model.Output("patched", display_name="model", tooltip="For KSampler or a guider.")],
        )

    @classmethod
    def execute(
        cls, model, plate, segment, overlap, variation, shared_noise, anchor, mask=None, background=None, flow_model=None
    ) -> io.NodeOutput:
        dials = SamplingDials(segment, overlap, anchor, variation, shared_noise)
        if background is not None and mask is None:
            raise ImageError("'background' is connected, but not 'mask': connect the face's mask, white where the model shall work.")
        mask = per_frame(mask, len(plate))
        flow = flow_of(plate, flow_estimator(flow_model)) if variation or shared_noise else None
        held = None if background is None else Background(background["samples"], mask)
        return io.NodeOutput(apply(model, plate, flow, dials, mask, held))


class SharedNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SharedNoise",
            "Noise that Moves with the Plate",
            "Noise for SamplerCustomAdvanced (or core's Add Noise) that rides on the plate's motion, so that a clip's frames begin alike. "
            "Each frame's noise stays white. For KSampler use 'shared_noise' of FusionTVO (while sampling) instead.",
            search_aliases=["warped noise", "temporal noise"],
            inputs=[
                io.Image.Input("plate", tooltip="The frames the latents stand for, in the same crop and number."),
                io.Int.Input(
                    "noise_seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="The random seed."
                ),
                slider(
                    "share",
                    0.0,
                    1.0,
                    "How much of the noise moves along: 0 is ordinary noise, new in each frame, 1 is the calmest.",
                    default=0.9,
                ),
                flow_model_input(),
            ],
            outputs=[io.Noise.Output("noise", display_name="noise", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, plate, noise_seed, share, flow_model=None) -> io.NodeOutput:
        flow = flow_of(plate, flow_estimator(flow_model)) if share else None
        return io.NodeOutput(CarriedNoise(noise_seed, flow, len(plate), share))


def _whole(matte, plate):
    """A coarse matte (F, h, w) in the plate's size."""
    return resize(matte[:, None].float(), tuple(plate.shape[1:3]))[:, 0]
