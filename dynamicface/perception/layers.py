"""Building blocks of the perception networks, written to reproduce TensorFlow's arithmetic.

All of them descend from MobileNet: a depthwise convolution looks around, a pointwise one mixes channels. TensorFlow's "SAME"
padding of a strided convolution puts the odd pixel right and below, which PyTorch's symmetric `padding=` cannot express.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding; strided ones expect even input sizes."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups, bias=bias)
        before = (kernel - stride) // 2
        self.pad = (before, kernel - stride - before) * 2 if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pad) if self.pad else x)


class BlazeBlock(nn.Module):
    """Depthwise 3x3, pointwise, residual, activation (BlazeFace, arXiv:1907.05047).

    A strided block max-pools its residual; a widening one adds it to the first channels only.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, prelu: bool = False) -> None:
        super().__init__()
        self.depthwise = Conv(c_in, c_in, 3, stride, groups=c_in, bias=False)
        self.pointwise = Conv(c_in, c_out)
        self.act = nn.PReLU(c_out) if prelu else nn.ReLU(inplace=True)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        skip = F.max_pool2d(x, 2) if self.stride == 2 else x
        if skip.shape[1] < y.shape[1]:
            skip = F.pad(skip, (0, 0, 0, 0, 0, y.shape[1] - skip.shape[1]))
        return self.act(y + skip)
