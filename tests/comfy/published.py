"""What the published networks answer: small ones with random weights, run by their authors' own code, against which ours are held.

`published.json` holds the answers, to five decimals, for the weights and inputs below:
animate_anyone  Moore-AnimateAnyone at a914ef3: pose guider, ReferenceNet, denoising U-Net with motion modules, guidance on, t = 500
face_id         IP-Adapter at 62e4af9: a U-Net with its attention processors, guidance on, t = 500
champ           champ at 02e5533: the first four channels of a guidance encoder
id2token        Face-Adapter at 6e31388
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from dynamicface.generator.adapters.layouts import layouts

WIDTHS = {"m": 32, "t": 64, "p": 8, "e": 16, "q": 5, "r": 4}
FRAMES = 3
_SEEDS = {"denoising": 1, "reference": 2, "guider": 3, "face_id": 4, "guider_champ": 5, "id2token": 6}
_PARTS = {"denoising": ("unet", "motion"), "reference": ("unet",)}
_WITHOUT = {"reference": ("conv_out", "conv_norm_out")}


def stirred(*names: str, seed: int = 0, without: tuple[str, ...] = (), **sizes: int) -> dict[str, Tensor]:
    """Random weights of these layouts at a tenth of their widths, or of other `sizes`."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name in names:
        for key, shape in layouts()[name].at(WIDTHS | sizes).items():
            if not (without and key.startswith(without)):
                scale = torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.1
                state[key] = torch.randn(shape, generator=draw) * scale + (len(shape) == 1 and "norm" in key)
    return state


def weights(what: str) -> dict[str, Tensor]:
    """The weights the published answers were made with."""
    return stirred(*_PARTS.get(what, (what,)), seed=_SEEDS[what], without=_WITHOUT.get(what, ()))


def inputs() -> dict[str, Tensor]:
    """The inputs the published answers were made with."""
    draw = torch.Generator().manual_seed(7)
    return {
        "x": torch.randn(FRAMES, 4, 8, 8, generator=draw),
        "clip": torch.randn(1, 64, generator=draw),
        "pose": torch.rand(FRAMES, 3, 64, 64, generator=draw),
        "source": torch.randn(1, 4, 8, 8, generator=draw),
        "prompt": torch.randn(2, 7, 64, generator=draw),
        "embedding": torch.nn.functional.normalize(torch.randn(1, 16, generator=draw)),
    }


def answer(name: str, *shape: int) -> Tensor:
    """A published network's answer."""
    return torch.tensor(json.loads(Path(__file__).with_suffix(".json").read_text())[name]).view(shape)
