"""What every test may use: a real portrait and its fit, made once, and the test media that dev.py unpacks from registry packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported; spinning threads starve each other on a busy machine

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, HeadModel, cli
from dynamicface.generator.network import Generator, GeneratorConfig
from dynamicface.io.pictures import write_image

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT / ".cache" / "media"


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


@pytest.fixture(scope="session")
def pipeline() -> FacePipeline:
    """The shipped networks and head model."""
    return FacePipeline.load()


@pytest.fixture(scope="session")
def head(pipeline) -> HeadModel:
    """The shipped head model."""
    return pipeline.head


@pytest.fixture(scope="session")
def portrait() -> Tensor:
    """(1, 512, 512, 3): the photograph of an astronaut that comes with scikit-image."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's photograph")
    return torch.from_numpy(data.astronaut().astype(np.float32) / 255)[None]


@pytest.fixture(scope="session")
def track(pipeline, portrait) -> FaceTrack:
    """The portrait's face."""
    return pipeline.track(portrait)


@pytest.fixture(scope="session")
def fitted(pipeline, portrait, track) -> FacePrior:
    """The portrait's face, taken apart. Never changed in place."""
    return pipeline.fit(portrait, track)


@pytest.fixture(scope="session")
def photo(tmp_path_factory, portrait) -> Path:
    """The portrait as a file, for the command line."""
    path = tmp_path_factory.mktemp("photos") / "portrait.png"
    write_image(path, portrait)
    return path


@pytest.fixture
def run(monkeypatch, pipeline, capsys):
    """run("edit", ..) -> exit code, standard output, error stream; the weights are loaded once for all tests."""
    monkeypatch.setattr(FacePipeline, "load", classmethod(lambda cls, device="cpu": pipeline))

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def tiny() -> Generator:
    """A tiny generator of the real layout with random weights everywhere, so that what starts at zero is at work too."""
    torch.manual_seed(0)
    config = GeneratorConfig(widths=(16, 32), depths=(1, 1), attention=(False, True), head_dim=16, guider_width=8, tokens=4, token_dim=32)
    generator = Generator(config)
    for parameter in generator.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def benchmarks():
    """The benchmarks' modules by name, imported without the repository's root on the path."""
    for package in ("skimage", "scipy"):
        pytest.importorskip(package, reason="the benchmarks' tools are not installed")
    if "benchmarks" not in sys.modules:
        folder = ROOT / "benchmarks"
        spec = importlib.util.spec_from_file_location("benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["benchmarks"])
    return lambda name: importlib.import_module(f"benchmarks.{name}")
