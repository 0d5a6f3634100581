"""From stored samples to a batch: cut out the face, and spoil the question further in ways that cost too little to store.

- the composite gets coarser texture in places and a light that is a little wrong, inside the face;
- the mask is widened by a shifted copy of itself, so that it does not tell the face's contour;
- something may hide part of the face: it is in the answer and the question, and not in the mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import blur, dilate
from ..guiders import GUIDERS

_PICTURES = ("target", "composite", "reference", "mask", *GUIDERS)
_SHIFT = 8  # px the mask is shifted at most
_JITTER = 12  # px the window's centre strays from the face's


def as_batch(samples: dict[str, Tensor], window: int, draw: torch.Generator) -> dict[str, Tensor]:
    """Stored samples (`views.ViewMaker`, samples first) as floats, in a window of the face, spoiled.

    target, composite, reference (B, 3, w, w) in -1..1; the guides by name (B, 3, w, w) and mask (B, 1, w, w) in 0..1; embedding, shape,
    landmarks (B, 478, 2) in window px; kind (B,).
    """
    side = samples["target"].shape[-1]
    pictures = {name: samples[name].float() / 255 for name in _PICTURES}
    pictures = {n: x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear") for n, x in pictures.items()}
    landmarks = samples["landmarks"].float()
    if window < side:
        pictures, landmarks = _cut(pictures, landmarks, window, draw)
    pictures = _widen_mask(_hide(_relight(_coarsen(pictures, draw), draw), draw), draw)
    signed = {name: pictures[name] * 2 - 1 for name in ("target", "composite", "reference")}
    vectors = {name: samples[name].float() for name in ("embedding", "shape")}
    return pictures | signed | vectors | {"landmarks": landmarks, "kind": samples["kind"]}


def _cut(pictures: dict[str, Tensor], landmarks: Tensor, window: int, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    side = pictures["target"].shape[-1]
    centre = landmarks.mean(1) + (torch.rand(len(landmarks), 2, generator=draw) * 2 - 1) * _JITTER
    corner = (centre - window / 2).round().long().clamp(0, side - window)

    def cut(x: Tensor) -> Tensor:
        return torch.stack([one[:, y : y + window, x0 : x0 + window] for one, (x0, y) in zip(x, corner.tolist(), strict=True)])

    return {name: cut(x) for name, x in pictures.items()}, landmarks - corner[:, None]


def _coarsen(pictures: dict[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    """Blurred patches of texture in every third composite's face."""
    composite = pictures["composite"]
    coarse = blur(composite, 2, 2)
    amount = _blobs(composite, draw) * pictures["mask"] * _chosen(len(composite), 0.35, draw)
    return pictures | {"composite": torch.lerp(composite, coarse, amount)}


def _relight(pictures: dict[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    """A smooth field of colour over every third composite's face."""
    composite = pictures["composite"]
    field = F.interpolate(torch.randn(len(composite), 3, 3, 3, generator=draw), composite.shape[-2:], mode="bicubic", align_corners=True)
    level = torch.randn(len(composite), 3, 1, 1, generator=draw)
    gain = torch.exp((0.06 * field + 0.05 * level) * _chosen(len(composite), 0.35, draw) * pictures["mask"])
    return pictures | {"composite": (composite * gain).clamp(0, 1)}


def _hide(pictures: dict[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    """A piece of the next sample's picture in front of every eighth face."""
    target, mask = pictures["target"], pictures["mask"]
    shape = (_blobs(target, draw) > 0.5).to(target) * _chosen(len(target), 0.12, draw)
    shape = blur(shape, 1, 1)
    thing = target.roll(1, 0).flip(-1)
    hidden = {name: torch.lerp(pictures[name], thing, shape) for name in ("target", "composite")}
    background = torch.lerp(pictures["background"], thing * (1 - mask * (1 - shape)), shape)
    return pictures | hidden | {"background": background, "mask": mask * (1 - shape)}


def _widen_mask(pictures: dict[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    mask = pictures["mask"]
    shift = torch.randint(-_SHIFT, _SHIFT + 1, (len(mask), 2), generator=draw).tolist()
    moved = torch.stack([one.roll(by, (-2, -1)) for one, by in zip(mask, shift, strict=True)])
    wide = torch.maximum(mask, moved * (mask > 0).any(-1, keepdim=True))
    wide = torch.where(_chosen(len(mask), 0.3, draw) > 0, dilate(wide, 3), wide)
    wide = torch.lerp(mask, wide, _chosen(len(mask), 0.6, draw))
    return pictures | {"mask": wide, "background": pictures["background"] * (1 - wide)}


def _blobs(like: Tensor, draw: torch.Generator) -> Tensor:
    """(B, 1, H, W) soft patches, 0..1, over about a quarter of the picture."""
    field = F.interpolate(torch.randn(len(like), 1, 5, 5, generator=draw), like.shape[-2:], mode="bicubic", align_corners=True)
    return (field * 3 - 1.5).clamp(0, 1)


def _chosen(count: int, share: float, draw: torch.Generator) -> Tensor:
    """(count, 1, 1, 1) 1 for a share of the samples."""
    return (torch.rand(count, 1, 1, 1, generator=draw) < share).float()
