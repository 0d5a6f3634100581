"""Put a face crop back into its plate: sub-pixel, unclamped, and nothing outside of the mask changes, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_occlusion
from .errors import ImageError
from .filters import dilate, pixel_grid, sample
from .images import as_plate, empty_masks, plate_window
from .types import FaceCrop

_MAX_TAPS = 4  # samples per plate pixel and axis where the crop is finer than the plate
_RING = 0.06  # width of the ring around the mask in which colours are compared, as a share of the crop
_MAX_CONTRAST = 2.0


@torch.inference_mode()
def paste_back(
    plate: Tensor,
    images: Tensor,
    mask: Tensor,
    crop: FaceCrop,
    *,
    feather: float = 0.04,
    colour_match: float = 0.0,
    base: Tensor | None = None,
    occlusion: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Composite crops into plates.

    plate (F, H, W, C), any range; images (F, S, S, 3), crops of any resolution; mask (F, S', S') in crop space, 1 = may change; crop:
    where the crops lie in the plate. feather: width of the soft edge, inwards, as a share of the crop's side. colour_match 0..1: move
    each channel's mean and contrast to the plate's, as compared in a ring around the mask. base (F, S, S, 3): the crops as they were cut
    from this plate; given, only the difference images - base is added, so that the plate keeps its own detail, grain and range.
    occlusion (F, H, W) in the plate, 1 = something in front of the face.

    Returns the pictures (F, H, W, C) and the alpha (F, H, W) they were mixed with.
    Raises ImageError where the inputs do not fit each other.
    """
    images = as_plate(images, "images")
    if base is not None:
        base = as_plate(base, "base")
        if base.shape != images.shape:
            found = f"'base' is {tuple(base.shape)}, 'images' are {tuple(images.shape)}"
            raise ImageError(f"{found}; connect the crops the images were generated from.")
        images = images - base
    _check(plate, images, mask, crop, occlusion)
    frames, height, width = plate.shape[:3]
    channels = min(plate.shape[-1], 3)
    mask = mask[:, None].to(images)
    layer = torch.cat([feathered(mask, feather), *([_ring(mask)] if colour_match else [])], 1)
    out, used = plate.clone(), empty_masks(plate)
    for f in range(frames):
        left, top, right, bottom = plate_window(crop.inverse[f], crop.size, (height, width))
        if left < right and top < bottom:
            here = f, slice(top, bottom), slice(left, right)
            grid = pixel_grid(bottom - top, right - left, images) + images.new_tensor([left, top])
            new = _resample(images[f].permute(2, 0, 1), grid, crop, f)[..., :channels]
            alpha, *ring = sample(layer[f : f + 1], _in_crop(grid, crop, f)[None] * (layer.shape[-1] / crop.size), padding="zeros")[0]
            old = plate[here][..., :channels]
            if base is not None:
                new = old + new
            if colour_match:
                new = torch.lerp(new, match_colour(new, old, *ring), colour_match)
            if occlusion is not None:
                alpha = alpha * (1 - occlusion[here].to(alpha))
            out[here][..., :channels] = torch.where(alpha[..., None] > 0, torch.lerp(old, new.to(old), alpha[..., None].to(old)), old)
            used[here] = alpha
        if progress is not None:
            progress(f + 1, frames)
    return out, used


def feathered(mask: Tensor, width: float) -> Tensor:
    """A mask (F, 1, S, S) with a soft edge inwards, width as a share of the side; where it was 0 it stays 0, and it ends at the border."""
    radius = round(width * mask.shape[-1] / 2)
    if radius < 1:
        return mask
    near = F.avg_pool2d(F.avg_pool2d(mask, (1, 2 * radius + 1), 1, (0, radius)), (2 * radius + 1, 1), 1, (radius, 0))
    return mask * (2 * near - 1).clamp(0, 1)


def match_colour(new: Tensor, old: Tensor, weight: Tensor) -> Tensor:
    """Move mean and contrast of each channel of `new` (H, W, C) to those of `old`, both measured under weight (H, W)."""
    if weight.sum() < 1:
        return new
    share = (weight / weight.sum())[..., None]
    mean_new, mean_old = ((x * share).sum((0, 1)) for x in (new, old))
    spread_new, spread_old = (((x - m).square() * share).sum((0, 1)).sqrt() for x, m in ((new, mean_new), (old, mean_old)))
    contrast = (spread_old / spread_new.clamp_min(1e-4)).clamp(1 / _MAX_CONTRAST, _MAX_CONTRAST)
    return (new - mean_new) * contrast + mean_old


def _check(plate: Tensor, images: Tensor, mask: Tensor, crop: FaceCrop, occlusion: Tensor | None) -> None:
    given = {"images": images, "mask": mask, "crop": crop.matrix}
    for name, value in given.items():
        if len(value) != len(plate):
            raise ImageError(f"'{name}' has {len(value)} frames, the plate has {len(plate)}. Connect what was rendered for this plate.")
    for name, value in (("images", images), ("mask", mask)):
        if value.shape[1] != value.shape[2]:
            raise ImageError(f"'{name}' is {value.shape[2]} x {value.shape[1]} pixels; a face crop is square. Leave it uncropped.")
    check_occlusion(occlusion, plate)


def _in_crop(points: Tensor, crop: FaceCrop, f: int) -> Tensor:
    """Plate positions (.., 2) to positions in frame f's crop."""
    matrix = crop.matrix[f].to(points)
    return points @ matrix[:, :2].mT + matrix[:, 2]


def _resample(image: Tensor, grid: Tensor, crop: FaceCrop, f: int) -> Tensor:
    """The crop's picture (3, S, S) at plate pixels (h, w, 2) of frame f: bicubic, or averaged where it is finer than the plate."""
    finer = image.shape[-1] / crop.size
    footprint = float(crop.matrix[f, :, 0].norm()) * finer
    taps = min(max(round(footprint / 1.25), 1), _MAX_TAPS)
    offsets = [(k + 0.5) / taps - 0.5 for k in range(taps)]
    total = torch.zeros(())
    for dy in offsets:
        for dx in offsets:
            at = _in_crop(grid + grid.new_tensor([dx, dy]), crop, f)[None] * finer
            total = total + sample(image[None], at, mode="bicubic" if taps == 1 else "bilinear")
    return (total / taps**2)[0].permute(1, 2, 0)


def _ring(mask: Tensor) -> Tensor:
    """(F, 1, S, S) 1 just outside of the mask."""
    radius = max(round(_RING * mask.shape[-1]), 1)
    return dilate(mask, radius) - mask
