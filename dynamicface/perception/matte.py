"""Person matte: MediaPipe's selfie segmentation (MobileNetV3 encoder, gated decoder) as a torch module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images import sample_crops
from .layers import Conv

_BATCH = 16  # frames run at once


class Gate(nn.Module):
    """Squeeze and excitation: a weight per channel from the global mean."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze, self.excite = Conv(channels, hidden), Conv(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class InvertedResidual(nn.Module):
    """MobileNetV3 block (arXiv:1905.02244)."""

    def __init__(self, c_in: int, wide: int, c_out: int, kernel: int, stride: int, squeeze: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.expand = Conv(c_in, wide)
        self.depthwise = Conv(wide, wide, kernel, stride, groups=wide)
        self.gate = Gate(wide, squeeze) if squeeze else None
        self.project = Conv(wide, c_out)
        self.act = act()
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.depthwise(self.act(self.expand(x))))
        if self.gate is not None:
            y = y * self.gate(y)
        y = self.project(y)
        return x + y if self.residual else y


class Refine(nn.Module):
    """One decoder step: double the resolution, let the encoder's features in through a gate."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.reduce = Conv(c_in, c_out)
        self.gate = Gate(c_out, c_out)
        self.mix = Conv(c_out, c_out)
        self.depthwise = Conv(c_out, c_out, 3, groups=c_out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        y = self.reduce(F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False))
        y = F.relu(self.mix(fine * self.gate(fine + y) + y))
        return y + F.relu(self.depthwise(y))


class MatteNet(nn.Module):
    """Pictures (N, 3, 256, 256), RGB 0..1, to the matte (N, 256, 256) of the people in them."""

    size = 256

    def __init__(self) -> None:
        super().__init__()
        relu, swish = nn.ReLU, nn.Hardswish
        self.stem = Conv(3, 16, 3, 2)
        self.encode_64 = InvertedResidual(16, 16, 16, 3, 2, 8, relu)
        self.encode_32 = nn.Sequential(InvertedResidual(16, 72, 24, 3, 2, 0, relu), InvertedResidual(24, 88, 24, 3, 1, 0, relu))
        self.encode_16 = nn.Sequential(
            InvertedResidual(24, 96, 32, 5, 2, 24, swish),
            InvertedResidual(32, 128, 32, 5, 1, 32, swish),
            InvertedResidual(32, 128, 32, 5, 1, 32, swish),
            InvertedResidual(32, 96, 32, 5, 1, 24, swish),
            InvertedResidual(32, 96, 32, 5, 1, 24, swish),
        )
        self.context, self.context_gate = Conv(32, 128), Conv(32, 128)
        self.decode_32, self.decode_64, self.decode_128 = Refine(128, 24), Refine(24, 16), Refine(16, 16)
        self.head = nn.ConvTranspose2d(16, 1, 2, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures.to(self.head.weight.dtype).clamp(0, 1).contiguous(memory_format=torch.channels_last)
        at_128 = F.hardswish(self.stem(x))
        at_64 = self.encode_64(at_128)
        at_32 = self.encode_32(at_64)
        at_16 = self.encode_16(at_32)
        y = F.relu(self.context(at_16)) * self.context_gate(at_16.mean((2, 3), keepdim=True)).sigmoid()
        y = self.decode_128(self.decode_64(self.decode_32(y, at_32), at_64), at_128)
        return self.head(y).float().sigmoid().squeeze(1)

    @torch.inference_mode()
    def matte(self, images: Tensor) -> Tensor:
        """Frames (F, H, W, 3) to person mattes (F, H, W), 0..1."""
        return F.interpolate(self.coarse(images)[:, None], images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]

    @torch.inference_mode()
    def coarse(self, images: Tensor, cuts: Tensor | None = None) -> Tensor:
        """The mattes of whole frames at the network's own resolution (F, size, size): small, whatever the plate and the clip.

        cuts: (F,) bool, True where a new shot of a clip begins; given, every other frame has the mean of its neighbours' mattes, unless a
        cut parts them. Without it the frames may be unrelated photos, and every one is looked at.
        """
        if cuts is not None and len(images) > 2:
            return self._of_clip(images, cuts)
        step = max(1, min(images.shape[1:3]) // (2 * self.size))  # a large plate is read at every other pixel or fewer
        images = images[:, ::step, ::step]
        _, height, width, _ = images.shape
        stretch = torch.tensor([[self.size / width, 0, 0], [0, self.size / height, 0]], device=images.device)
        parts = images.split(_BATCH)
        return torch.cat([self(sample_crops(part, stretch.expand(len(part), -1, -1), self.size)) for part in parts])

    def _of_clip(self, images: Tensor, cuts: Tensor) -> Tensor:
        """:meth:`coarse` of a clip."""
        seen = self.coarse(images[::2])
        mattes = seen.repeat_interleave(2, 0)[: len(images)]
        mattes[1:-1:2] = (seen[:-1] + seen[1:]) / 2
        alone = F.pad(cuts[1:], (0, 1), value=True) | cuts
        alone[::2] = False
        for frame in alone.nonzero()[:, 0].tolist():
            mattes[frame] = self.coarse(images[frame : frame + 1])[0]
        return mattes
