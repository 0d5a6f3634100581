"""Track Faces: find one person's face in every frame."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.errors import ImageError
from ..dynamicface.track import track_faces, track_from_core, track_to_core
from .host.models import perception, to_graph_device
from .host.run import progress
from .schema import FaceLandmarks, Track, advanced, schema

CHOICES = ["largest", "index", "leftmost", "rightmost", "centre", "reference"]
CHOOSE_TOOLTIP = (
    "Which face, where there are several: the largest in the first frame; by index (0 = largest, 1 = next ..); by position in the "
    "first frame; or 'reference' = the one most like the photo connected to 'reference'."
)
INDEX_TOOLTIP = "Which face when 'choose' is 'index': 0 is the largest, 1 the next largest."
REFERENCE_TOOLTIP = "A photo of the person to follow, used when 'choose' is 'reference'. Any clear view of the face will do."


def find_track(images, *, choose="largest", index=0, reference=None, threshold=0.5):
    """The library's tracker with the networks where ComfyUI wants them; images may be any float range."""
    networks = perception()
    embedding = None
    if choose == "reference":
        if reference is None:
            raise ImageError("'choose' is set to 'reference', but no photo is connected to 'reference'. Connect one, or choose otherwise.")
        embedding = track_faces(reference, networks).embedding
    track = track_faces(images, networks, choose=choose, index=index, reference=embedding, threshold=threshold, progress=progress())
    return to_graph_device(track)


class TrackFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TrackFaces",
            "Track Faces",
            "Finds one person's face in every frame: detection, 478 landmarks with iris, identity. Connect a photo, several photos of one "
            "person, or the frames of a shot. Next: Fit 3D Prior. The result is cached: dials further down never detect again.",
            search_aliases=["face detection", "landmarks", "face mesh"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="A photo or the frames of a shot, all of one size. On a CPU about 0.1 s a photo, 20 ms a frame of a clip.",
                ),
                io.Combo.Input("choose", options=CHOICES, default="largest", tooltip=CHOOSE_TOOLTIP),
                io.Int.Input("index", default=0, min=0, max=63, tooltip=INDEX_TOOLTIP),
                io.Image.Input("reference", optional=True, tooltip=REFERENCE_TOOLTIP),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="Landmarks from ComfyUI's own MediaPipe node (0.22 on), used instead of detecting. 'index' picks the face.",
                ),
                advanced(
                    io.Float.Input(
                        "threshold",
                        default=0.5,
                        min=0.05,
                        max=0.95,
                        step=0.05,
                        tooltip="How sure the detector must be. Lower it for small or dark faces, at the risk of false ones.",
                    )
                ),
            ],
            outputs=[
                Track.Output("track", display_name="track", tooltip="The face through all frames, for Fit 3D Prior."),
                FaceLandmarks.Output(
                    "landmarks", display_name="landmarks", tooltip="The same as core's FACE_LANDMARKS, for nodes that draw or mask faces."
                ),
            ],
        )

    @classmethod
    def execute(cls, images, choose, index, threshold, reference=None, face_landmarks=None) -> io.NodeOutput:
        if face_landmarks is None:
            track = find_track(images, choose=choose, index=index, reference=reference, threshold=threshold)
        else:
            track = track_from_core(face_landmarks, index)
        return io.NodeOutput(track, track_to_core(track))
