"""An independent judge of identity: dlib's face descriptor (99.38 % on LFW). It shares nothing with the product, which never uses it.

pip install --no-deps dlib-bin==20.0.1.post1 face-recognition-models==0.3.0
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from .common import SkippedError

SAME_PERSON = 0.6
"""Distance below which dlib's authors call two pictures the same person."""


class Judge:
    """Descriptors (128,) of faces; people are compared by Euclidean distance."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise SkippedError(f"The independent judge is not installed: {__doc__.splitlines()[-1]}") from error
        package = find_spec("face_recognition_models")
        if package is None:
            raise SkippedError(f"The judge's models are not installed: {__doc__.splitlines()[-1]}")
        models = Path(package.origin).parent / "models"
        self._detect = dlib.get_frontal_face_detector()
        self._align = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._describe = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
        self._rectangle = dlib.rectangle

    def describe(self, picture: Tensor, box: Tensor | None = None) -> np.ndarray:
        """The descriptor of the face in (H, W, 3); where dlib's detector is blind (profiles) the face is looked for in box x0 y0 x1 y1."""
        image = np.ascontiguousarray((picture[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy())
        found = self._detect(image, 0) or self._detect(image, 1)
        if found:
            where = max(found, key=lambda r: r.area())
        elif box is None:
            where = self._rectangle(0, 0, image.shape[1] - 1, image.shape[0] - 1)
        else:
            where = self._rectangle(*(round(float(v)) for v in box))
        return np.array(self._describe.compute_face_descriptor(image, self._align(image, where)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two descriptors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance of two descriptors."""
    return float(np.linalg.norm(a - b))
