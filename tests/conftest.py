"""What every test may use: the test media that dev.py unpacks from registry packages."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported; spinning threads starve each other on a busy machine

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

MEDIA = Path(__file__).resolve().parents[1] / ".cache" / "media"


@pytest.fixture(scope="session")
def media():
    """media("astronaut.png") -> its path; the test is skipped, with the reason, where the file could not be fetched."""

    def path(name: str) -> Path:
        if not (MEDIA / name).is_file():
            pytest.skip(f"test medium {name} is not in .cache/media: run `python dev.py setup` with a registry at hand")
        return MEDIA / name

    return path


@pytest.fixture(scope="session")
def photograph(media):
    """photograph("astronaut.png") -> (1, H, W, 3) float 0..1."""

    def load(name: str) -> Tensor:
        with Image.open(media(name)) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)[None]

    return load
