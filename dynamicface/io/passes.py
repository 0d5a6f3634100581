"""Render passes on disk: one multi-layer EXR per frame with the raw values, or 16-bit PNG per pass and frame for viewing and mattes.

EXR   32-bit float, ZIP; layers normal.X Y Z (camera space), depth.Z (metres), uv.U V (v down), part.ID (-1 beside the head), mask.A.
      Written with OpenEXR (`pip install OpenEXR`), which is imported only here.
PNG   folder/normal/name.0000.png and so on, as `Passes.pictures`.
Beside either lies name.json with the parts' names, the depth's range and the camera.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..conventions import PARTS
from ..errors import DynamicFaceError
from ..passes import Passes
from ..types import FacePrior
from .documents import write_json

SCHEMA = "dynamicface.passes.1"
KINDS = ("exr", "png")


def save_passes(passes: Passes, prior: FacePrior, folder: str | Path, *, name: str = "face", kind: str = "exr") -> list[Path]:
    """Write the passes of a prior; the frames' files in order, then the description. Raises DynamicFaceError."""
    if kind not in KINDS:
        raise DynamicFaceError(f"Passes cannot be written as {kind!r}; choose {' or '.join(KINDS)}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = _write_exr(passes, folder, name) if kind == "exr" else _write_png(passes, folder, name)
    near, far = passes.depth_range
    camera = [{"focal_px": focal, "centre_px": [prior.image_size[1] / 2, prior.image_size[0] / 2]} for focal in prior.focal.tolist()]
    description = {"schema": SCHEMA, "parts": list(PARTS), "depth_metres": {"nearest": near, "farthest": far}, "camera": camera}
    write_json(folder / f"{name}.json", description)
    return [*paths, folder / f"{name}.json"]


def _write_exr(passes: Passes, folder: Path, name: str) -> list[Path]:
    try:
        import OpenEXR
    except ImportError as error:
        raise DynamicFaceError("Writing EXR needs the package OpenEXR; install it with `pip install OpenEXR`, or choose png.") from error
    layers = {f"normal.{axis}": passes.normal[..., k] for k, axis in enumerate("XYZ")}
    layers |= {"depth.Z": passes.depth, "uv.U": passes.uv[..., 0], "uv.V": passes.uv[..., 1], "part.ID": passes.part, "mask.A": passes.mask}
    arrays = {layer: values.cpu().numpy().astype(np.float32) for layer, values in layers.items()}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    paths = [folder / f"{name}.{frame:04d}.exr" for frame in range(len(passes.mask))]
    for frame, path in enumerate(paths):
        with OpenEXR.File(header, {layer: np.ascontiguousarray(values[frame]) for layer, values in arrays.items()}) as file:
            file.write(str(path))
    return paths


def _write_png(passes: Passes, folder: Path, name: str) -> list[Path]:
    try:
        from .pictures import write_image
    except ImportError as error:
        raise DynamicFaceError("Writing 16-bit PNG needs OpenCV; install it with `pip install opencv-python-headless`.") from error
    paths = []
    for layer, pictures in passes.pictures().items():
        for frame, picture in enumerate(pictures):
            paths.append(folder / layer / f"{name}.{frame:04d}.png")
            write_image(paths[-1], picture, 16)
    return paths
