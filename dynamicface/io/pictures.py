"""Pictures from and to disk as plates (1, H, W, 3).

Read: whatever OpenCV reads (PNG, JPEG, WebP, TIFF, BMP ..), 8 and 16 bit and float, turned upright as the camera's orientation tag says,
grey repeated, alpha dropped. Integers become 0..1; floating point TIFF is taken as it is, display-referred and unclamped.
EXR and HDR hold linear light and become display-referred (`conventions.py`) where the OpenCV build has the codec; the one on the package
registry has none for EXR since version 5.
Write: PNG and the like in 8 or 16 bit, TIFF as unclamped float, EXR and HDR as linear light.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # read when OpenCV is imported

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..conventions import linear_to_srgb, srgb_to_linear
from ..errors import ImageError

_LINEAR = (".exr", ".hdr")
_FLOAT = (".tif", ".tiff")
_SIXTEEN_BIT = (".png",)
_CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mxf", ".mpg", ".m4v")
_READ_AS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH


def read_image(path: str | Path) -> Tensor:
    """A picture as (1, H, W, 3) float32 RGB.

    Raises:
        ImageError: no such file, not a picture, cut off, or holding NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path} is a folder; name one picture in it." if path.is_dir() else f"There is no file {path}.")
    content = path.read_bytes()
    data = cv2.imdecode(np.frombuffer(content, np.uint8), _READ_AS) if _is_whole(content) else None
    if data is None:
        raise ImageError(f"{path} is not a picture this library can read (PNG, JPEG, WebP, TIFF, BMP), or it is cut off.{_advice(path)}")
    if np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.float32) / np.iinfo(data.dtype).max
    picture = torch.from_numpy(np.ascontiguousarray(data[..., ::-1].astype(np.float32)))[None]
    if not torch.isfinite(picture).all():
        raise ImageError(f"{path} holds NaN or infinite pixels; repair the picture (clamp or inpaint) first.")
    return linear_to_srgb(picture) if path.suffix.lower() in _LINEAR else picture


def write_image(path: str | Path, image: Tensor, bits: int = 8) -> None:
    """Write (1, H, W, 3) or (H, W, 3) RGB in the format of the path's ending; missing folders are made.

    bits: 8, or 16 for PNG. TIFF is written as unclamped float, EXR and HDR as linear light.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    image = image.reshape(image.shape[-3:]).detach().float().cpu()
    if suffix in _LINEAR:
        data = srgb_to_linear(image).numpy()
    elif suffix in _FLOAT:
        data = image.numpy()
    else:
        top, kind = (65535, np.uint16) if bits == 16 and suffix in _SIXTEEN_BIT else (255, np.uint8)
        data = (image.numpy().clip(0, 1) * top + 0.5).astype(kind)
    if not suffix or not cv2.haveImageWriter(f"picture{suffix}"):
        raise ImageError(f"Cannot write {path}: '{path.suffix}' is no picture format that can be written here. Use .png, .jpg or .tif.")
    _, encoded = cv2.imencode(suffix, np.ascontiguousarray(data[..., ::-1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())


def _advice(path: Path) -> str:
    """What to do with a file that is no picture here, as a further sentence."""
    suffix = path.suffix.lower()
    if suffix == ".exr" and not cv2.haveImageWriter(path.name):
        return " The installed OpenCV has no EXR codec: save it as float TIFF, which keeps its range, or install opencv-python-headless<5."
    return " It is a clip: see `python -m dynamicface video`." if suffix in _CLIPS else ""


def _is_whole(content: bytes) -> bool:
    """False where a picture's data end early (OpenCV would fill the rest with grey); formats Pillow does not know are believed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                picture.load()
    except UnidentifiedImageError:
        return len(content) > 0
    except (OSError, SyntaxError, ValueError):
        return False
    except Image.DecompressionBombError as error:
        raise ImageError(f"The picture is too large to read ({error}). Scale it down first.") from error
    return True
