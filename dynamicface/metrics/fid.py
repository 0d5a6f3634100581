"""Fréchet inception distance (Heusel et al. 2017) with the network of the original FID, read from the user's folder.

Pictures are enlarged to 299 px as pytorch-fid does; checked against it with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frechet import frechet_distance
from .networks import load_network

FILE = "inception_fid.safetensors"
RECIPE = (
    "python tools/to_safetensors.py pt_inception-2015-12-05-6726825d.pth --out inception_fid.safetensors "
    "(the weights that pytorch-fid and torch-fidelity use)."
)
_SIDE = 299


class InceptionFeatures(nn.Module):
    """Pictures (F, H, W, 3), 0..1, to features (F, 2048): Inception v3 as ported from TensorFlow for the FID."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _C(128), _C(160), _C(160), _C(192)
        self.Mixed_7a = _D(768)
        self.Mixed_7b, self.Mixed_7c = _E(1280, _mean_pool), _E(2048, _max_pool)

    @classmethod
    def load(cls, folder: str | Path) -> InceptionFeatures:
        """Read `FILE` of a folder. Raises WeightsError with how to make it."""
        return load_network(cls(), folder, FILE, RECIPE)

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures[..., :3].permute(0, 3, 1, 2).clamp(0, 1)
        x = 2 * F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", align_corners=False) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def fid(a: Tensor, b: Tensor) -> float:
    """FID of two sets (N, 2048) and (M, 2048) of `InceptionFeatures`. Below some thousand pictures a side it is biased upwards."""
    return frechet_distance(a, b)


class _Conv(nn.Module):
    def __init__(self, wide_in: int, wide_out: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0):
        super().__init__()
        self.conv = nn.Conv2d(wide_in, wide_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(wide_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _row(wide_in: int, wide_out: int, taps: int) -> _Conv:
    return _Conv(wide_in, wide_out, (1, taps), padding=(0, taps // 2))


def _column(wide_in: int, wide_out: int, taps: int) -> _Conv:
    return _Conv(wide_in, wide_out, (taps, 1), padding=(taps // 2, 0))


def _mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


class _A(nn.Module):
    def __init__(self, wide: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(wide, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Conv(wide, 48, 1), _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(wide, 64, 1), _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(wide, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_mean_pool(x))], 1)


class _B(nn.Module):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(wide, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(wide, 64, 1), _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class _C(nn.Module):
    def __init__(self, narrow: int) -> None:
        super().__init__()
        wide = 768
        self.branch1x1 = _Conv(wide, 192, 1)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = _Conv(wide, narrow, 1), _row(narrow, narrow, 7), _column(narrow, 192, 7)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Conv(wide, narrow, 1), _column(narrow, narrow, 7)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _row(narrow, narrow, 7), _column(narrow, narrow, 7)
        self.branch7x7dbl_5 = _row(narrow, 192, 7)
        self.branch_pool = _Conv(wide, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_mean_pool(x))], 1)


class _D(nn.Module):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Conv(wide, 192, 1), _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Conv(wide, 192, 1), _row(192, 192, 7)
        self.branch7x7x3_3, self.branch7x7x3_4 = _column(192, 192, 7), _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class _E(nn.Module):
    def __init__(self, wide: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.branch1x1 = _Conv(wide, 320, 1)
        self.branch3x3_1, self.branch3x3_2a, self.branch3x3_2b = _Conv(wide, 384, 1), _row(384, 384, 3), _column(384, 384, 3)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(wide, 448, 1), _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _row(384, 384, 3), _column(384, 384, 3)
        self.branch_pool, self._pool = _Conv(wide, 192, 1), pool

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        split = [self.branch3x3_2a(three), self.branch3x3_2b(three), self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *split, self.branch_pool(self._pool(x))], 1)
