"""Learn where the landmark net systematically puts a point beside the surface point it is tied to, and store it in the head.

    python tools/learn_landmark_bias.py --pictures FOLDER

Fits every second near-frontal portrait of the folder, averages what the fit leaves over in the head's own space, makes it symmetric and
adds it to the head's ``landmark_bias``; the other half only measures. Needs a few hundred different people.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from headbuild.registry import register  # noqa: E402

from dynamicface.errors import NoFaceError  # noqa: E402
from dynamicface.perception import Perception  # noqa: E402
from dynamicface.prior.camera import euler_from_rotation  # noqa: E402
from dynamicface.prior.embed import MESH  # noqa: E402
from dynamicface.prior.fit import LandmarkFit, fit_landmarks  # noqa: E402
from dynamicface.prior.head import HeadModel, save_head  # noqa: E402
from dynamicface.track import track_faces  # noqa: E402

log = logging.getLogger("learn_landmark_bias")

BATCH = 16
FRONTAL = (15.0, 12.0)  # degrees of yaw and pitch
FOCAL = 2.0  # picture widths


def find_landmarks(folder: Path) -> tuple[Tensor, Tensor]:
    """Landmarks (N, 478, 2) of the pictures that show a face, and picture sizes (N, 2) width, height; px."""
    perception = Perception.load()
    by_size: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
        with Image.open(path) as picture:
            by_size.setdefault(picture.size, []).append(path)
    landmarks, sizes = [], []
    for size, paths in by_size.items():
        for start in range(0, len(paths), BATCH):
            pictures = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths[start : start + BATCH]])
            try:
                track = track_faces(torch.from_numpy(pictures).float() / 255, perception)
            except NoFaceError:
                continue
            seen = track.presence > 0.5
            landmarks.append(track.landmarks[seen, :, :2])
            sizes.append(torch.tensor(size).float().expand(int(seen.sum()), 2))
    return torch.cat(landmarks), torch.cat(sizes)


def fit_people(head: HeadModel, landmarks: Tensor, sizes: Tensor) -> tuple[LandmarkFit, Tensor]:
    """Fit N people one by one; points are taken relative to the picture's centre. Also returns those points (N, 478, 2)."""
    points = landmarks - sizes[:, None] / 2
    parts = [
        fit_landmarks(p[:, None], head, FOCAL * s.amax(1, keepdim=True), torch.zeros(2))
        for p, s in zip(points.split(48), sizes.split(48), strict=True)
    ]
    return LandmarkFit(*(torch.cat(values) for values in zip(*(vars(p).values() for p in parts), strict=True))), points


def residual_in_head(fit: LandmarkFit, points: Tensor, focal: Tensor) -> Tensor:
    """(N, 468, 3) metres: what is left over in the picture plane, carried to the face's depth and turned into the head's space."""
    metre = -fit.translation[:, 0, 2] / focal
    left = (points - fit.projected[:, 0])[:, :MESH] * metre[:, None, None]
    camera = torch.cat([left[..., :1], -left[..., 1:], torch.zeros_like(left[..., :1])], -1)
    return camera @ fit.rotation[:, 0]


@torch.inference_mode()
def learn(head: HeadModel, landmarks: Tensor, sizes: Tensor, rounds: int = 2) -> HeadModel:
    """The head with its bias learnt on every second near-frontal person."""
    fit, _ = fit_people(head, landmarks, sizes)
    angles = euler_from_rotation(fit.rotation[:, 0]).abs()
    frontal = torch.nonzero((angles[:, 0] < FRONTAL[0]) & (angles[:, 1] < FRONTAL[1]) & (fit.error[:, 0] < 0.04)).squeeze(1)
    learning, measuring = frontal[::2], frontal[1::2]
    before = 100 * fit.error[measuring].median()
    log.info("%d near-frontal people learn, %d measure: median error %.3f %%", len(learning), len(measuring), before)
    flip, mirror = torch.tensor([-1.0, 1.0, 1.0]), head.landmark_mirror[:MESH]
    for _ in range(rounds):
        fit, points = fit_people(head, landmarks[learning], sizes[learning])
        step = residual_in_head(fit, points, FOCAL * sizes[learning].amax(1)).median(0).values
        bias = head.landmark_bias.clone()
        bias[:MESH] += (step + step[mirror] * flip) / 2
        head = head.replace(landmark_bias=bias)
        held_out, _ = fit_people(head, landmarks[measuring], sizes[measuring])
        log.info(
            "bias %.2f mm on average, changed by %.2f mm; median error of the others %.3f %%",
            1e3 * bias[:MESH].norm(dim=-1).mean(),
            1e3 * step.norm(dim=-1).mean(),
            100 * held_out.error.median(),
        )
    return head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of portraits, one face each")
    parser.add_argument("--head", type=Path, default=ROOT / "dynamicface" / "weights" / "head.safetensors")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    head = HeadModel.load(arguments.head)
    head = learn(head.replace(landmark_bias=torch.zeros_like(head.landmark_bias)), *find_landmarks(arguments.pictures))
    save_head(head, arguments.head)
    register(arguments.head, "tools/build_prior.py, then tools/learn_landmark_bias.py")


if __name__ == "__main__":
    main()
