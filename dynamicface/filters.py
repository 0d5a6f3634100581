"""Image filters the stages share: sub-pixel sampling, smooth filling of holes, blurs. All batched, (F, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(images: Tensor, points: Tensor, *, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Read images (F, C, H, W) at pixel positions (F, h, w, 2) or (F, P, 2): (F, C, h, w) or (F, C, P)."""
    size = points.new_tensor([images.shape[-1], images.shape[-2]])
    grid = points * (2 / size) - 1
    flat = grid.dim() == 3
    out = F.grid_sample(images, grid[:, None] if flat else grid, mode=mode, padding_mode=padding, align_corners=False)
    return out[:, :, 0] if flat else out


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of the pixels, (height, width, 2) x, y."""
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def blur(images: Tensor, radius: int, rounds: int = 3) -> Tensor:
    """Near-Gaussian blur by repeated box averages of the given radius (sigma is about radius for three rounds)."""
    if radius < 1:
        return images
    for _ in range(rounds):
        images = F.avg_pool2d(images, (1, 2 * radius + 1), 1, (0, radius), count_include_pad=False)
        images = F.avg_pool2d(images, (2 * radius + 1, 1), 1, (radius, 0), count_include_pad=False)
    return images


def masked_blur(images: Tensor, weight: Tensor, radius: int) -> Tensor:
    """Blur that takes only what weight (F, 1, H, W) lets through (normalised convolution)."""
    both = blur(torch.cat([images * weight, weight], 1), radius)
    return both[:, :-1] / both[:, -1:].clamp_min(1e-4)


def fill_holes(images: Tensor, weight: Tensor) -> Tensor:
    """Smoothly continue images (F, C, H, W) from where weight (F, 1, H, W) is high to where it is 0 (push-pull pyramid).

    Pixels of weight 1 keep their value exactly.
    """
    levels = [(images * weight, weight)]
    while min(levels[-1][1].shape[-2:]) > 2:
        value, amount = levels[-1]
        levels.append((F.avg_pool2d(value, 2, ceil_mode=True), F.avg_pool2d(amount, 2, ceil_mode=True)))
    value, amount = levels[-1]
    total = amount.sum((-2, -1), keepdim=True).clamp_min(1e-12)
    filled = (value.sum((-2, -1), keepdim=True) / total).expand_as(value)
    for value, amount in reversed(levels):
        coarse = F.interpolate(filled, value.shape[-2:], mode="bilinear", align_corners=False)
        known = amount.clamp(0, 1)
        trusted = value / amount.clamp_min(1e-6)
        filled = coarse + known * (trusted - coarse)
    return torch.where(weight >= 1, images, filled)
