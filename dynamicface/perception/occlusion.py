"""Occlusion net: what of a face's crop is something in front of the face. Ours, small, trained on portraits of nobody real.

It never sees colours as such: it is shown how far, in log colour, each pixel lies from the lit mean face of the fit, and which place of
the face the pixel is (`occlusion.py`). So exposure, skin tone and light do not matter, and a brow is not compared with a cheek.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 17
_WIDTHS = (32, 48, 80, 112)


class Block(nn.Sequential):
    """3x3 convolutions, each normalised."""

    def __init__(self, *widths: int) -> None:
        layers = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class OcclusionNet(nn.Module):
    """Evidence (N, 17, S, S), S a multiple of 16, to logits (N, 1, S, S): above 0 something is in front of the face.

    The finest level works on 2 x 2 pixels at once, which costs a quarter and leaves the edges as they are.
    """

    size = 128

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([Block(4 * CHANNELS, _WIDTHS[0]), *(Block(fine, coarse, coarse) for fine, coarse in pairwise(_WIDTHS))])
        self.across = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(_WIDTHS))
        self.up = nn.ModuleList(Block(width, width) for width in _WIDTHS[:-1])
        self.head = nn.Conv2d(_WIDTHS[0], 4, 1)

    def forward(self, evidence: Tensor) -> Tensor:
        x = F.pixel_unshuffle(evidence.to(self.head.weight.dtype), 2).contiguous(memory_format=torch.channels_last)
        levels = []
        for stage in self.down:
            x = stage(x if not levels else F.max_pool2d(x, 2))
            levels.append(x)
        for level, across, stage in reversed(list(zip(levels[:-1], self.across, self.up, strict=True))):
            x = stage(level + F.interpolate(across(x), scale_factor=2, mode="bilinear", align_corners=False))
        return F.pixel_shuffle(self.head(x).float(), 2)
