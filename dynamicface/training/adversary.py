"""The detail stream's opponent: a small patch discriminator (pix2pix, arXiv:1611.07004) with spectral norm and hinge losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """(B, 6, H, W): picture in -1..1 and expression map, to features of three layers and verdicts (B, 1, H/8, W/8)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = ((6, width), (width, 2 * width), (2 * width, 4 * width))
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in sizes)
        self.verdict = spectral_norm(nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, picture: Tensor, expression: Tensor) -> tuple[list[Tensor], Tensor]:
        x, layers = torch.cat([picture, expression], 1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            layers.append(x)
        return layers, self.verdict(x)


def judge_loss(judge: PatchDiscriminator, found: Tensor, target: Tensor, expression: Tensor) -> Tensor:
    """Hinge loss of the discriminator itself."""
    fake, real = judge(found.detach(), expression)[1], judge(target, expression)[1]
    return F.relu(1 + fake).mean() + F.relu(1 - real).mean()


def deceive_loss(judge: PatchDiscriminator, found: Tensor, target: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
    """What the generator is asked for: the verdict on its pictures, and the distance of the features they raise."""
    layers, verdict = judge(found, expression)
    with torch.no_grad():
        wanted = judge(target, expression)[0]
    return -verdict.mean(), sum((a - b).abs().mean() for a, b in zip(layers, wanted, strict=True)) / len(layers)
