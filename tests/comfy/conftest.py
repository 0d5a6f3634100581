"""One ComfyUI for the whole test session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from comfy_in_process import Comfy, boot

from dynamicface.generator.files import save_generator


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Comfy:
    return boot({kind: tmp_path_factory.mktemp(f"comfy_{kind}") for kind in ("input", "output", "temp")})


@pytest.fixture(scope="session")
def package(comfy) -> str:
    """The name ComfyUI loaded the pack under; its classes are those of this copy."""
    return comfy.nodes["DynamicFace_TrackFaces"].__module__.rpartition(".nodes.")[0]


@pytest.fixture(scope="session")
def input_photo(comfy, media) -> str:
    """Name of a photograph in ComfyUI's input folder."""
    shutil.copy(media("astronaut.png"), comfy.folders["input"] / "portrait.png")
    return "portrait.png"


@pytest.fixture(scope="module")
def tiny_weights(comfy, tiny) -> Path:
    """The tiny generator as a weight file in models/dynamicface."""
    import folder_paths

    folder = Path(folder_paths.get_folder_paths("dynamicface")[0])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "test_tiny.safetensors"
    save_generator(path, tiny)
    yield path
    path.unlink()
