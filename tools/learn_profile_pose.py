"""Fit the map from the detector's keypoints to the pose of turned heads (``dynamicface/weights/profile_pose.safetensors``).

    python tools/learn_profile_pose.py --renders 260

Renders of random heads of our own model, turned by 30 to 90 degrees, are shown to the detector; the map is a ridge regression.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from headbuild.registry import register_own  # noqa: E402

from benchmarks.synthetic import random_face  # noqa: E402
from dynamicface import HeadModel  # noqa: E402
from dynamicface.images import invert, transform  # noqa: E402
from dynamicface.perception import FaceDetector  # noqa: E402
from dynamicface.perception.profile import ProfilePose, about_view, mirrored, upright  # noqa: E402
from dynamicface.prior.camera import rotation_from_euler, vector_from_rotation  # noqa: E402
from dynamicface.prior.fit import landmark_bases  # noqa: E402
from dynamicface.prior.geometry import face_crop  # noqa: E402
from dynamicface.render import render_prior  # noqa: E402
from dynamicface.weights import load_module  # noqa: E402

log = logging.getLogger("learn_profile_pose")

YAW, PITCH, ROLL = (30.0, 90.0), 40.0, 40.0  # degrees
MIDDLE = 66.0  # degrees of yaw the rotation vectors are relative to
RIDGE = 1.0
SIZE = 256
SEED = 77


@torch.inference_mode()
def seen(head: HeadModel, detector: FaceDetector, count: int) -> tuple[Tensor, Tensor]:
    """Keypoints (N, 6, 2) about the picture's centre and rotations (N, 3, 3) of heads, those turned to the left seen in a mirror."""
    drawn, keypoints, rotations = torch.Generator().manual_seed(SEED), [], []
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    for number in range(count):
        amount, side, pitch, roll = (2 * torch.rand(4, generator=drawn) - 1).tolist()
        yaw = (YAW[0] + (YAW[1] - YAW[0]) * abs(amount)) * (1 if side > 0 else -1)
        rotation = rotation_from_euler(yaw, PITCH * pitch, ROLL * roll)
        face = random_face(head, drawn).replace(rotation=rotation[None])
        crop = face_crop(face, SIZE)
        found = detector.detect(render_prior(face, head, SIZE).clamp(0, 1), 0.4, small=False)[0]
        if len(found):
            points = transform(found.keypoints[:1], invert(crop.matrix)) - face.image_size[0] / 2
            keypoints.append(mirrored(points)[0] if yaw < 0 else points[0])
            rotations.append(flip @ rotation @ flip if yaw < 0 else rotation)
        if number % 100 == 99:
            log.info("%d renders, %d detected", number + 1, len(keypoints))
    return torch.stack(keypoints), torch.stack(rotations)


def learn(keypoints: Tensor, rotations: Tensor, head: HeadModel) -> ProfilePose:
    net = ProfilePose()
    points, angle = upright(keypoints)
    values = points.flatten(1)
    net.mean, net.spread = values.mean(0), values.std(0) + 0.05
    net.axes = rotation_from_euler(MIDDLE, 0.0, 0.0)
    z = F.pad((values - net.mean) / net.spread, (0, 1), value=1.0)
    target = vector_from_rotation(about_view(angle) @ rotations @ net.axes.T)
    net.weight = torch.linalg.solve(z.T @ z + RIDGE * torch.eye(z.shape[1]), z.T @ target)
    net.head = landmark_bases(head)[0]
    return net


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--renders", type=int, default=260)
    parser.add_argument("--out", type=Path, default=ROOT / "dynamicface" / "weights" / "profile_pose.safetensors")
    args = parser.parse_args()
    detector = FaceDetector()
    load_module(detector.short, "face_detector_short")
    load_module(detector.full, "face_detector_full")
    head = HeadModel.load()
    net = learn(*seen(head, detector.eval(), args.renders), head)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, args.out)
    how = f"tools/learn_profile_pose.py, {args.renders} renders, fp32"
    register_own(args.out, "profile_pose", how, "Fitted to renders of the head model; no photograph is in it.")


if __name__ == "__main__":
    main()
