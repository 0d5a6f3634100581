"""Quality in numbers: pictures, clips and faces compared. Plain functions of tensors; `report.py` puts them together.

Each agrees with a reference implementation or with a case whose answer is known (tests/metrics).
"""

from .factors import FactorChange, factor_change, gaze_degrees, light_change, refit, rotation_degrees
from .frechet import face_feature_frechet, frechet_distance
from .identity import cosine, id_error, identity_drift, identity_variance, nearest
from .jitter import jitter_rms, landmark_jitter, pose_jitter
from .niqe import niqe
from .outside import outside_difference
from .sharpness import detail, relative_detail
from .ssim import ssim, ssim_map
from .temporal import inter_frame_ssim, rms_difference, warp_error

__all__ = [
    "FactorChange",
    "cosine",
    "detail",
    "face_feature_frechet",
    "factor_change",
    "frechet_distance",
    "gaze_degrees",
    "id_error",
    "identity_drift",
    "identity_variance",
    "inter_frame_ssim",
    "jitter_rms",
    "landmark_jitter",
    "light_change",
    "nearest",
    "niqe",
    "outside_difference",
    "pose_jitter",
    "refit",
    "relative_detail",
    "rms_difference",
    "rotation_degrees",
    "ssim",
    "ssim_map",
    "warp_error",
]
