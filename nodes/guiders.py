"""Guider and Mixture of Guiders: which attribute maps steer a generator, how strongly, when and where."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.errors import ImageError
from ..dynamicface.generator.steering import pose_confidence
from ..dynamicface.guiders import GUIDERS, MODES, Guidance
from ..dynamicface.images import as_plate
from ..dynamicface.streams import Mixture
from .schema import Guidance as GuidanceSocket
from .schema import Guides, advanced, schema, slider
from .schema import Mixture as MixtureSocket

_UNTRUSTED_WHEN_TURNED = ("expression", "illumination")
START, END = "Share of the sampling at which it begins to act.", "Share of the sampling at which it ceases to act."


def frames_of(value, frames, what):
    """A batch of one frame serves a whole shot; any other count must be the shot's."""
    if value is None or len(value) == frames:
        return value
    if len(value) != 1:
        raise ImageError(f"The {what} has {len(value)} frames, the guides have {frames}. Give one per frame, or a single one.")
    return value.expand(frames, *value.shape[1:])


class Guider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Guider",
            "Guider",
            "Lets one attribute steer the generator: shape (normal), expression, pose, illumination or background. Chain as many as you "
            "like through 'previous'. Before: Render Guides. Next: another Guider, or Mixture of Guiders.",
            search_aliases=["condition", "controlnet", "guidance"],
            inputs=[
                Guides.Input("guides", tooltip="From Render Guides."),
                io.Combo.Input("attribute", options=list(GUIDERS), tooltip="Which attribute's map steers. 'normal' carries the shape."),
                slider("weight", -1.0, 2.0, "How strongly: 1 as trained, 0 not at all, below 0 pushes away. Costs nothing.", default=1.0),
                advanced(slider("start", 0.0, 1.0, START)),
                advanced(slider("end", 0.0, 1.0, END, default=1.0)),
                GuidanceSocket.Input("previous", optional=True, tooltip="Guiders that act together with this one."),
                io.Mask.Input("mask", optional=True, tooltip="Where it acts, in crop space: white fully, black not at all."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A map of your own in place of the rendered one, e.g. a pose drawing for a guider file that was trained on "
                    "those.",
                ),
            ],
            outputs=[GuidanceSocket.Output("guidance", display_name="guiders", tooltip="This guider and those before it.")],
        )

    @classmethod
    def execute(cls, guides, attribute, weight, start, end, previous=(), mask=None, image=None) -> io.NodeOutput:
        frames = len(guides.mask)
        picture = getattr(guides, attribute) if image is None else frames_of(as_plate(image), frames, "image")
        trust = pose_confidence(guides.yaw) if attribute in _UNTRUSTED_WHEN_TURNED else None
        here = Guidance(attribute, picture.movedim(-1, 1), weight, start, end, frames_of(mask, frames, "mask"), trust)
        return io.NodeOutput((*(guidance for guidance in previous if guidance.name != attribute), here))


class MixtureOfGuiders(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MixtureOfGuiders",
            "Mixture of Guiders",
            "Puts guiders together so that they act at once. Before: Guider. Next: Apply DynamicFace.",
            search_aliases=["MoG", "combine", "multi controlnet"],
            inputs=[
                GuidanceSocket.Input("guidance", tooltip="A chain of Guider nodes."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    tooltip="mixture: the sum, plus what a trained fusion network adds. sum: the plain sum. mean: the sum over the "
                    "number of guiders, so that adding one does not make the whole stronger.",
                ),
            ],
            outputs=[MixtureSocket.Output("mixture", display_name="mixture", tooltip="For Apply DynamicFace.")],
        )

    @classmethod
    def execute(cls, guidance, mode) -> io.NodeOutput:
        return io.NodeOutput(Mixture(guidance, mode))
