"""Fuse a picture with its aligned neighbours over time, scale by scale.

Flicker is low and wide, detail is high and fine: each band of a Laplacian pyramid has its own temporal reach, long for low bands, short
for high ones, and its own judgement of which neighbours agree with it. What disagrees by more than the clip's own noise (something
moved that the flow did not follow) is left out, as in non-local means (Buades et al. 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import blur, halve

_COARSEST = 12  # px, shorter side of the last band
_TOLERANCE = 1.5  # squared difference over its usual value up to which a neighbour counts fully
_FALL = 1.0  # how fast it loses weight above
_NOISE_SAMPLES = 4096
_LEAST = (1 / 255) ** 2  # squared difference of a band that never counts as disagreement


@dataclass(frozen=True)
class Neighbour:
    """A frame of the window, carried to the frame that is worked on."""

    distance: int  # frames away, sign = direction
    picture: Tensor  # (1, C, H, W)
    sure: Tensor  # (1, 1, H, W) 0..1, where it shows the same material


def laplacian(images: Tensor, levels: int) -> list[Tensor]:
    """Bands of images (N, C, H, W), finest first; the last one is what remains. They sum up to the images: :func:`collapse`."""
    bands = []
    for _ in range(levels - 1):
        low = halve(images)
        bands.append(images - _enlarge(low, images))
        images = low
    return [*bands, images]


def collapse(bands: Sequence[Tensor]) -> Tensor:
    """The images that have these bands."""
    images = bands[-1]
    for band in reversed(bands[:-1]):
        images = band + _enlarge(images, band)
    return images


def level_count(height: int, width: int) -> int:
    """Bands of a picture of this size."""
    count = 1
    while min(height, width) > 2 * _COARSEST:
        height, width, count = (height + 1) // 2, (width + 1) // 2, count + 1
    return count


def reach(radius: float, protect: float, levels: int) -> list[float]:
    """Temporal standard deviation of each band, in frames: the coarsest reaches the radius, the finest (1 - protect) of it."""
    share = [1 - protect * (1 - k / max(levels - 1, 1)) for k in range(levels)]
    return [0.7 * radius * part for part in share]


def fuse(picture: Tensor, neighbours: Sequence[Neighbour], region: Tensor, radius: float, protect: float) -> Tensor:
    """What fusing adds to a picture (1, C, H, W): a correction of the same shape, exactly 0 where nothing agrees with it.

    region (1, 1, H, W) 0..1: where the usual difference between neighbours is judged. protect 0..1 shortens the reach of fine bands.
    """
    if not neighbours:
        return torch.zeros_like(picture)
    levels = level_count(*picture.shape[-2:])
    differences = [laplacian(other.picture - picture, levels) for other in neighbours]
    sure = [_halvings(other.sure, levels) for other in neighbours]
    regions = _halvings(region, levels)
    corrections = []
    for k, sigma in enumerate(reach(radius, protect, levels)):
        unlike = [_patch_energy(bands[k]) for bands in differences]
        usual = usual_energy(
            [energy for energy, other in zip(unlike, neighbours, strict=True) if abs(other.distance) == 1] or unlike[:1], regions[k]
        )
        usual = usual.clamp_min(_LEAST)
        total, mass = torch.zeros_like(differences[0][k]), 1.0
        for other, bands, energy, seen in zip(neighbours, differences, unlike, sure, strict=True):
            near = math.exp(-0.5 * (other.distance / max(sigma, 1e-3)) ** 2)
            weight = near * seen[k] * agreement(energy, usual)
            total, mass = total + weight * bands[k], mass + weight
        corrections.append(total / mass)
    return collapse(corrections)


def agreement(energy: Tensor, usual: Tensor) -> Tensor:
    """Weight 0..1 of squared differences of which `usual` is the ordinary one."""
    return torch.exp(-_FALL * F.relu(energy / usual - _TOLERANCE))


def usual_energy(energies: Sequence[Tensor], region: Tensor) -> Tensor:
    """The median of squared differences (1, 1, h, w) over a region, of the calmest neighbour; scalar, above 0."""
    step = max(int((region.numel() / _NOISE_SAMPLES) ** 0.5), 1)
    inside = region[..., ::step, ::step] > 0.5
    medians = [energy[..., ::step, ::step][inside].median() for energy in energies if inside.any()]
    return torch.stack(medians).amin().clamp_min(1e-10) if medians else region.new_tensor(1e-10)


def _patch_energy(difference: Tensor) -> Tensor:
    """(1, 1, h, w) mean square over channels and 5 x 5 pixels."""
    return blur(difference.square().mean(1, keepdim=True), 2, 1)


def _halvings(images: Tensor, levels: int) -> list[Tensor]:
    out = [images]
    for _ in range(levels - 1):
        out.append(halve(out[-1]))
    return out


def _enlarge(images: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(images, like.shape[-2:], mode="bilinear", align_corners=False)
