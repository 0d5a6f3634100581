"""A tiny network of the real layout, with weights that are anything but neutral, for the mechanics."""

from __future__ import annotations

import pytest
import torch

from dynamicface.generator.network import Generator, GeneratorConfig

TINY = GeneratorConfig(widths=(16, 32), depths=(1, 1), attention=(False, True), head_dim=16, guider_width=8, tokens=4, token_dim=32)


def stir(generator: Generator, seed: int = 0) -> Generator:
    """Random weights everywhere, so that what starts at zero is at work too."""
    torch.manual_seed(seed)
    for parameter in generator.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny() -> Generator:
    return stir(Generator(TINY))


@pytest.fixture
def pictures() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    composite = torch.rand(3, 3, 32, 32, generator=draw) * 2 - 1
    guides = {name: torch.rand(3, 3, 32, 32, generator=draw) for name in TINY.guiders}
    return {
        "composite": composite,
        "mask": torch.ones(3, 1, 32, 32),
        "guides": guides,
        "embedding": torch.nn.functional.normalize(torch.randn(3, 1024, generator=draw), dim=-1),
        "shape": torch.randn(3, 80, generator=draw),
        "reference": torch.rand(3, 3, 32, 32, generator=draw) * 2 - 1,
    }
