"""Image filters the stages share: sub-pixel sampling, smooth filling of holes, blurs. All batched, (F, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PART = 16_384  # points read at once


def sample(images: Tensor, points: Tensor, *, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Read images (F, C, H, W) at pixel positions (F, h, w, 2) or (F, P, 2): (F, C, h, w) or (F, C, P)."""
    size = points.new_tensor([images.shape[-1], images.shape[-2]])
    grid = points * (2 / size) - 1
    if grid.dim() == 4:
        return F.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)
    count = grid.shape[1]
    if len(images) == 1 and count > _PART:  # grid_sample shares its work between threads by pictures
        parts = -(-count // _PART)
        grid = F.pad(grid, (0, 0, 0, parts * _PART - count)).view(parts, 1, _PART, 2)
        out = F.grid_sample(images.expand(parts, -1, -1, -1), grid, mode=mode, padding_mode=padding, align_corners=False)
        return out.transpose(0, 1).reshape(1, out.shape[1], -1)[..., :count]
    return F.grid_sample(images, grid[:, None], mode=mode, padding_mode=padding, align_corners=False)[:, :, 0]


def sample_each(images: Tensor, points: Tensor, frame: Tensor) -> Tensor:
    """Read square images (F, C, U, U), or one for all (1, C, U, U), at pixel positions (P, 2) of frames (P,): (P, C); borders repeated."""
    if len(images) > 1:  # as one tall picture, in which every point finds its own frame's
        size = images.shape[-1]
        points = torch.stack([points[:, 0], points[:, 1].clamp(0.5, size - 0.5) + frame * size], -1)
    return sample(images.transpose(0, 1).flatten(1, 2)[None], points[None])[0].T


def unit(vectors: Tensor) -> Tensor:
    """Unit vectors along the last dimension of three; several times as fast as `functional.normalize` there."""
    x, y, z = vectors.unbind(-1)
    return vectors * torch.rsqrt((x * x + y * y + z * z).clamp_min(1e-20))[..., None]


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of the pixels, (height, width, 2) x, y."""
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def blur(images: Tensor, radius: int, rounds: int = 3) -> Tensor:
    """Near-Gaussian blur by repeated box averages of the given radius (sigma is about radius for three rounds).

    Wide blurs run on a reduced picture: what they leave is smooth enough to be enlarged again.
    """
    if radius < 1:
        return images
    step = radius // 4
    if step > 1:
        small = F.interpolate(images, [max(n // step, 1) for n in images.shape[-2:]], mode="area")
        return F.interpolate(blur(small, round(radius / step), rounds), images.shape[-2:], mode="bilinear", align_corners=False)
    for _ in range(rounds):
        images = _box(_box(images, radius, -1), radius, -2)
    return images


def _box(images: Tensor, radius: int, dim: int) -> Tensor:
    """Mean over 2 * radius + 1 pixels along a dimension, border repeated: sums of 1, 2, 4 .. pixels, put together (faster than pooling)."""
    width, size = 2 * radius + 1, images.shape[dim]
    part = F.pad(images, (radius, radius, 0, 0) if dim == -1 else (0, 0, radius, radius), mode="replicate")
    total, covered, reach = part.narrow(dim, 0, size), 1, 1  # the width is odd
    while 2 * reach < width:
        count = part.shape[dim] - reach
        part = part.narrow(dim, 0, count) + part.narrow(dim, reach, count)
        reach *= 2
        if width & reach:
            total = total + part.narrow(dim, covered, size)
            covered += reach
    return total / width


def dilate(images: Tensor, radius: int) -> Tensor:
    """Maximum over a square of 2 * radius + 1 pixels; erosion is `-dilate(-images, radius)`."""
    width = 2 * radius + 1
    for dim in (-1, -2):
        images = F.pad(images, (radius, radius, 0, 0) if dim == -1 else (0, 0, radius, radius), mode="replicate")
        reach = 1  # pixels each value is the maximum of, doubled until it is the width
        while reach < width:
            shift = min(reach, width - reach)
            size = images.shape[dim] - shift
            images = torch.maximum(images.narrow(dim, 0, size), images.narrow(dim, shift, size))
            reach += shift
    return images


def halve(images: Tensor) -> Tensor:
    """Mean of 2 x 2 pixels; an odd border is repeated."""
    height, width = images.shape[-2:]
    images = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate") if (width | height) % 2 else images
    rows = images[..., ::2, :] + images[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


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
        levels.append((halve(value), halve(amount)))
    value, amount = levels[-1]
    total = amount.sum((-2, -1), keepdim=True).clamp_min(1e-12)
    filled = (value.sum((-2, -1), keepdim=True) / total).expand_as(value)
    for value, amount in reversed(levels[1:]):
        coarse = F.interpolate(filled, value.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.lerp(coarse, value / amount.clamp_min(1e-6), amount.clamp(0, 1))
    coarse = F.interpolate(filled, images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(coarse, images, weight.clamp(0, 1))


def signed_distance(mask: Tensor, limit: int) -> Tensor:
    """Distance to the border of masks (F, 1, H, W) in pixels, exact up to `limit`, negative inside; partly covered pixels place the border
    between pixels."""
    inside = mask > 0.5
    outwards, inwards = _distance(torch.stack([inside, ~inside]), limit)
    distance = outwards - inwards
    return torch.where(distance.abs() <= 1, 0.5 - mask, distance - 0.5 * distance.sign())


def _distance(target: Tensor, limit: int) -> Tensor:
    """Euclidean distance of every pixel to the nearest True, up to `limit`: along columns by running maxima, then across them."""
    row = torch.arange(target.shape[-2], dtype=torch.float32, device=target.device)[:, None]
    above = torch.where(target, row, -torch.inf).cummax(-2).values
    below = torch.where(target, row, torch.inf).flip(-2).cummin(-2).values.flip(-2)
    within = torch.minimum(row - above, below - row).clamp(max=limit).square()
    nearest = within.clone()
    for shift in range(1, min(limit, target.shape[-1])):
        reached = within + shift * shift
        for there, here in ((slice(shift, None), slice(None, -shift)), (slice(None, -shift), slice(shift, None))):
            torch.minimum(nearest[..., here], reached[..., there], out=nearest[..., here])
    return nearest.sqrt()
