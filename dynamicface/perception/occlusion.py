"""Occlusion net: what of a face's crop is something in front of the face. Ours, small, trained on portraits of nobody real.

It never sees colours as such: it is shown how far, in log colour, each pixel lies from the lit mean face of the fit, and which place of
the face the pixel is (`occlusion.py`). So exposure, skin tone and light do not matter, and a brow is not compared with a cheek.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 14
_WIDTHS = (12, 24, 48, 64)


class Pair(nn.Sequential):
    """Two 3x3 convolutions, each normalised."""

    def __init__(self, c_in: int, c_out: int) -> None:
        layers = []
        for width in (c_in, c_out):
            layers += [nn.Conv2d(width, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class OcclusionNet(nn.Module):
    """Evidence (N, 14, S, S), S a multiple of 8, to logits (N, 1, S, S): above 0 something is in front of the face."""

    size = 128

    def __init__(self) -> None:
        super().__init__()
        pairs = zip((CHANNELS, *_WIDTHS[:-1]), _WIDTHS, strict=True)
        self.down = nn.ModuleList(Pair(*widths) for widths in pairs)
        self.across = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(_WIDTHS))
        self.up = nn.ModuleList(Pair(width, width) for width in _WIDTHS[:-1])
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, evidence: Tensor) -> Tensor:
        x, levels = evidence.to(self.head.weight.dtype).contiguous(memory_format=torch.channels_last), []
        for stage in self.down:
            x = stage(x if not levels else F.max_pool2d(x, 2))
            levels.append(x)
        for level, across, stage in reversed(list(zip(levels[:-1], self.across, self.up, strict=True))):
            x = stage(level + F.interpolate(across(x), scale_factor=2, mode="bilinear", align_corners=False))
        return self.head(x).float()
