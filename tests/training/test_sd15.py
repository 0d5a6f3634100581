"""The same loop trains adapters of a Stable Diffusion checkpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dynamicface.errors import DynamicFaceError
from dynamicface.guiders import GUIDERS, GuiderStack
from dynamicface.training.loop import Trainer

pytest.importorskip("accelerate", reason="training needs accelerate")


def test_adapters_learn_and_the_checkpoint_stays(config, shards, checkpoint, tmp_path):
    config = replace(config, model="sd15", base=str(checkpoint), steps=3, learning_rate=1e-3)
    trainer = Trainer(config, shards, tmp_path, cpu=True)
    unet = trainer.accelerator.unwrap_model(trainer.task).frozen[0]
    frozen = {name: value.clone() for name, value in unet.state_dict().items()}
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    row = trainer.run()
    assert row["denoising"] > 0 and trainer.step == 3
    assert all(torch.equal(value, frozen[name]) for name, value in unet.state_dict().items())
    changed = {name.split(".")[0] for name, value in trainer.net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"guiders", "identity"}
    guider = GuiderStack(out_channels=32)
    guider.load_state_dict(load_file(tmp_path / f"guider_{GUIDERS[0]}.safetensors"))  # the published names
    assert guider.conv_out.weight.abs().max() > 0
    assert Trainer(config, shards, tmp_path, cpu=True).step == 3


def test_adapters_without_a_checkpoint_are_refused(config, shards, tmp_path):
    with pytest.raises(DynamicFaceError, match="diffusers' layout"):
        Trainer(replace(config, model="sd15"), shards, tmp_path, cpu=True)
