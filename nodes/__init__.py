"""The nodes, in the order of the graph. One file per stage; each node is a schema and a few lines that call the library."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply import ApplyDynamicFace, LoadAdapter
from .clips import CompositeClip, FitClip
from .curves import DriveFromPrior, ExportARKit, ExpressionCurves, ImportARKit
from .edit import EditExpression, EditIdentity, EditLight, EditPose
from .export import ExportFace, Provenance, ProvenanceVideo, RenderPasses
from .guiders import Guider, MixtureOfGuiders
from .guides import Composite, PasteBack, RenderGuides, RenderPrior
from .host import folders
from .model import GenerateFace, LoadDynamicFace
from .occlusion import FindOcclusions
from .presets import ExpressionLibrary, ExpressionPreset, SavePreset
from .prior import ComposePrior, FitPrior, HoldBadFrames, InspectPrior, SmoothPrior
from .qc import Compare, Gate, QCReport
from .shortcuts import Expression, Swap
from .streams import DetailStream, DualStreamFusion, IdentityStream
from .track import TrackFaces
from .tvo import FusionTVO, FusionTVOSampling, SharedNoise

NODES: tuple[type[io.ComfyNode], ...] = (
    *(TrackFaces, FitPrior, ComposePrior),
    *(EditExpression, EditPose, EditIdentity, EditLight),
    *(Composite, RenderGuides, RenderPrior, PasteBack),
    *(Expression, Swap),
    *(SmoothPrior, HoldBadFrames, InspectPrior, FitClip, CompositeClip),
    *(QCReport, Compare, Gate),
    *(LoadDynamicFace, GenerateFace),
    *(Guider, MixtureOfGuiders, IdentityStream, DetailStream, DualStreamFusion, LoadAdapter, ApplyDynamicFace),
    *(FusionTVO, FusionTVOSampling, SharedNoise),
    *(ExpressionPreset, SavePreset, ExpressionLibrary),
    *(ExpressionCurves, DriveFromPrior, ImportARKit, ExportARKit),
    *(ExportFace, RenderPasses, Provenance, ProvenanceVideo),
    FindOcclusions,
)


class DynamicFaceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        folders.register()  # before any schema lists files
        return list(NODES)
