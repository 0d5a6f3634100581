"""Fit 3D Prior and Compose Prior: take faces apart, and put one together from parts of several."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.compose import compose_prior
from ..dynamicface.prior.estimate import fit_prior
from ..dynamicface.track import track_from_core
from .host.models import head_model, person_matte, to_graph_device, to_working_device
from .host.run import progress
from .schema import FaceLandmarks, Prior, Track, advanced, schema, slider

PRIOR_OUT = "The face as identity, expression, pose, light and background. Connect to the Edit nodes, Compose Prior or Render Guides."


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
        options = {"shared_identity": shared_identity, "texture_size": texture_size, "matte": person_matte(plate)}
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
