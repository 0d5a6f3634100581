"""Perception: where the face is, its 478 landmarks, whose it is, what is not background, and what hides the face."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from ..weights import load_module
from .detector import Detections, FaceDetector
from .identity import IdentityNet
from .landmarks import LandmarkNet
from .matte import MatteNet
from .occlusion import OcclusionNet
from .profile import ProfilePose

__all__ = ["Detections", "FaceDetector", "IdentityNet", "LandmarkNet", "MatteNet", "OcclusionNet", "Perception", "ProfilePose"]


@dataclass(frozen=True)
class Perception:
    """The networks with their shipped weights."""

    detector: FaceDetector
    landmarks: LandmarkNet
    identity: IdentityNet
    matte: MatteNet
    occlusion: OcclusionNet
    profile: ProfilePose

    @classmethod
    def load(cls, device: torch.device | str = "cpu") -> Perception:
        """Load and verify the shipped weights (a few milliseconds each).

        Raises:
            WeightsError: a weight file is missing, truncated or altered.
        """
        detector = FaceDetector()
        load_module(detector.short, "face_detector_short")
        load_module(detector.full, "face_detector_full")
        return cls(
            detector=detector.eval(),
            landmarks=load_module(LandmarkNet(), "face_landmarks"),
            identity=load_module(IdentityNet(), "face_identity"),
            matte=load_module(MatteNet(), "person_matte"),
            occlusion=load_module(OcclusionNet(), "occlusion"),
            profile=load_module(ProfilePose(), "profile_pose"),
        ).to(device)

    def to(self, device: torch.device | str) -> Perception:
        """Move every network, in place; returns self."""
        for field in fields(self):
            getattr(self, field.name).to(device, memory_format=torch.channels_last)
        return self
