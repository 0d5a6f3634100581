"""The embedded generator as a task of the loop."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..generator.files import save_generator
from ..generator.network import Conditions, Generator, GeneratorConfig
from ..guiders import GUIDERS
from ..perception import Perception
from .config import TrainConfig
from .losses import Criterion


class EmbeddedTask(nn.Module):
    """A random moment of the path from noise to picture, each condition left out now and then."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.config = config
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.network.items()}
        self.net = Generator(GeneratorConfig(**values)).to(device, memory_format=torch.channels_last)
        # Noise is not listened to at first: an untrained layer would drown the composite in it, and unlearning that takes most of a run.
        nn.init.zeros_(self.net.stem.weight[:, : 3 * self.net.config.patch**2])
        perception = Perception.load(device)
        self.criterion = Criterion(config.losses, perception.identity, perception.landmarks, config.frame).to(device)

    def forward(self, batch: dict[str, Tensor], seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """The loss's terms and the finished pictures (B, 3, H, W) of a batch of `data.Shards`. seed: of this step's noise and chances."""
        target, config = batch["target"], self.config
        draw = torch.Generator().manual_seed(seed)
        count = len(target)
        noise = torch.randn(target.shape, generator=draw).to(target)
        sigma = torch.rand(count, generator=draw)
        sigma = torch.where(torch.rand(count, generator=draw) < config.one_step, torch.ones(()), sigma).to(target)
        keep = (torch.rand(len(GUIDERS) + 1, count, generator=draw) >= config.drop).to(target)
        seen = float(torch.rand((), generator=draw)) < config.reference_share
        strength = {name: keep[k].view(-1, 1, 1, 1) for k, name in enumerate(GUIDERS)}
        conditions = self._conditions(self.net, batch, strength, seen).replace(identity=keep[-1])
        level = sigma.view(-1, 1, 1, 1)
        found = self.net((1 - level) * target + level * noise, sigma, batch["composite"], batch["mask"], conditions)
        return self.criterion(found, batch, sigma, draw), batch["composite"] + batch["mask"] * (found.float() - batch["composite"])

    def sheet(self, net: Generator, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns of pictures in -1..1: question, answer in one step, truth, reference."""
        target, composite = batch["target"], batch["composite"]
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).to(target)
        found = net(noise, target.new_ones(len(target)), composite, batch["mask"], self._conditions(net, batch, None, True)).float()
        done = composite + batch["mask"] * (found - composite)
        return {"composite": composite, "one step": done, "photograph": target, "reference": batch["reference"]}

    @staticmethod
    def export(net: Generator, folder: Path, facts: dict[str, str]) -> list[Path]:
        """Write the weights to sample with."""
        path = folder / "weights.safetensors"
        save_generator(path, net, facts)
        return [path]

    @staticmethod
    def _conditions(net: Generator, batch: dict[str, Tensor], strength: dict[str, Tensor] | None, seen: bool) -> Conditions:
        guides = {name: batch[name] for name in GUIDERS}
        return net.condition(guides, strength, batch["embedding"], batch["shape"], batch["reference"] if seen else None)
