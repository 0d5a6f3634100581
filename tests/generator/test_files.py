"""Weight files: what is written loads again; what is something else gets its sentence."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynamicface.errors import WeightsError
from dynamicface.generator.files import FORMAT, load_generator, read_generator, save_generator


@pytest.fixture
def saved(tiny, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_generator(path, tiny, {"licence": "Apache-2.0"})
    return path


def test_round_trip(tiny, saved, pictures):
    config, state, metadata = read_generator(saved)
    assert config == tiny.config and metadata["licence"] == "Apache-2.0"
    assert all(value.dtype == torch.float16 for value in state.values())
    again = load_generator(saved)
    x = pictures["composite"]
    with torch.inference_mode():
        a, b = (net(x, torch.ones(3), x, pictures["mask"], net.condition(pictures["guides"])) for net in (tiny, again))
    assert (a - b).abs().max() < 0.02 * a.abs().max()


def test_bad_files(saved, tmp_path):
    with pytest.raises(WeightsError, match="There is no weight file"):
        read_generator(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        read_generator(cut)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="not a DynamicFace generator: its metadata says format 'nothing'"):
        read_generator(foreign)
    other = tmp_path / "other.safetensors"
    tensors = load_file(saved)
    config = json.dumps({"widths": [16, 48], "depths": [1, 1], "attention": [False, True], "tokens": 4, "token_dim": 32, "guider_width": 8})
    save_file(tensors, other, {"format": FORMAT, "config": config})
    with pytest.raises(WeightsError, match="does not fit the network it describes"):
        read_generator(other)
    save_file(tensors, other, {"format": FORMAT, "config": "{"})
    with pytest.raises(WeightsError, match="'config' is not valid"):
        read_generator(other)
