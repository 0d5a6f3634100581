"""Lock a frame's colours and place to what its neighbours say they are.

The consensus is the plate plus the neighbours' differences from the plate, carried along the plate's flow: it follows every real change
of light and motion. Against it a frame's own gain and offset per channel (exposure and colour flicker) and its own small similarity
(crop jitter) are measured over the whole face at once, and undone. Nothing is blurred: a frame is only regraded and moved.

The mean of shaken frames is itself a little out of place, by the mean of their shakes, and wanders as the window moves on. The plate does
not: the consensus is put back onto it as far as the shaking explains that it lies elsewhere (:func:`anchor`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..filters import blur, halve, pixel_grid, sample
from .flow import LUMA, resize

LOCK_SIZE = 256  # px, longest side of the picture on which a correction is measured
_GAIN = 0.5, 2.0  # a frame's contrast is never changed by more
_STILL = 0.04  # px; smaller jitter is measurement noise, and moving a frame costs sharpness
_MOST = 6.0  # px at LOCK_SIZE; more is not jitter
_STEPS = 6  # Gauss-Newton steps on each scale, at most
_ENOUGH = 0.01  # px; a step this small was the last
_SCALES = 2  # the picture halved, then as it is
_LEAN = 1e-3  # widths of the picture; by so much another face than the plate's seems to lie elsewhere, though it does not
_LIKELY = 2  # standard deviations


@dataclass(frozen=True)
class Correction:
    """What brings one frame in line."""

    gain: Tensor  # (3,) multiplies
    offset: Tensor  # (3,) is added
    motion: Tensor  # (4,) similarity: shift x, y in widths of the picture, then cos - 1 and sin parts, about the centre of the face
    centre: Tensor  # (2,) x, y of that centre in 0..1 of the picture

    def apply(self, picture: Tensor) -> Tensor:
        """A picture (1, 3, H, W) regraded and moved; where it already fits it is not resampled."""
        height, width = picture.shape[-2:]
        if float(self.motion.abs().max()) > 0:
            at = moved(pixel_grid(height, width, picture), self.motion, self.centre, (height, width))
            picture = sample(picture, at[None], mode="bicubic")
        return picture * self.gain[:, None, None] + self.offset[:, None, None]


def measure(picture: Tensor, consensus: Tensor, weight: Tensor) -> Correction:
    """The correction that takes a picture (1, 3, H, W) to the consensus where weight (1, 1, H, W) looks."""
    height, width = picture.shape[-2:]
    scale = min(LOCK_SIZE / max(height, width), 1.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    picture, consensus, weight = (resize(images, size) for images in (picture, consensus, weight))
    gain, offset = regrade(picture, consensus, weight)
    graded = picture * gain[:, None, None] + offset[:, None, None]
    motion, centre = register(graded, consensus, weight)
    return Correction(gain, offset, motion, centre)


def anchor(consensus: Tensor, plate: Tensor, weight: Tensor, wander: Tensor) -> Tensor:
    """Similarity (4,) that puts a consensus (1, 3, h, w) back onto the plate; to be added to a motion onto the consensus.

    wander (4,): how far off the consensus may be, the variance of each number of its motion; without any shaking nothing is moved. Where
    the result shows somebody else, a registration onto the plate leans by about `_LEAN`: what is measured counts as much as it is the
    likelier cause, and never for more than shaking would explain. A face that was put elsewhere on purpose all but stays there.
    """
    lean = wander.new_tensor([_LEAN, _LEAN, 4 * _LEAN, 4 * _LEAN]).square()
    most = _LIKELY * wander.sqrt()
    return (wander / (wander + lean) * measure(consensus, plate, weight).motion).clamp(-most, most)


def regrade(picture: Tensor, consensus: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset (3,) per channel that take a picture to the consensus, compared coarsely so that grain and jitter do not count."""
    radius = max(max(picture.shape[-2:]) // 64, 1)
    a, b = blur(picture, radius), blur(consensus, radius)
    share = weight / weight.sum().clamp_min(1e-6)
    mean_a, mean_b = ((x * share).sum((0, 2, 3)) for x in (a, b))
    da, db = a - mean_a[:, None, None], b - mean_b[:, None, None]
    variance, covariance = ((x * share).sum((0, 2, 3)) for x in (da * da, da * db))
    gain = torch.where(variance > 1e-5, covariance / variance.clamp_min(1e-5), torch.ones_like(variance)).clamp(*_GAIN)
    known = weight.sum() >= 1
    gain = torch.where(known, gain, torch.ones_like(gain))
    return gain, torch.where(known, mean_b - gain * mean_a, torch.zeros_like(gain))


def register(picture: Tensor, consensus: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity (4,) and its centre (2,) under which a picture lies on the consensus (Lucas-Kanade, Gauss-Newton, coarse to fine)."""
    size = picture.new_tensor([picture.shape[-1], picture.shape[-2]])
    centre = (pixel_grid(*picture.shape[-2:], picture) * weight[0, 0, ..., None]).sum((0, 1)) / weight.sum().clamp_min(1e-6) / size
    motion = picture.new_zeros(4)
    luma = [(images[:, :3] * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True) for images in (picture, consensus)]
    layers = [torch.cat([*luma, weight], 1)]
    while len(layers) < _SCALES:
        layers.append(halve(layers[-1]))
    for level in reversed(layers):
        motion = _registered(*level.split(1, 1), motion, centre)
    pixels = float(motion[:2].norm() + motion[2:].norm() / 4) * picture.shape[-1]
    return (motion if _STILL < pixels < _MOST else torch.zeros_like(motion)), centre


def _registered(picture: Tensor, consensus: Tensor, weight: Tensor, motion: Tensor, centre: Tensor) -> Tensor:
    """A motion (4,) improved on lumas and weight (1, 1, h, w) of one scale."""
    height, width = picture.shape[-2:]
    grid = pixel_grid(height, width, picture)
    x, y = (grid / width - centre * grid.new_tensor([1, height / width])).unbind(-1)
    a, b = (blur(image, 1) - blur(image, 4) for image in (picture, consensus))  # light and shade do not move the face
    layers = torch.cat([a, *_gradient(a)], 1)
    for _ in range(_STEPS):
        here, gx, gy = sample(layers, moved(grid, motion, centre, (height, width))[None])[0]
        residual = b[0, 0] - here
        robust = weight[0, 0] / (1 + (residual / (1.5 * residual.abs().median().clamp_min(1e-6))).square())
        columns = (torch.stack([gx, gy, gx * x + gy * y, gy * x - gx * y]) * width).flatten(1)
        weighted = columns * robust.flatten()
        normal = weighted @ columns.mT
        ridge = normal.diagonal().mean().clamp_min(1e-8) * 1e-4
        step = torch.linalg.solve(normal + ridge * torch.eye(4).to(normal), weighted @ residual.flatten())
        motion = motion + step
        if float(step.abs().max()) * width < _ENOUGH:
            break
    return motion


def moved(grid: Tensor, motion: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the pixels (H, W, 2) of the corrected picture are read in the frame."""
    height, width = size
    x, y = (grid - centre * grid.new_tensor([width, height])).unbind(-1)
    shift_x, shift_y, stretch, turn = motion
    return grid + torch.stack([shift_x * width + stretch * x - turn * y, shift_y * width + stretch * y + turn * x], -1)


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y."""
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
