"""Identity embedding: HSE-FaceRes (MobileNet v1, arXiv:1704.04861) as a differentiable torch module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images import sample_crops, square_matrix
from .layers import Conv

MEAN_BGR = (103.939, 116.779, 123.68)


class Separable(nn.Module):
    """Depthwise and pointwise convolution, each with ReLU6."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = Conv(c_in, c_in, 3, stride, groups=c_in)
        self.pointwise = Conv(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.pointwise(F.relu6(self.depthwise(x))))


class IdentityNet(nn.Module):
    """Face crops (N, 3, 224, 224), RGB 0..1, to features (N, 1024)."""

    size = 224

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, 2)
        widths = ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2))
        widths += ((512, 512, 1),) * 5 + ((512, 1024, 2), (1024, 1024, 1))
        self.blocks = nn.Sequential(*(Separable(*w) for w in widths))
        self.register_buffer("mean", torch.tensor(MEAN_BGR)[:, None, None], persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        x = crops.to(self.stem.weight.dtype).clamp(0, 1).flip(1) * 255 - self.mean
        x = self.blocks(F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last))))
        return x.mean((2, 3)).float()

    def embed(self, images: Tensor, landmarks: Tensor, frame: Tensor | None = None) -> Tensor:
        """Frames (F, H, W, 3) and landmarks (N, 478, 3) to unit identity vectors (N, 1024); differentiable in the images.

        frame (N,): which frame each face is in; None means one face per frame, in order.
        """
        return F.normalize(self(sample_crops(images, identity_matrix(landmarks), self.size, frame)), dim=-1)


def identity_matrix(landmarks: Tensor) -> Tensor:
    """(F, 2, 3) PLATE to the identity crop: upright, centred on the face's bounding box."""
    eyes = landmarks[:, [263, 362], :2].mean(1) - landmarks[:, [33, 133], :2].mean(1)
    angle = torch.atan2(eyes[:, 1], eyes[:, 0])
    low, high = landmarks[..., :2].amin(1), landmarks[..., :2].amax(1)
    return square_matrix((low + high) / 2, (high - low).amax(-1) * 1.2, angle, IdentityNet.size)
