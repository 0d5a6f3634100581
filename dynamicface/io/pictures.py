"""Pictures from and to disk as plates (1, H, W, 3): 8 and 16 bit, EXR as it is (linear float, unclamped)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError


def read_image(path: str | Path) -> Tensor:
    """A picture as (1, H, W, 3) float RGB; integer files become 0..1, alpha is dropped, grey is repeated."""
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"There is no file {path}.")
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if data is None:
        raise ImageError(f"{path} is not a picture this library can read (PNG, JPEG, WebP, TIFF, BMP), or it is cut off.")
    if np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.float32) / np.iinfo(data.dtype).max
    if data.ndim == 2:
        data = np.repeat(data[..., None], 3, -1)
    return torch.from_numpy(np.ascontiguousarray(data[..., 2::-1].astype(np.float32)))[None]


def write_image(path: str | Path, image: Tensor) -> None:
    """Write (1, H, W, 3) or (H, W, 3) RGB; 8 bit unless the name ends in .exr or .tif (float)."""
    path = Path(path)
    data = image.reshape(image.shape[-3:]).detach().cpu().numpy()[..., ::-1]
    if path.suffix.lower() not in (".exr", ".tif", ".tiff"):
        data = (data.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    done, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(data))
    if not done:
        raise ImageError(f"Cannot write {path}: unknown picture format '{path.suffix}'. Use .png or .jpg.")
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded.tofile(path)
