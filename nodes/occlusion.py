"""Find Occlusions: a mask of what is in front of the face, and the fit without it."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.checks import plate_of
from ..dynamicface.occlusion import find_occlusion, mask_of_face
from ..dynamicface.prior.estimate import fit_prior
from ..dynamicface.track import track_from_core
from .guides import per_frame
from .host.models import head_model, perception, to_graph_device, to_working_device
from .host.run import progress
from .prior import PRIOR_OUT
from .schema import FaceLandmarks, Prior, Track, schema, slider


class FindOcclusions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "FindOcclusions",
            "Find Occlusions",
            "Looks for hands, microphones, hair and glasses in front of the face and masks them, so that they stay as filmed. Most "
            "of a hand or a microphone is found, worn glasses seldom: look at the mask and draw the rest. Before: Fit 3D Prior. Next: "
            "'occlusion' of Composite, Render Guides or Paste Back; with 'track' connected also a fit that leaves them out.",
            search_aliases=["roto", "hand", "microphone", "glasses", "mask"],
            inputs=[
                Prior.Input("prior", tooltip="The fitted face, from Fit 3D Prior. About 30 ms a frame on a CPU."),
                slider(
                    "sensitivity",
                    0.0,
                    1.0,
                    "How much counts as being in front of the face. Raise it where something is missed, lower it where make-up, a beard or "
                    "a shadow is taken for an object.",
                    default=0.5,
                ),
                io.MultiType.Input(
                    "track",
                    types=[Track, FaceLandmarks],
                    optional=True,
                    tooltip="The track the prior was fitted to. Connected, the face is fitted again without what hides it.",
                ),
                io.Mask.Input(
                    "roto",
                    optional=True,
                    tooltip="Your own mask, white = in front of the face. Frames in which anything is drawn are taken from it.",
                ),
            ],
            outputs=[
                io.Mask.Output("occlusion", display_name="occlusion", tooltip="White where something is in front of the face."),
                Prior.Output("found_prior", display_name="prior", tooltip=PRIOR_OUT),
            ],
        )

    @classmethod
    def execute(cls, prior, sensitivity, track=None, roto=None) -> io.NodeOutput:
        track = track_from_core(track) if isinstance(track, dict) else track
        given = prior
        prior, track, roto = to_working_device((prior, track, per_frame(roto, len(prior))))
        options = {"sensitivity": sensitivity, "roto": roto, "progress": progress()}
        mask = find_occlusion(prior, head_model(), perception(), **options)
        if track is None:
            return io.NodeOutput(to_graph_device(mask), given)
        plate, albedo = plate_of(prior), prior.filmed.identity.albedo
        refit = {"texture_size": 0 if albedo is None else albedo.shape[-1], "matte": prior.background.matte}
        found = fit_prior(plate, track, head_model(), occlusion=mask_of_face(mask, prior), **refit)
        return io.NodeOutput(*to_graph_device((mask, found), (plate, given.background.plate)))
