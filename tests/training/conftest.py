"""Shards of made-up samples, and a run small enough for a test."""

from __future__ import annotations

import pytest
import torch

from dynamicface.training.config import TrainConfig
from dynamicface.training.data import write_shard
from dynamicface.training.losses import LossWeights
from dynamicface.training.views import KINDS, MAP_SIZE, MAPS, SIZE

TINY = {"widths": [16, 32], "depths": [1, 1], "attention": [False, True], "guider_width": 4, "tokens": 2, "token_dim": 32}


def made_up(seed: int) -> dict[str, torch.Tensor]:
    """A sample with a soft face in the middle whose composite is the target with its light and a few pixels wrong."""
    draw = torch.Generator().manual_seed(seed)

    def smooth(side: int) -> torch.Tensor:
        field = torch.rand(1, 3, 6, 6, generator=draw)
        return torch.nn.functional.interpolate(field, (side, side), mode="bicubic").clamp(0, 1)[0]

    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    mask = ((0.7 - (x * 1.3).hypot(y)) * 12).clamp(0, 1)[None]
    target = smooth(SIZE)
    composite = (target * (1 - 0.3 * mask) + 0.1 * mask * torch.rand(target.shape, generator=draw)).clamp(0, 1)
    angle = torch.linspace(0, 6.28, 478)
    pictures = {"target": target, "composite": composite, "reference": target.flip(-1), "mask": mask}
    pictures |= {name: smooth(SIZE if name == "expression" else MAP_SIZE) for name in MAPS}
    return {name: (picture * 255).round().byte() for name, picture in pictures.items()} | {
        "embedding": torch.nn.functional.normalize(torch.randn(1024, generator=draw), dim=-1).half(),
        "shape": torch.randn(80, generator=draw).half(),
        "yaw": torch.zeros(()),
        "landmarks": (torch.stack([angle.cos() * 60, angle.sin() * 80], -1) + SIZE / 2).half(),
        "kind": torch.tensor(seed % len(KINDS), dtype=torch.uint8),
    }


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder with two shards of four samples."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(2):
        write_shard(folder / f"{number}.safetensors", [made_up(4 * number + k) for k in range(4)])
    return folder


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """A run of six steps on a tiny network in full precision."""
    weights = LossWeights(features=1.0, identity=0.2)
    return TrainConfig(network=TINY, steps=6, batch=2, window=64, whole_every=1000, warmup=1, frame=64, precision="no", losses=weights)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A Stable Diffusion checkpoint of a few thousand weights, in diffusers' layout."""
    diffusers = pytest.importorskip("diffusers", reason="adapters are trained with diffusers")
    try:
        network, autoencoder = diffusers.UNet2DConditionModel, diffusers.AutoencoderKL  # imported only now
    except RuntimeError as error:
        pytest.skip(f"diffusers does not work here: {str(error).splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    blocks = {"block_out_channels": (32, 32), "layers_per_block": 1}
    unet = network(
        **blocks,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    vae = autoencoder(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
    )
    for name, part in {"unet": unet, "vae": vae, "scheduler": diffusers.DDPMScheduler()}.items():
        part.save_pretrained(folder / name)
    return folder
