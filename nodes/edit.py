"""The dials: Edit Expression, Edit Pose, Edit Identity, Edit Light. All dials at their defaults hand on the very same prior."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.conventions import ARKIT_NAMES
from ..dynamicface.dials import DIALS, MEASURES
from ..dynamicface.edit import edit_expression, edit_identity, edit_light, edit_pose
from .host.models import head_model, to_graph_device, to_working_device
from .host.preview import live_preview
from .prior import PRIOR_OUT
from .schema import Prior, advanced, schema, slider

CHAIN = "Before: Fit 3D Prior, Compose Prior or another Edit node. Next: another Edit node or Render Guides. Costs milliseconds."
SHOWS_PREVIEW = {"is_output_node": True}  # asked for their ui in every run, cached or not: the live preview survives a reload
INTENSITY_TOOLTIP = "Scales the filmed expression before the dials: 1 as filmed, 0 a neutral face, 2 twice as strong."


def prior_input() -> io.Input:
    return Prior.Input("prior", tooltip="A fitted, composed or edited prior.")


def prior_output() -> io.Output:
    return Prior.Output("edited", display_name="prior", tooltip=PRIOR_OUT)


def intensity_slider() -> io.Input:
    return slider("intensity", 0.0, 2.0, INTENSITY_TOOLTIP, default=1.0)


def expression_dials() -> list[io.Input]:
    """One slider per dial of the library. Optional, so that a prompt over HTTP names only what it moves."""
    return [slider(name, -1.0, 1.0, f"{dial.tip} 0 = as filmed.", optional=True) for name, dial in DIALS.items()]


def expression_channels() -> list[io.Input]:
    """The 52 ARKit channels, folded away."""
    tip = "Adds to ARKit's {} alone, on top of the dials. 0 = as filmed; below 0 takes it back."
    return [advanced(slider(name, -1.0, 1.0, tip.format(name), optional=True)) for name in ARKIT_NAMES]


def pose_dials() -> list[io.Input]:
    tip = "Degrees {}; 0 = as filmed. Beyond 25 the plate has too few pixels for what comes into view."
    return [
        slider("yaw", -25.0, 25.0, tip.format("to the viewer's right (below 0: left)"), step=0.5),
        slider("pitch", -25.0, 25.0, tip.format("up (below 0: down)"), step=0.5),
        slider("roll", -25.0, 25.0, tip.format("tipped clockwise as you see it (below 0: counter-clockwise)"), step=0.5),
    ]


class EditExpression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "EditExpression",
            "Edit Expression",
            "Changes the expression, and nothing else: dials in plain words, ARKit's 52 channels under the advanced inputs. " + CHAIN,
            search_aliases=["smile", "blink", "gaze", "blend shapes", "ARKit"],
            inputs=[prior_input(), intensity_slider(), *expression_dials(), *expression_channels()],
            outputs=[prior_output()],
            **SHOWS_PREVIEW,
        )

    @classmethod
    def execute(cls, prior, intensity, **values) -> io.NodeOutput:
        dials = {name: value for name, value in values.items() if name in DIALS}
        channels = {name: value for name, value in values.items() if name in ARKIT_NAMES}
        return io.NodeOutput(edit_expression(prior, dials, channels, intensity), ui=live_preview(prior))


class EditPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "EditPose",
            "Edit Pose",
            "Turns the head about the top of the neck; the light stays where it is, so the shading follows. " + CHAIN,
            search_aliases=["head turn", "yaw", "pitch", "roll"],
            inputs=[
                prior_input(),
                *pose_dials(),
            ],
            outputs=[prior_output()],
            **SHOWS_PREVIEW,
        )

    @classmethod
    def execute(cls, prior, yaw, pitch, roll) -> io.NodeOutput:
        return io.NodeOutput(edit_pose(prior, yaw=yaw, pitch=pitch, roll=roll), ui=live_preview(prior))


class EditIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        measure = "Makes the {} larger, below 0 smaller; 1 is about 12 %. The other measures stay. 0 = as filmed."
        return schema(
            "EditIdentity",
            "Edit Identity",
            "Changes who the face belongs to by its measures, or exaggerates what sets it apart from the average face. "
            "For a blend of two people use Compose Prior. " + CHAIN,
            search_aliases=["face shape", "reshape", "caricature"],
            inputs=[
                prior_input(),
                slider(
                    "exaggerate",
                    -1.0,
                    1.0,
                    "What sets this face apart from the average: 1 doubles it, -1 is the average face. 0 = as filmed.",
                ),
                *(slider(name, -1.0, 1.0, measure.format(name.replace("_", " ")), optional=True) for name in MEASURES),
            ],
            outputs=[prior_output()],
            **SHOWS_PREVIEW,
        )

    @classmethod
    def execute(cls, prior, exaggerate, **measures) -> io.NodeOutput:
        edited = edit_identity(to_working_device(prior), head_model(), measures, exaggerate)
        return io.NodeOutput(to_graph_device(edited), ui=live_preview(prior, identity=True))


class EditLight(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "EditLight",
            "Edit Light",
            "Relights the face: turn the filmed light, or fade to a key light placed where you want it; tint and exposure. " + CHAIN,
            search_aliases=["relight", "lighting", "key light"],
            inputs=[
                prior_input(),
                slider("strength", 0.0, 1.0, "Fades from the filmed light (0) to the key light below (1). 0 = as filmed."),
                slider(
                    "azimuth",
                    -180.0,
                    180.0,
                    "Where the key stands, degrees: 0 at the camera, 90 at the viewer's right.",
                    default=45.0,
                    step=1.0,
                ),
                slider("elevation", -90.0, 90.0, "How high the key stands, degrees: 0 at eye level, 90 overhead.", default=30.0, step=1.0),
                slider("warmth", -1.0, 1.0, "Tints the light: up towards tungsten, down towards blue sky. 0 = as filmed."),
                slider("exposure", -2.0, 2.0, "Brightness of the light in stops. 0 = as filmed.", step=0.05),
                slider(
                    "turn", -180.0, 180.0, "Turns the filmed light around the face, degrees to the viewer's right. 0 = as filmed.", step=1.0
                ),
            ],
            outputs=[prior_output()],
            **SHOWS_PREVIEW,
        )

    @classmethod
    def execute(cls, prior, strength, azimuth, elevation, warmth, exposure, turn) -> io.NodeOutput:
        edited = edit_light(prior, azimuth=azimuth, elevation=elevation, strength=strength, warmth=warmth, exposure=exposure, turn=turn)
        return io.NodeOutput(edited, ui=live_preview(prior))
