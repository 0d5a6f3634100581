"""Fit 3D Prior and Compose Prior: take faces apart, and put one together from parts of several. What a prior does over time: Smooth Prior,
Hold / Fade Bad Frames, Inspect Prior."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.compose import compose_prior
from ..dynamicface.inspection import bad_frames, draw_curves
from ..dynamicface.overlay import draw_prior
from ..dynamicface.prior.estimate import fit_prior
from ..dynamicface.prior.temporal import fade_bad_frames, hold_bad_frames, smooth_prior
from ..dynamicface.track import track_from_core
from .host.models import head_model, person_matte, to_graph_device, to_working_device
from .host.run import progress
from .schema import FaceLandmarks, Prior, Track, advanced, schema, slider

PRIOR_OUT = "The face as identity, expression, pose, light and background. Connect to the Edit nodes, Compose Prior or Render Guides."

THRESHOLD_TOOLTIP = "Confidence below which a frame counts as bad. 0.3 finds lost faces and profiles; raise it to find more."


def smoothing_slider() -> io.Input:
    return slider(
        "smoothing",
        0.0,
        1.0,
        "How still the fit is over time: 0 = as found in each frame, 0.5 for most shots, 1 for locked-off heads. Blinks and syllables keep "
        "their height; nothing lags and nothing is smoothed across cuts.",
        default=0.5,
    )


class FitPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "FitPrior",
            "Fit 3D Prior",
            "Takes the tracked face apart: head shape and skin texture (identity), 52 expression channels, gaze, head pose, light. The "
            "plate is kept as its background. Several photos of one person in one batch share one identity and make it better. "
            "Before: Track Faces. Next: any Edit node, Compose Prior or Render Guides.",
            search_aliases=["3DMM", "face reconstruction", "face fit"],
            inputs=[
                io.Image.Input("images", tooltip="The same images that were tracked."),
                io.MultiType.Input(
                    "track", types=[Track, FaceLandmarks], tooltip="From Track Faces, or the landmarks of ComfyUI's own MediaPipe node."
                ),
                advanced(
                    io.Boolean.Input(
                        "shared_identity",
                        default=True,
                        tooltip="On: all frames together decide the person's head and skin. Off: the first frame alone does.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "texture_size",
                        default=512,
                        min=0,
                        max=2048,
                        step=128,
                        tooltip="Side of the skin texture in pixels. Raise it for large faces; cost grows with its square. "
                        "0 reads neither skin nor light: faster, geometry only.",
                    )
                ),
            ],
            outputs=[Prior.Output("prior", display_name="prior", tooltip=PRIOR_OUT)],
        )

    @classmethod
    def execute(cls, images, track, shared_identity, texture_size) -> io.NodeOutput:
        track = track_from_core(track) if isinstance(track, dict) else track
        plate, track = to_working_device((images, track))
        options = {"shared_identity": shared_identity, "texture_size": texture_size, "matte": person_matte(plate, track.cuts)}
        prior = fit_prior(plate, track, head_model(), **options, progress=progress())
        return io.NodeOutput(to_graph_device(prior, (plate, images)))


class ComposePrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        factor = "Take the {} from this prior instead. Not connected: as in 'base'.{}"
        frames = " One frame serves a whole shot; otherwise the frame counts must agree."
        return schema(
            "ComposePrior",
            "Compose Prior",
            "Puts a face together from parts: each of the five factors from another person or shot. Identity from a photo and everything "
            "else from the shot is a face swap. Before: Fit 3D Prior (one per photo or shot). Next: Edit nodes or Render Guides.",
            search_aliases=["face swap", "reenactment"],
            inputs=[
                Prior.Input("base", tooltip="The shot that is worked on; all factors not connected below come from here."),
                Prior.Input("identity", optional=True, tooltip=factor.format("identity (head shape, skin)", "")),
                Prior.Input("expression", optional=True, tooltip=factor.format("expression and gaze", frames)),
                Prior.Input("pose", optional=True, tooltip=factor.format("head pose", frames)),
                Prior.Input("illumination", optional=True, tooltip=factor.format("light", frames)),
                Prior.Input("background", optional=True, tooltip=factor.format("background plate", frames)),
                slider(
                    "identity_weight",
                    0.0,
                    1.0,
                    "How far towards the connected identity: 0 keeps the base person, 1 is the other person, between is a blend of both.",
                    default=1.0,
                ),
            ],
            outputs=[Prior.Output("prior", display_name="prior", tooltip=PRIOR_OUT)],
        )

    @classmethod
    def execute(cls, base, identity_weight, identity=None, expression=None, pose=None, illumination=None, background=None) -> io.NodeOutput:
        return io.NodeOutput(
            compose_prior(
                base,
                identity=identity,
                expression=expression,
                pose=pose,
                illumination=illumination,
                background=background,
                identity_weight=identity_weight,
            )
        )


class SmoothPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SmoothPrior",
            "Smooth Prior",
            "Takes the jitter out of a shot's prior: pose, expression, gaze and light are smoothed as numbers, never as pixels. "
            "Before: Fit 3D Prior. Next: Edit nodes or Compose Prior. Fit Clip has the same dial built in.",
            search_aliases=["stabilise", "jitter", "temporal"],
            inputs=[Prior.Input("prior", tooltip="The prior of a shot; a photo comes back as it is."), smoothing_slider()],
            outputs=[Prior.Output("smooth_prior", display_name="prior", tooltip=PRIOR_OUT)],
        )

    @classmethod
    def execute(cls, prior, smoothing) -> io.NodeOutput:
        return io.NodeOutput(smooth_prior(prior, head_model(), smoothing))


class HoldBadFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "HoldBadFrames",
            "Hold / Fade Bad Frames",
            "Decides what happens where the face could not be fitted: short stretches are held (bridged from the good frames around), "
            "longer ones fade to the plate instead of popping. Before: Fit 3D Prior or Smooth Prior. Inspect Prior lists the frames.",
            search_aliases=["gap", "occlusion", "interpolate"],
            inputs=[
                Prior.Input("prior", tooltip="The prior of a shot."),
                slider("threshold", 0.0, 1.0, THRESHOLD_TOOLTIP, default=0.3),
                io.Int.Input(
                    "hold",
                    default=12,
                    min=0,
                    max=1000,
                    tooltip="Bad stretches of up to so many frames are bridged and worked on like the rest; 0 bridges none.",
                ),
                io.Int.Input(
                    "fade",
                    default=6,
                    min=0,
                    max=200,
                    tooltip="Frames over which the change fades out before a longer bad stretch, and in after it.",
                ),
            ],
            outputs=[Prior.Output("held_prior", display_name="prior", tooltip=PRIOR_OUT)],
        )

    @classmethod
    def execute(cls, prior, threshold, hold, fade) -> io.NodeOutput:
        return io.NodeOutput(fade_bad_frames(hold_bad_frames(prior, threshold, hold), threshold, fade))


class InspectPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "InspectPrior",
            "Inspect Prior",
            "Shows how well a prior fits: the head drawn over the plate, curves of pose and expression with a confidence strip, and the "
            "list of the worst frames. Connect Preview Image to the pictures and Preview Any to the list.",
            search_aliases=["debug", "overlay", "confidence", "curves"],
            inputs=[
                Prior.Input("prior", tooltip="A prior from Fit 3D Prior, Fit Clip or any Edit node."),
                slider("threshold", 0.0, 1.0, THRESHOLD_TOOLTIP, default=0.3),
                io.Int.Input("frame", default=0, min=0, max=1000000, tooltip="First frame that is drawn over the plate."),
                io.Int.Input(
                    "count", default=8, min=1, max=256, tooltip="How many frames are drawn, from 'frame' on; the curves show all."
                ),
            ],
            outputs=[
                io.Image.Output(
                    "overlay", display_name="overlay", tooltip="The fitted head as blue clay over the plate, fitted landmarks red."
                ),
                io.Image.Output(
                    "curves", display_name="curves", tooltip="Pose, lids, mouth and gaze over time; confidence below; cuts as lines."
                ),
                io.String.Output("report", display_name="worst frames", tooltip="One line per bad frame, the worst first."),
                io.Int.Output("bad", display_name="bad frames", is_output_list=True, tooltip="Numbers of the bad frames, the worst first."),
            ],
        )

    @classmethod
    def execute(cls, prior, threshold, frame, count) -> io.NodeOutput:
        worst = bad_frames(prior, threshold)
        overlay = draw_prior(to_working_device(prior), head_model(), frame, count)
        report = "\n".join(map(str, worst)) or f"No frame below a confidence of {threshold:g}."
        return io.NodeOutput(to_graph_device(overlay), draw_curves(prior, threshold), report, [one.frame for one in worst])
