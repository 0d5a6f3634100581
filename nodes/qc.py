"""QC Report, Compare and Gate: is the shot good enough, where is it not, and stop it there."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..dynamicface.metrics.compare import MODES, compare
from ..dynamicface.metrics.meter import measure_quality
from ..dynamicface.metrics.picture import draw_report
from ..dynamicface.metrics.report import METRICS
from ..dynamicface.prior.estimate import fit_prior
from .host.models import head_model, judges, perception, to_graph_device, to_working_device
from .host.run import progress
from .schema import Quality, schema, slider
from .track import find_track

LIMITS = [name for name, metric in METRICS.items() if not metric.informative]


def fit_source(source):
    """The person of some photos; only who it is matters."""
    source, track = to_working_device((source, find_track(source)))
    return fit_prior(source, track, head_model(), texture_size=0)


class QCReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "QCReport",
            "QC Report",
            "Measures a finished photo or shot: identity, what changed against the plate, flicker, jitter, sharpness, and whether anything "
            "changed outside of the mask. Shows a table with curves and names the frames to look at. Before: any result. Next: Gate, Save.",
            search_aliases=["quality control", "metrics", "SSIM", "flicker", "identity"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The result to judge. About 0.3 s a frame on a CPU; each face is found and fitted anew."),
                io.Image.Input(
                    "plate", optional=True, tooltip="The frames as filmed, same count and size. Without it only steadiness is measured."
                ),
                io.Image.Input(
                    "source", optional=True, tooltip="For a swap: photos of the person who should be seen. Else it is the plate's person."
                ),
                io.Mask.Input("mask", optional=True, tooltip="What was allowed to change ('mask' of Composite or Paste Back)."),
                io.Int.Input("count", default=5, min=1, max=64, optional=True, tooltip="How many frames to name at most, worst first."),
            ],
            outputs=[
                io.Image.Output("report", display_name="report", tooltip="The table with its curves as a picture."),
                io.String.Output("json", display_name="json", tooltip="Every figure and curve as JSON, to save or to parse."),
                io.Int.Output(
                    "worst_frames",
                    display_name="worst frames",
                    is_output_list=True,
                    tooltip="Frames that stand out, worst first. Into ImageFromBatch: it runs once for each and shows them.",
                ),
                io.Int.Output("worst_frame", display_name="worst frame", tooltip="The worst one, if any stands out or not."),
                Quality.Output("quality", display_name="quality", tooltip="The report itself, for Gate."),
            ],
        )

    @classmethod
    def execute(cls, images, plate=None, source=None, mask=None, count=5) -> io.NodeOutput:
        person = None if source is None else fit_source(source)
        images, plate, mask = to_working_device((images, plate, mask))
        networks = {} if plate is None else judges()
        report = measure_quality(images, plate, mask, perception(), head_model(), source=person, **networks, progress=progress())
        picture, worst = to_graph_device(draw_report(report)), int(report.scores().argmax())
        outputs = (picture, report.to_json(), report.worst_frames(count) or [worst], worst, report)
        return io.NodeOutput(*outputs, ui=ui.PreviewImage(picture, cls=cls))


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Compare",
            "Compare",
            "Shows how two versions differ: a wipe, side by side, or a heat map of the difference. The picture is also an output, to save.",
            search_aliases=["A/B", "wipe", "difference"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images_a", tooltip="One version; left in a wipe and side by side."),
                io.Image.Input("images_b", tooltip="The other version, of the same frame count and size."),
                io.Combo.Input("mode", options=list(MODES), default=MODES[0], tooltip="What to show; a difference of 0 is black."),
                slider("position", 0.0, 1.0, "Where the wipe's line stands: 0 shows only B, 1 only A.", default=0.5),
                io.Float.Input(
                    "gain",
                    default=8.0,
                    min=0.1,
                    max=1000.0,
                    step=0.1,
                    tooltip="Amplifies the difference: at 8 an eighth of full range is already white. Raise it to see small changes.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The comparison, one picture a frame.")],
        )

    @classmethod
    def execute(cls, images_a, images_b, mode, position, gain) -> io.NodeOutput:
        image = compare(images_a[..., :3], images_b[..., :3], mode, position, gain)
        return io.NodeOutput(image, ui=ui.PreviewImage(image.clamp(0, 1), cls=cls))


class Gate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Gate",
            "Gate",
            "Lets images pass only when a figure of their QC Report is good enough. Otherwise nothing behind this node runs and ComfyUI "
            "shows why, so that no bad shot is saved over a good one. Before: QC Report. Next: Save.",
            search_aliases=["threshold", "stop", "quality gate"],
            inputs=[
                io.Image.Input("images", tooltip="What to let pass, untouched."),
                Quality.Input("quality", tooltip="The report of these images, from QC Report."),
                io.Combo.Input("metric", options=LIMITS, default="identity", tooltip="Which figure decides; see the node's help."),
                io.Float.Input(
                    "threshold",
                    default=0.6,
                    min=-1.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="The least that is accepted where higher is better (identity, SSIM, sharpness), otherwise the most.",
                ),
                io.Boolean.Input("every_frame", default=False, tooltip="On: the worst frame must keep the threshold. Off: the mean."),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The images, if they are good enough.")],
        )

    @classmethod
    def execute(cls, images, quality, metric, threshold, every_frame) -> io.NodeOutput:
        reason = quality.failure(metric, threshold, worst=every_frame)
        return io.NodeOutput(images) if reason is None else io.NodeOutput(images, block_execution=f"Gate: {reason}")
