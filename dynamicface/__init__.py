"""DynamicFace: a face taken apart into identity, expression, pose, illumination and background, and put together again."""

from .compose import blend_identity, compose_prior
from .composite import apply_change, compute_change
from .drive import Performance, apply_curves, drive_face, performance_of
from .edit import apply_settings, edit_expression, edit_identity, edit_light, edit_pose
from .errors import DynamicFaceError, ImageError, NoFaceError, WeightsError
from .guides import Guides, render_guides
from .images import as_plate
from .io.presets import Preset, apply_preset, blend_presets, shipped_presets
from .library import render_library
from .passes import render_passes
from .perception import Perception
from .pipeline import FacePipeline, render_composite
from .prior.estimate import fit_prior
from .prior.head import HeadModel
from .rig import rig_of
from .skin import SwapLook
from .track import track_faces, track_from_core, track_to_core
from .types import FaceCrop, FacePrior, FaceTrack, Filmed, Identity

__version__ = "0.1.0"
__all__ = [
    "DynamicFaceError",
    "FaceCrop",
    "FacePipeline",
    "FacePrior",
    "FaceTrack",
    "Filmed",
    "Guides",
    "HeadModel",
    "Identity",
    "ImageError",
    "NoFaceError",
    "Perception",
    "Performance",
    "Preset",
    "SwapLook",
    "WeightsError",
    "apply_change",
    "apply_curves",
    "apply_preset",
    "apply_settings",
    "as_plate",
    "blend_identity",
    "blend_presets",
    "compose_prior",
    "compute_change",
    "drive_face",
    "edit_expression",
    "edit_identity",
    "edit_light",
    "edit_pose",
    "fit_prior",
    "performance_of",
    "render_composite",
    "render_guides",
    "render_library",
    "render_passes",
    "rig_of",
    "shipped_presets",
    "track_faces",
    "track_from_core",
    "track_to_core",
]
