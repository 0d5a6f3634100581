"""Random pictures for the tiny generator."""

from __future__ import annotations

import pytest
import torch

from dynamicface.guiders import GUIDERS


@pytest.fixture
def pictures() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    composite = torch.rand(3, 3, 32, 32, generator=draw) * 2 - 1
    guides = {name: torch.rand(3, 3, 32, 32, generator=draw) for name in GUIDERS}
    return {
        "composite": composite,
        "mask": torch.ones(3, 1, 32, 32),
        "guides": guides,
        "embedding": torch.nn.functional.normalize(torch.randn(3, 1024, generator=draw), dim=-1),
        "shape": torch.randn(3, 80, generator=draw),
        "reference": torch.rand(3, 3, 32, 32, generator=draw) * 2 - 1,
    }
