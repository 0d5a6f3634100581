"""Fit Clip and Composite Clip: ComfyUI's VIDEO in and out, window by window, so that the length of a clip does not matter."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management as mm
import folder_paths
from comfy_api.latest import InputImpl, io

from ..dynamicface.errors import ImageError
from ..dynamicface.io.clips import Clip
from ..dynamicface.shots import composite_shot, fit_shot
from ..dynamicface.skin import SwapLook
from ..dynamicface.track import track_faces
from .host.models import head_model, perception, to_graph_device, to_working_device
from .host.run import progress
from .prior import PRIOR_OUT, smoothing_slider
from .schema import Prior, Track, advanced, schema, slider
from .track import CHOICES, CHOOSE_TOOLTIP, INDEX_TOOLTIP, REFERENCE_TOOLTIP

CODECS = ["as filmed", "h264", "hevc", "prores", "ffv1", "vp9", "av1"]
CONTAINERS = [".mp4", ".mov", ".mkv", ".webm"]


def find_occlusions_switch(tooltip: str) -> io.Input:
    return advanced(io.Boolean.Input("find_occlusions", default=False, optional=True, tooltip=tooltip))


class FitClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "FitClip",
            "Fit Clip",
            "Follows one person through a video file and takes the face apart, without ever holding the frames in memory: for shots of "
            "any length. The prior goes through Compose Prior and all Edit nodes like any other; end with Composite Clip.",
            search_aliases=["video", "track", "long clip"],
            inputs=[
                io.Video.Input("video", tooltip="From Load Video. It is decoded twice here; only numbers are kept."),
                io.Combo.Input("choose", options=CHOICES, default="largest", tooltip=CHOOSE_TOOLTIP),
                io.Int.Input("index", default=0, min=0, max=63, tooltip=INDEX_TOOLTIP),
                smoothing_slider(),
                io.Image.Input("reference", optional=True, tooltip=REFERENCE_TOOLTIP),
                find_occlusions_switch("Leave hands, microphones and hair before the face out of the fit. One more pass over the video."),
            ],
            outputs=[
                Prior.Output("prior", display_name="prior", tooltip=PRIOR_OUT),
                Track.Output("track", display_name="track", tooltip="The face through all frames: boxes and landmarks."),
            ],
        )

    @classmethod
    def execute(cls, video, choose, index, smoothing, reference=None, find_occlusions=False) -> io.NodeOutput:
        networks = perception()
        if choose == "reference":
            if reference is None:
                raise ImageError(
                    "'choose' is set to 'reference', but no photo is connected to 'reference'. Connect one, or choose otherwise."
                )
            reference = track_faces(reference, networks).embedding
        clip = Clip(video.get_stream_source(), mm.get_torch_device())
        choice = {"choose": choose, "index": index, "reference": reference, "find_occlusions": find_occlusions}
        track, prior = fit_shot(clip, networks, head_model(), smoothing=smoothing, progress=progress(), **choice)
        return io.NodeOutput(*to_graph_device((prior, track)))


class CompositeClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "CompositeClip",
            "Composite Clip",
            "Writes the composed prior over its clip as a new video: same frames, times, sound and colour tags. With nothing changed it "
            "is a copy of the file's own data. Before: Fit Clip, then Edit nodes or Compose Prior. Next: Save Video.",
            search_aliases=["video", "render", "face swap video"],
            inputs=[
                Prior.Input("prior", tooltip="A prior that comes from Fit Clip, edited or composed."),
                slider("skin_tone", 0.0, 1.0, "For another person's face: 0 keeps the clip's skin tone, 1 takes the other person's."),
                io.Combo.Input("container", options=CONTAINERS, default=".mp4", tooltip="The kind of file. .mov and .mkv also hold alpha."),
                advanced(
                    io.Combo.Input(
                        "codec",
                        options=CODECS,
                        default="as filmed",
                        tooltip="How pictures are coded; 'as filmed' takes the clip's own codec where it can be written. "
                        "ffv1 (.mkv) is lossless, prores (.mov) is for editing.",
                    )
                ),
                io.Video.Input(
                    "roto",
                    optional=True,
                    tooltip="A black and white clip of the same size: white where something is in front of the face, kept as filmed.",
                ),
                find_occlusions_switch(
                    "Find hands, microphones and hair before the face and keep them as filmed, where the roto is empty. "
                    "Worn glasses are seldom found."
                ),
            ],
            outputs=[
                io.Video.Output(
                    "video", display_name="video", tooltip="The result as a file in ComfyUI's temp folder; keep it with Save Video."
                )
            ],
        )

    @classmethod
    def execute(cls, prior, skin_tone, container, codec="as filmed", roto=None, find_occlusions=False) -> io.NodeOutput:
        folder, name, counter, *_ = folder_paths.get_save_image_path("DynamicFace_clip", folder_paths.get_temp_directory())
        path = Path(folder, f"{name}_{counter:05}_{container}")
        options = {"look": SwapLook(skin_tone=skin_tone), "codec": None if codec == "as filmed" else codec, "progress": progress()}
        roto = None if roto is None else Clip(roto.get_stream_source(), mm.get_torch_device())
        options |= {"occlusion": roto, "find_occlusions": find_occlusions}
        composite_shot(to_working_device(prior), perception(), head_model(), path, **options)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)))
