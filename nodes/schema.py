"""The vocabulary every node's schema is written in. One place knows what older ComfyUI versions lack (see comfyui range in README).

Socket types are plain library objects: DYNAMICFACE_TRACK is a FaceTrack, DYNAMICFACE_PRIOR a FacePrior, DYNAMICFACE_CROP a FaceCrop,
DYNAMICFACE_GUIDES a Guides, DYNAMICFACE_GUIDANCE and DYNAMICFACE_ADAPTER tuples (chains) of Guidance and Adapter, DYNAMICFACE_MIXTURE,
_IDENTITY, _DETAIL and _FUSION the values of dynamicface/streams.py.
DYNAMICFACE_PERFORMANCE is a Performance. CURVE is core's curve (from 0.15.1 on).
DYNAMICFACE_QUALITY is a QualityReport.
FACE_LANDMARKS is ComfyUI core's own dictionary (from 0.22 on), accepted and emitted so that core's MediaPipe nodes plug in.
"""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "DynamicFace"
STAGES = {  # the menu: what stands in which folder, in the order of work; shortcuts stand above them
    "Analyse": "TrackFaces FitPrior FindOcclusions FitClip SmoothPrior HoldBadFrames InspectPrior",
    "Change": "ComposePrior EditExpression EditPose EditIdentity EditLight ExpressionPreset SavePreset ExpressionCurves DriveFromPrior "
    "ImportARKit",
    "Show": "Composite CompositeClip RenderPrior RenderGuides PasteBack ExpressionLibrary",
    "Generate": "GenerateFace LoadDynamicFace LoadAdapter Guider MixtureOfGuiders IdentityStream DetailStream DualStreamFusion "
    "ApplyDynamicFace",
    "Stabilise": "FusionTVO FusionTVOSampling SharedNoise",
    "Deliver": "QCReport Compare Gate Provenance ProvenanceVideo RenderPasses ExportFace ExportARKit",
}

Track = io.Custom("DYNAMICFACE_TRACK")
Prior = io.Custom("DYNAMICFACE_PRIOR")
Crop = io.Custom("DYNAMICFACE_CROP")
Guides = io.Custom("DYNAMICFACE_GUIDES")
Guidance = io.Custom("DYNAMICFACE_GUIDANCE")
Mixture = io.Custom("DYNAMICFACE_MIXTURE")
Identity = io.Custom("DYNAMICFACE_IDENTITY")
Detail = io.Custom("DYNAMICFACE_DETAIL")
Fusion = io.Custom("DYNAMICFACE_FUSION")
Adapter = io.Custom("DYNAMICFACE_ADAPTER")
Quality = io.Custom("DYNAMICFACE_QUALITY")
FaceLandmarks = io.Custom("FACE_LANDMARKS")
Performance = io.Custom("DYNAMICFACE_PERFORMANCE")
CoreCurve = io.Custom("CURVE")


def schema(name: str, display_name: str, description: str, **fields) -> io.Schema:
    """An io.Schema in its folder of the menu with the node id DynamicFace_<name>; fields this ComfyUI does not know yet are left out."""
    category = "/".join([CATEGORY, *(stage for stage, names in STAGES.items() if name in names.split())])
    fields |= {"node_id": f"DynamicFace_{name}", "display_name": display_name, "description": description, "category": category}
    return io.Schema(**{key: value for key, value in fields.items() if key in io.Schema.__dataclass_fields__})


def advanced(field: io.Input) -> io.Input:
    """Fold an input under "Show advanced inputs" where the frontend can; elsewhere it is an ordinary input."""
    field.extra_dict = {**(field.extra_dict or {}), "advanced": True}
    return field


def slider(
    name: str, low: float, high: float, tooltip: str, *, default: float = 0.0, step: float = 0.01, optional: bool = False
) -> io.Input:
    """A float dial; `default` is the neutral position."""
    return io.Float.Input(
        name,
        default=default,
        min=low,
        max=high,
        step=step,
        round=0.001,
        display_mode=io.NumberDisplay.slider,
        tooltip=tooltip,
        optional=optional,
    )
