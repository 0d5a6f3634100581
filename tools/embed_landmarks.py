"""Find the 478 landmarks on a head model you own and write them beside it. Needed once per FLAME, BFM or ICT-FaceKit file.

python tools/embed_landmarks.py --head flame.npz [--overlay check.png]
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dynamicface.conventions import linear_to_srgb  # noqa: E402
from dynamicface.errors import DynamicFaceError  # noqa: E402
from dynamicface.perception.landmarks import LandmarkNet  # noqa: E402
from dynamicface.prior.adapters import landmark_file, load_foreign, save_landmarks  # noqa: E402
from dynamicface.prior.embed import MESH, embed_landmarks, render_landmarks  # noqa: E402
from dynamicface.weights import load_module  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, required=True, help="FLAME .npz, BFM .mat or .h5, or ICT-FaceKit's FaceXModel folder")
    parser.add_argument("--views", type=int, default=192, help="how many renders the landmark net looks at")
    parser.add_argument("--overlay", type=Path, help="also write a picture of the landmarks on the head, to check by eye")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        head = load_foreign(arguments.head, landmarks=False)
        head = embed_landmarks(head, load_module(LandmarkNet(), "face_landmarks"), views=arguments.views)
    except DynamicFaceError as error:
        logging.error("%s", error)
        return 2
    save_landmarks(head, landmark_file(arguments.head))
    middle, most = (head.landmark_sigma[:MESH].quantile(torch.tensor([0.5, 0.9])) * 1e3).tolist()
    logging.info("%s: median sigma %.1f mm, 90 %% below %.1f mm", landmark_file(arguments.head), middle, most)
    if arguments.overlay:
        picture = linear_to_srgb(render_landmarks(head)).clamp(0, 1)
        Image.fromarray((picture * 255).round().byte().numpy()).save(arguments.overlay)
    return 0


if __name__ == "__main__":
    sys.exit(main())
