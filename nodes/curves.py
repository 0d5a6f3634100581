"""Expression Curves, Drive from Prior, Import ARKit and Export ARKit: expressions over time."""

from __future__ import annotations

import json

import numpy as np
from comfy_api.latest import io, ui

from ..dynamicface.drive import Performance as PerformanceValue
from ..dynamicface.drive import apply_curves, drive_face, performance_of
from ..dynamicface.errors import DynamicFaceError
from ..dynamicface.io.arkit import load_performance, save_performance
from ..dynamicface.io.curves import CURVE_NAMES, Curves, Key, parse_curves
from .edit import prior_input, prior_output
from .host import files
from .presets import region_sliders
from .schema import CoreCurve, Performance, Prior, schema, slider

_EXAMPLE = '{\n "smile": [[0, 0, "smooth"], [24, 0.8, "hold"]],\n "yaw": [[0, -8, "smooth"], [24, 8]]\n}'


def _socket(field: io.Input) -> io.Input:
    """An input that is only ever connected, also where the frontend has a widget for its type."""
    field.extra_dict = {**(field.extra_dict or {}), "forceInput": True}
    return field


class ExpressionCurves(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExpressionCurves",
            "Expression Curves",
            "Moves dials, ARKit channels and the head over time by keyframes, on top of what was filmed. A still becomes a shot. "
            "Before: Fit 3D Prior or an Edit node. Next: Composite into Plate. Costs milliseconds.",
            search_aliases=["keyframes", "animation", "timeline"],
            inputs=[
                prior_input(),
                io.String.Input(
                    "keyframes",
                    default=_EXAMPLE,
                    multiline=True,
                    tooltip="JSON: a list of [frame, value, how] for each dial, ARKit channel, intensity, yaw, pitch or roll. how is "
                    "linear (also when left out), smooth or hold, up to the next key.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=100_000,
                    tooltip="Length of the shot made from a still; 0 ends it with the last key. A clip keeps its own length.",
                ),
                _socket(
                    CoreCurve.Input(
                        "curve", optional=True, tooltip="ComfyUI's own curve (newer versions), over the whole shot, for 'curve_dial'."
                    )
                ),
                io.Combo.Input("curve_dial", options=list(CURVE_NAMES), default="smile", tooltip="What the curve moves.", optional=True),
                slider(
                    "curve_amount", -1.5, 1.5, "Value where the curve is at its top; 0 switches the curve off.", default=1.0, optional=True
                ),
            ],
            outputs=[prior_output()],
        )

    @classmethod
    def execute(cls, prior, keyframes, frames, curve=None, curve_dial="smile", curve_amount=1.0) -> io.NodeOutput:
        try:
            curves = parse_curves(json.loads(keyframes or "{}"))
        except json.JSONDecodeError as error:
            raise DynamicFaceError(f"The keyframes are not JSON ({error}). Expected for example {_EXAMPLE}") from error
        length = len(prior) if len(prior) > 1 else frames or len(curves)
        if curve is not None and curve_amount != 0:
            values = curve.interp_array(np.linspace(0.0, 1.0, length))
            curves = Curves({**curves.keys, curve_dial: tuple(Key(k, float(v) * curve_amount) for k, v in enumerate(values))})
        return io.NodeOutput(apply_curves(prior, curves, frames or None))


class DriveFromPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "DriveFromPrior",
            "Drive from Prior",
            "Gives the face another clip's performance, or an imported one. A still becomes a shot as long as the performance. "
            "Before: Fit 3D Prior (of the face, and of the driving clip) or Import ARKit. Next: Composite into Plate. Costs milliseconds.",
            search_aliases=["reenactment", "puppeteer", "motion transfer", "live portrait"],
            inputs=[
                prior_input(),
                io.MultiType.Input(
                    "driver", types=[Prior, Performance], tooltip="Who performs: the prior of a clip, or a recording from Import ARKit."
                ),
                io.Combo.Input(
                    "mode",
                    options=["relative", "absolute"],
                    default="relative",
                    tooltip="relative: adds what the driver changes since its neutral frame; keeps the face's own rest. "
                    "absolute: takes the driver's expressions as they are.",
                ),
                io.Int.Input("neutral_frame", default=0, min=0, max=1_000_000, tooltip="Where the driver's face is at rest, from 0."),
                slider("amount", 0.0, 2.0, "0 as filmed, 1 as performed, 2 twice as strong.", default=1.0),
                slider("pose", 0.0, 1.5, "How much of the driver's head turns to take: 0 none, 1 all. Meant for turns up to 25 degrees."),
                io.Int.Input("delay", default=0, min=-100_000, max=100_000, tooltip="Frames by which the performance starts later."),
                io.Boolean.Input(
                    "stretch",
                    default=False,
                    tooltip="On: the performance is sped up or slowed down to the clip's length. Off: frame by frame, held at its end.",
                ),
                *region_sliders("the performance"),
            ],
            outputs=[prior_output()],
        )

    @classmethod
    def execute(cls, prior, driver, mode, neutral_frame, amount, pose, delay, stretch, **regions) -> io.NodeOutput:
        performance = driver if isinstance(driver, PerformanceValue) else performance_of(driver)
        options = {"amount": amount, "regions": regions, "pose": pose, "delay": delay, "stretch": stretch}
        return io.NodeOutput(drive_face(prior, performance, relative=mode == "relative", neutral=neutral_frame, **options))


class ImportARKit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ImportARKit",
            "Import ARKit",
            "Reads a face recording from ComfyUI's input folder: Live Link Face CSV, ARKit-52 JSON, or Audio2Face JSON. "
            "Next: Drive from Prior.",
            search_aliases=["Live Link Face", "blend shapes", "mocap", "Audio2Face"],
            inputs=[
                io.Combo.Input("file", options=files.recordings(), tooltip="A .csv or .json file in the input folder."),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.01, tooltip="Frames per second of the recording; 0 takes what it says."
                ),
            ],
            outputs=[
                Performance.Output("performance", display_name="performance", tooltip="For Drive from Prior."),
                io.Int.Output("frames", display_name="frames", tooltip="How many frames it has."),
                io.Float.Output("rate", display_name="fps", tooltip="Its frames per second."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file, fps) -> str:
        return str(files.recording_path(file).stat().st_mtime_ns)

    @classmethod
    def execute(cls, file, fps) -> io.NodeOutput:
        performance = load_performance(files.recording_path(file), fps or None)
        return io.NodeOutput(performance, len(performance), performance.fps)


class ExportARKit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExportARKit",
            "Export ARKit",
            "Writes what the face does as ARKit's 52 coefficients with head and eye angles into the output folder, for Unreal, Blender, "
            "Maya or another actor's face. Before: Fit 3D Prior of a clip.",
            search_aliases=["Live Link Face", "blend shapes", "mocap"],
            is_output_node=True,
            inputs=[
                prior_input(),
                io.Combo.Input("format", options=["csv", "json"], default="csv", tooltip="csv: as Live Link Face records it."),
                io.Float.Input("fps", default=24.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second of the clip."),
                io.String.Input("filename_prefix", default="face/performance", tooltip="Folder and name in the output folder."),
            ],
            outputs=[io.String.Output("file", display_name="file", tooltip="The file's full path.")],
        )

    @classmethod
    def execute(cls, prior, format, fps, filename_prefix) -> io.NodeOutput:
        folder, name, _ = files.result_stem(filename_prefix)
        path = folder / f"{name}.{format}"
        save_performance(performance_of(prior, fps), path)
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))
