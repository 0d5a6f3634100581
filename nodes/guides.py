"""Composite, Render Guides, Render Prior and Paste Back: from the composed prior to pictures, and back into the plate."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..dynamicface.guides import render_guides
from ..dynamicface.paste import paste_back
from ..dynamicface.pipeline import render_composite
from ..dynamicface.render import render_prior
from .host.models import head_model, to_graph_device, to_working_device
from .host.run import preview, progress
from .schema import Crop, Guides, Prior, advanced, schema, slider

PRIOR_IN = "A fitted, composed or edited prior."
FEATHER_TOOLTIP = (
    "Softness of the paste's edge, inwards, as a share of the crop. Raise it if an edge shows, lower it to keep more of the result."
)
OCCLUSION_TOOLTIP = "White where something is in front of the face (a hand, a microphone, your roto): those pixels stay the plate's."


def per_frame(mask, frames):
    """A mask of one frame serves a whole shot."""
    return mask.expand(frames, -1, -1) if mask is not None and len(mask) == 1 else mask


def composite(prior, occlusion=None, look=None):
    """The prior's pictures in its plate and their mask, on ComfyUI's device and back, with progress and a preview."""
    prior, occlusion = to_working_device((prior, per_frame(occlusion, len(prior))))
    images, mask = to_graph_device(render_composite(prior, head_model(), occlusion=occlusion, look=look, progress=progress()))
    preview(images)
    return images, mask


def result_outputs() -> list[io.Output]:
    return [
        io.Image.Output(
            "image", display_name="image", tooltip="The frames with the changed face; everything else is untouched to the bit."
        ),
        io.Mask.Output("mask", display_name="mask", tooltip="Which pixels changed, and how much."),
    ]


class Composite(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Composite",
            "Composite into Plate",
            "Shows the prior in its plate, at the plate's own resolution, without a generator: the plate's pixels are moved, relit and "
            "filled in as the prior says. With nothing changed the plate comes back to the bit. Before: Edit nodes or Compose Prior.",
            search_aliases=["apply", "warp", "paste"],
            inputs=[
                Prior.Input("prior", tooltip=PRIOR_IN),
                io.Mask.Input("occlusion", optional=True, tooltip=OCCLUSION_TOOLTIP),
            ],
            outputs=result_outputs(),
        )

    @classmethod
    def execute(cls, prior, occlusion=None) -> io.NodeOutput:
        return io.NodeOutput(*composite(prior, occlusion))


class RenderGuides(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "RenderGuides",
            "Render Guides",
            "Renders the prior as the maps a generator or compositor works from, in a square crop around the face: normals, expression, "
            "illumination, background with mask, and the finished composite. They drive ordinary ControlNets too. "
            "Next: Paste Back with 'composite', 'face_mask' and 'crop'.",
            search_aliases=["normal map", "controlnet", "AOV"],
            inputs=[
                Prior.Input("prior", tooltip=PRIOR_IN),
                io.Int.Input(
                    "size",
                    default=512,
                    min=128,
                    max=2048,
                    step=64,
                    tooltip="Width and height of the crop in pixels. Take about the face's size in the plate; cost grows with its square.",
                ),
                io.Mask.Input("occlusion", optional=True, tooltip=OCCLUSION_TOOLTIP),
                advanced(
                    slider(
                        "zoom",
                        1.0,
                        2.0,
                        "How tight the crop lies around the head: 1 leaves room for hair and shoulders, higher gives the face more pixels. "
                        "The embedded generator works at 1.3.",
                        default=1.0,
                        optional=True,
                    )
                ),
            ],
            outputs=[
                io.Image.Output(
                    "composite", display_name="composite", tooltip="The face as composed, in its crop: the result without a generator."
                ),
                io.Mask.Output("face_mask", display_name="mask", tooltip="What may change in the crop: face without what covers it."),
                Crop.Output("crop", display_name="crop", tooltip="Where the crop lies in the plate, for Paste Back."),
                io.Image.Output("normal", display_name="normal", tooltip="Camera-space normals of the composed head, n / 2 + 0.5."),
                io.Image.Output(
                    "expression", display_name="expression", tooltip="Brows, eyes, iris and lips only: the expression without the person."
                ),
                io.Image.Output("illumination", display_name="illumination", tooltip="The light on the composed shape, free of identity."),
                io.Image.Output(
                    "background", display_name="background", tooltip="The plate around the face; the face itself is taken out."
                ),
                io.Image.Output(
                    "pose", display_name="pose", tooltip="Where the head looks: an average head at rest, coloured by position."
                ),
                Guides.Output(
                    "guides", display_name="guides", tooltip="All of these as one wire, for the Guider nodes and Apply DynamicFace."
                ),
            ],
        )

    @classmethod
    def execute(cls, prior, size, occlusion=None, zoom=1.0) -> io.NodeOutput:
        prior, occlusion = to_working_device((prior, per_frame(occlusion, len(prior))))
        guides = to_graph_device(render_guides(prior, head_model(), size=size, zoom=zoom, occlusion=occlusion))
        pictures = (guides.normal, guides.expression, guides.illumination, guides.background, guides.pose)
        return io.NodeOutput(guides.composite, guides.mask, guides.crop, *pictures, guides)


class RenderPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "RenderPrior",
            "Render Prior",
            "Shows the 3D head itself, lit and textured, over nothing: the quickest look at what a fit found or a dial does. "
            "The picture is also an output, to save or to compare.",
            search_aliases=["preview", "3D head", "mesh"],
            is_output_node=True,
            inputs=[
                Prior.Input("prior", tooltip=PRIOR_IN),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Width and height of the picture in pixels. 512 takes about 0.1 s a frame on a CPU.",
                ),
            ],
            outputs=[io.Image.Output("render", display_name="render", tooltip="The rendered head, one picture a frame.")],
        )

    @classmethod
    def execute(cls, prior, size) -> io.NodeOutput:
        images = to_graph_device(render_prior(to_working_device(prior), head_model(), size))
        return io.NodeOutput(images, ui=ui.PreviewImage(images.clamp(0, 1), cls=cls))


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "PasteBack",
            "Paste Back",
            "Puts a generated or edited face crop back into the plate at sub-pixel accuracy. Only pixels under the mask change, all others "
            "stay the plate's to the bit; nothing is clamped, so values above 1 survive. "
            "Before: Render Guides, or a sampler or upscaler behind it.",
            search_aliases=["uncrop", "stitch", "composite"],
            inputs=[
                io.Image.Input("plate", tooltip="The original frames."),
                io.Image.Input("images", tooltip="The face crops, of any resolution (an upscaled crop is fine), one per frame."),
                io.Mask.Input("mask", tooltip="What may change, in crop space: 'mask' of Render Guides, or your own."),
                Crop.Input("crop", tooltip="From Render Guides."),
                slider("feather", 0.0, 0.25, FEATHER_TOOLTIP, default=0.04),
                slider(
                    "colour_match",
                    0.0,
                    1.0,
                    "Match the crop's colour to the plate around the mask: 0 leaves it, 1 matches fully. Meant for generated crops.",
                ),
                io.Mask.Input("occlusion", optional=True, tooltip=OCCLUSION_TOOLTIP),
                io.Image.Input(
                    "base",
                    optional=True,
                    tooltip="The crops the images were generated from ('composite' of Render Guides). Given, only the difference is added "
                    "to the plate, so a plate finer than the crop keeps its detail. Connect the composited plate as 'plate' then.",
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="The plate with the face in it."),
                io.Mask.Output("plate_mask", display_name="mask", tooltip="Which plate pixels changed, and how much."),
            ],
        )

    @classmethod
    def execute(cls, plate, images, mask, crop, feather, colour_match, occlusion=None, base=None) -> io.NodeOutput:
        mask, occlusion = per_frame(mask, len(plate)), per_frame(occlusion, len(plate))
        plate, images, mask, crop, occlusion, base = to_working_device((plate, images, mask, crop, occlusion, base))
        options = {"feather": feather, "colour_match": colour_match, "occlusion": occlusion, "base": base}
        out = paste_back(plate, images, mask, crop, progress=progress(), **options)
        return io.NodeOutput(*to_graph_device(out))
