"""Plates in, crops out: the one place that validates an image batch and the one place that samples crops from it.

`as_plate` is called once at every public entry; everything behind it may rely on finite float32 (F, H, W, 3).
`sample_crops` cuts sub-pixel, anti-aliased crops for the networks without copying the plate, however many frames it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .conventions import srgb_to_linear
from .errors import ImageError

if TYPE_CHECKING:
    from .io.clips import Clip

MAX_TAPS = 3  # per axis and crop pixel
_READ_AROUND = 2  # px beside what crops show: bilinear samples reach there


def as_plate(images: Tensor, name: str = "image") -> Tensor:
    """Validate a batch of frames and return it as float32 (F, H, W, 3); values outside 0..1 are kept.

    Grey (one channel) is repeated, alpha (fourth channel, or second beside grey) is dropped. No copy is made of ordinary plates.

    Raises:
        ImageError: not a float tensor (F, H, W, C) with 1..4 channels, empty, or holding NaN or infinity.
    """
    if not isinstance(images, Tensor) or images.dim() != 4:
        found = f"a tensor of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ImageError(f"The {name} input must be a batch of frames of shape (frames, height, width, channels), but it is {found}.")
    if not images.is_floating_point():
        raise ImageError(f"The {name} input must hold floating point values (0..1), but it holds {images.dtype}; divide by 255 first.")
    frames, height, width, channels = images.shape
    if frames == 0:
        raise ImageError(f"The {name} input holds no frames; connect at least one picture.")
    if height == 0 or width == 0:
        raise ImageError(f"The {name} input is {width} x {height} pixels; it needs at least one pixel.")
    if not 1 <= channels <= 4:
        raise ImageError(f"The {name} input has {channels} channels; expected grey (1), RGB (3) or RGBA (4).")
    plate = images.float()
    plate = plate[..., :3] if channels >= 3 else plate[..., :1].expand(-1, -1, -1, 3)
    if not torch.isfinite(plate.sum()):  # forty times faster than looking at every value, which happens only on failure
        bad = (~torch.isfinite(plate)).flatten(1).any(1).nonzero().flatten().tolist()
        listed = ", ".join(map(str, bad[:8])) + (" ..." if len(bad) > 8 else "")
        raise ImageError(f"The {name} input holds NaN or infinite pixels in frame {listed}; repair the plate (clamp or inpaint) first.")
    return plate


def empty_masks(images: Tensor) -> Tensor:
    """Masks (F, H, W) of 0 for frames (F, H, W, C). On a CPU they take memory only where something is written."""
    if images.device.type != "cpu" or images.dtype != torch.float32:
        return images.new_zeros(images.shape[:3])
    return torch.from_numpy(np.zeros(images.shape[:3], np.float32))


def square_matrix(centre: Tensor, side: Tensor, angle: Tensor, size: int) -> Tensor:
    """(N, 2, 3) PLATE to CROP of the squares with the given centre (N, 2), side (N,) in px and angle (N,) in radians.

    A positive angle turns the square's x axis towards +y (clockwise on screen), so a head tipped by it stands upright in the crop.
    """
    scale = size / side
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    linear = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return torch.cat([linear, size / 2 - linear @ centre[..., None]], -1)


def invert(matrix: Tensor) -> Tensor:
    """Inverse of affine maps (..., 2, 3)."""
    linear = torch.linalg.inv(matrix[..., :2])
    return torch.cat([linear, -linear @ matrix[..., 2:]], -1)


def transform(points: Tensor, matrix: Tensor) -> Tensor:
    """Apply affine maps (N, 2, 3) to points (N, K, 2)."""
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


def sample_crops(
    images: Tensor,
    matrix: Tensor,
    size: int | tuple[int, int],
    frame: Tensor | None = None,
    padding: str = "border",
    max_taps: int = MAX_TAPS,
) -> Tensor:
    """Cut crops (N, 3, h, w), float, out of frames (F, H, W, 3).

    Args:
        images: float, or uint8 0..255 as `Clip.windows` reads them, which become 0..1; of these no more than a crop shows is converted.
        matrix: (N, 2, 3) PLATE to CROP, pixels.
        size: (h, w), or one number for a square.
        frame: (N,) long, the frame each crop is cut from; None means one crop per frame, in order (then differentiable cheaply).
        padding: "border" repeats the edge pixels, "zeros" is black outside (only with frame = None).
        max_taps: minification is anti-aliased by averaging up to this many bilinear taps per axis of a crop pixel.

    The plate is never copied: crops of arbitrary frames are read from the clip viewed as one tall image.
    """
    h, w = (size, size) if isinstance(size, int) else size
    inverse = invert(matrix)
    footprint = float(inverse[..., :2].norm(dim=-2).amax()) if len(matrix) else 1.0  # plate px per crop px
    taps = min(max(round(footprint / 2), 1), max_taps)
    if images.dtype != torch.uint8:
        return _sample(images, inverse.to(images.dtype), (h, w), frame, padding, taps)
    if images.device.type != "cpu":
        return _sample(images.float(), inverse, (h, w), frame, padding, taps) / 255
    crops = matrix.new_empty(len(matrix), 3, h, w)  # one at a time, while its pixels lie in the processor's cache
    for i, at in enumerate(range(len(matrix)) if frame is None else frame.tolist()):
        left, top, right, bottom = _shown(inverse[i], (h, w), images.shape[1:3])
        part = images[at : at + 1, top:bottom, left:right].float()
        moved = inverse[i : i + 1] - F.pad(inverse.new_tensor([[left], [top]]), (2, 0))
        crops[i] = _sample(part, moved, (h, w), None, padding, taps)[0]
    return crops.div_(255)


def _sample(images: Tensor, inverse: Tensor, size: tuple[int, int], frame: Tensor | None, padding: str, taps: int) -> Tensor:
    """`sample_crops` of float frames, for maps (N, 2, 3) CROP to PLATE."""
    height, width = images.shape[1:3]
    source, offset = images.permute(0, 3, 1, 2), 0.0
    if frame is not None:
        source = rearrange(images, "f h w c -> 1 c (f h) w").expand(len(inverse), -1, -1, -1)
        offset = frame[:, None, None].to(inverse) * height
    h, w = size
    xs, ys = ((torch.arange(n * taps, device=images.device, dtype=images.dtype) + 0.5) / taps for n in (w, h))
    x, y = (row[:, None, :1] * xs + (row[:, None, 1:2] * ys + row[:, None, 2:]).mT for row in inverse.unbind(1))  # (N, h, w) plate px
    if padding == "border":  # also keeps the tall image's frames apart
        x, y = x.clamp(0.5, width - 0.5), y.clamp(0.5, height - 0.5)
    grid = torch.stack([2 / width * x - 1, 2 / source.shape[2] * (y + offset) - 1], -1)
    crops = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return F.avg_pool2d(crops, taps) if taps > 1 else crops


def plate_window(inverse: Tensor, size: int | tuple[int, int], plate: tuple[int, int], around: int = 0) -> tuple[int, int, int, int]:
    """The rectangle (left, top, right, bottom) of a plate (height, width) that holds crops of so many px, and some px around; empty beside
    the plate. inverse: (.., 2, 3) CROP to PLATE."""
    h, w = (size, size) if isinstance(size, int) else size
    corners = inverse.new_tensor([[0, 0], [w, 0], [0, h], [w, h]]) @ inverse[..., :2].mT + inverse[..., None, :, 2]
    low, high = corners.flatten(0, -2).aminmax(dim=0)
    (left, top), (right, bottom) = low.floor().long().tolist(), high.ceil().long().tolist()
    return max(left - around, 0), max(top - around, 0), min(right + around, plate[1]), min(bottom + around, plate[0])


def _shown(inverse: Tensor, size: int | tuple[int, int], plate: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle of a plate that is read for crops; of crops beside the plate its border is repeated."""
    height, width = plate
    left, top, right, bottom = plate_window(inverse, size, (height, width), _READ_AROUND)
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def crops_of_frames(plate: Tensor | Clip, frames: slice | Tensor, matrix: Tensor, size: int) -> Tensor:
    """`linear_crops` of some frames of a plate, of which no more is read than the crops show; matrix (N, 2, 3) of those frames."""
    if not isinstance(plate, Tensor):
        numbers = range(len(plate))[frames] if isinstance(frames, slice) else frames.tolist()
        return torch.cat([linear_crops(plate.samples(i)[None], m[None], size) for i, m in zip(numbers, matrix, strict=True)])
    left, top, right, bottom = _shown(invert(matrix), size, plate.shape[1:3])
    moved = torch.cat([matrix[..., :2], transform(matrix.new_tensor([[left, top]]), matrix).mT], -1)
    return linear_crops(plate[frames, top:bottom, left:right], moved, size)


def linear_crops(plate: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Crops (F, 3, size, size) of the plate (F, H, W, C), linear; matrix (F, 2, 3) PLATE to CROP, one crop per frame."""
    return srgb_to_linear(sample_crops(plate[..., :3], matrix, size))
