"""NIQE (Mittal, Soundararajan, Bovik 2013): how far a picture's fine structure is from that of natural photographs. It needs no reference.

Local contrasts and the products of neighbours are described per patch of 96 px, at full and at half size, by asymmetric generalised
Gaussians. The figure is the distance of these features' distribution from that of the authors' 125 photographs, whose mean and covariance
ship with this package. Checked against BasicSR, which agrees with the authors' program. Unlike there, a patch without any structure (flat
black) is left out, and flat parts count as flat: rounding errors decide there otherwise.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..errors import ImageError
from ..weights import load_weights
from .ssim import local_mean

PATCH = 96
LEAST = 2 * PATCH  # side of the smallest picture, px: four patches
_LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray, of the encoded values, as the original takes it
_SIGMA, _RADIUS = 7 / 6, 3
_REDUCE = (-3 / 256, -9 / 256, 29 / 256, 111 / 256)  # one half of the bicubic kernel (a = -1/2) at twice its width
_HELD = 2**18  # pixels worked on at once; more fall out of a processor's caches, which takes three times as long
_FLAT = 1e-9  # contrasts below this are rounding errors
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = torch.arange(200, 10_001, dtype=torch.float64) / 1000
_MOMENTS = (2 * torch.lgamma(2 / _SHAPES) - torch.lgamma(1 / _SHAPES) - torch.lgamma(3 / _SHAPES)).exp()  # E|x|^2 / E x^2, by the shape
_BETWEEN = (_MOMENTS[1:] + _MOMENTS[:-1]) / 2


@torch.inference_mode()
def niqe(pictures: Tensor) -> Tensor:
    """(F,) NIQE of pictures (F, H, W, 3), 0..1, rounded to 8 bits; lower = more natural, photographs have about 2 to 5. Double precision.

    Blur, noise and blocks raise it. Rows and columns beyond a multiple of 96 px are left out. Not a number where fewer than two patches
    have any structure.

    Raises:
        ImageError: a side is shorter than `LEAST` pixels.
    """
    height, width = pictures.shape[1:3]
    if min(height, width) < LEAST:
        raise ImageError(
            f"NIQE needs pictures of at least {LEAST} x {LEAST} pixels, which are four of its patches; these are {width} x {height}. "
            "Give the frames as they were filmed: enlarging them changes the figure."
        )
    found = torch.cat([patch_features(part) for part in pictures.split(max(1, _HELD // (height * width)))])
    model = {name: value.to(found) for name, value in load_weights("niqe").items()}
    valid = found.isfinite().all(-1, keepdim=True)
    count = valid.sum(1)
    found = found.where(valid, 0.0)
    mean = found.sum(1) / count
    centred = (found - mean[:, None]).where(valid & (count > 1)[:, None], 0.0)
    covariance = centred.mT @ centred / (count - 1).clamp_min(1)[..., None]
    apart = mean - model["mean"]
    distance = (apart * torch.linalg.solve((model["covariance"] + covariance) / 2, apart)).sum(-1).sqrt()
    return distance.where(count[:, 0] > 1, torch.nan)


def patch_features(pictures: Tensor) -> Tensor:
    """Features (F, P, 36) of the patches of pictures (F, H, W, 3), 0..1; not a number where a patch has no structure."""
    height, width = (size // PATCH * PATCH for size in pictures.shape[1:3])
    levels = (255 * pictures[:, None, :height, :width, :3].clamp(0, 1)).round()
    grey = sum(channel.double() * weight for channel, weight in zip(levels.unbind(-1), _LUMA, strict=True)).round()
    return torch.cat([_features(grey, PATCH), _features(_half_size(grey), PATCH // 2)], -1)


def _half_size(grey: Tensor) -> Tensor:
    """Bicubic reduction, the border mirrored as in the original; PyTorch's own cuts the kernel there, which moves NIQE by up to 1 %."""
    for dim in (-2, -1):
        size, reach = grey.shape[dim], len(_REDUCE) - 1
        mirrored = torch.cat([grey.narrow(dim, 0, reach).flip(dim), grey, grey.narrow(dim, size - reach, reach).flip(dim)], dim)
        taps = mirrored.unfold(dim, 2 * len(_REDUCE), 2).unbind(-1)
        grey = sum((before + after) * weight for before, after, weight in zip(taps, taps[::-1], _REDUCE, strict=False))
    return grey


def _features(grey: Tensor, patch: int) -> Tensor:
    """(F, P, 18) of brightness (F, 1, H, W)."""
    x = rearrange(_contrast(grey), "f 1 (r h) (c w) -> f (r c) h w", h=patch, w=patch)
    shape, left, right = _fit(x)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit(x * x.roll(shift, (-2, -1)))
        features += [shape, (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp(), left, right]
    return torch.stack(features, -1)


def _contrast(grey: Tensor) -> Tensor:
    """Mean subtracted, contrast normalised (MSCN) values."""
    mean, square = (local_mean(moment, _SIGMA, _RADIUS) for moment in (grey, grey * grey))
    contrast = (grey - mean).div_((square - mean * mean).abs_().sqrt_().add_(1))
    return contrast.where(contrast.abs() > _FLAT, 0.0).float()


def _fit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape and scales to the left and right (F, P) of asymmetric generalised Gaussians, by moments, of values (F, P, h, w)."""

    def mean(values: Tensor) -> Tensor:
        return values.mean((-2, -1), dtype=torch.float64)

    below, above = (mean(part.square()) for part in (x.clamp_max(0), x.clamp_min(0)))
    left, right = below / mean(x < 0), above / mean(x > 0)
    ratio = (left / right).sqrt()
    moment = mean(x.abs()).square() / (below + above) * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1).square()
    shape = _SHAPES.to(x.device)[torch.bucketize(moment, _BETWEEN.to(x.device))]
    scale = (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp()
    return shape, (left * scale).sqrt(), (right * scale).sqrt()
