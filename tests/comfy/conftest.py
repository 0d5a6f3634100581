"""One ComfyUI for the whole test session."""

from __future__ import annotations

import pytest
from comfy_in_process import Comfy, boot


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Comfy:
    return boot({kind: tmp_path_factory.mktemp(f"comfy_{kind}") for kind in ("input", "output", "temp")})
