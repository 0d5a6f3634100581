"""LPIPS 0.1 with AlexNet (Zhang et al. 2018): how different two pictures look. The weights come from the user's folder.

Checked against the authors' package with the same weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import same_shape
from .networks import load_network

FILE = "lpips_alex.safetensors"
RECIPE = (
    "python tools/to_safetensors.py alexnet-owt-7be5be79.pth lpips/weights/v0.1/alex.pth --out lpips_alex.safetensors "
    "(the first is torchvision's AlexNet, the second is in the Python package lpips)."
)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LAYERS = (  # torchvision's number, channels in and out, kernel, stride, padding, pooled before
    *((0, 3, 64, 11, 4, 2, False), (3, 64, 192, 5, 1, 2, True), (6, 192, 384, 3, 1, 1, True)),
    *((8, 384, 256, 3, 1, 1, False), (10, 256, 256, 3, 1, 1, False)),
)


class Lpips(nn.Module):
    """Pictures (F, H, W, 3), 0..1, to distances (F,); 0 = the same. Sides of at least 64 px."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({str(n): nn.Conv2d(a, b, k, s, p) for n, a, b, k, s, p, _ in _LAYERS})
        for number, (_, _, width, *_) in enumerate(_LAYERS):
            self.add_module(f"lin{number}", nn.ModuleDict({"model": nn.ModuleDict({"1": nn.Conv2d(width, 1, 1, bias=False)})}))
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    @classmethod
    def load(cls, folder: str | Path) -> Lpips:
        """Read `FILE` of a folder. Raises WeightsError with how to make it."""
        return load_network(cls(), folder, FILE, RECIPE)

    @torch.inference_mode()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        same_shape(a, b)
        x = torch.cat([a, b])[..., :3].permute(0, 3, 1, 2).clamp(0, 1)
        x = (2 * x - 1 - self.shift) / self.scale
        total = a.new_zeros(len(a))
        for number, (name, *_, pooled) in enumerate(_LAYERS):
            x = F.relu(self.features[str(name)](F.max_pool2d(x, 3, 2) if pooled else x))
            one, two = (x / (x.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
            total += getattr(self, f"lin{number}")["model"]["1"]((one - two).square()).mean((1, 2, 3))
        return total
