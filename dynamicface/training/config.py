"""What a training run is told: a JSON file, one of the shipped ones by name or any by path."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..errors import DynamicFaceError
from .losses import LossWeights

FOLDER = Path(__file__).parent / "configs"
_WHOLE = 1 << 30  # px: more than any picture has


@dataclass(frozen=True)
class TrainConfig:
    """A run. Shares of the run are 0..1 of `steps`."""

    model: str = "embedded"  # embedded or sd15 (adapters of a Stable Diffusion 1.5 checkpoint)
    base: str = ""  # of sd15: the checkpoint's folder, in diffusers' layout
    enlarge: int = 1  # of sd15: how many times the samples' pictures are enlarged
    network: dict = field(default_factory=dict)  # of embedded: fields of GeneratorConfig that differ from its defaults
    losses: LossWeights = field(default_factory=LossWeights)
    steps: int = 20_000
    batch: int = 16  # per process
    window: int = 192  # px: side of the square around the face ..
    whole_every: int = 4  # .. and every so many batches the whole pictures are taken instead; 1 = always
    learning_rate: float = 3e-4
    warmup: int = 100  # steps
    decay: float = 0.3  # share of the run at its end over which the rate falls to nothing
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999
    precision: str = "bf16"  # bf16 or no
    one_step: float = 0.85  # share of the samples that start from pure noise; the others anywhere
    drop: float = 0.1  # chance of each guider, and of the identity, to be left out of a sample
    reference_share: float = 0.9  # of the steps that see the reference
    frame: int = 160  # px: side at which the identity net judges
    judge_from: float = 1.0  # share of the run from which the discriminator takes part; 1 = never
    judge_rate: float = 2e-4
    workers: int = 0  # processes that read shards
    seed: int = 0
    save_minutes: float = 10.0
    sheet_minutes: float = 10.0
    compact: bool = False  # keep the state in half the bits: a third of the size, no longer exact to the bit

    @classmethod
    def load(cls, name: str | Path) -> TrainConfig:
        """A shipped configuration by name, or a file.

        Raises:
            DynamicFaceError: no such file, not JSON, or with settings that do not exist.
        """
        path = Path(name) if Path(name).suffix == ".json" else FOLDER / f"{name}.json"
        if not path.is_file():
            shipped = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
            raise DynamicFaceError(f"There is no training configuration {name!r}; give a .json file or one of {shipped}.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DynamicFaceError(f"{path} is not JSON ({error}); correct the file.") from error
        return cls.of(values, str(path))

    @classmethod
    def of(cls, values: dict, where: str = "the configuration") -> TrainConfig:
        """From plain values; settings that do not exist are refused."""
        _known(values, cls, where)
        losses = values.get("losses", {})
        _known(losses, LossWeights, where)
        return cls(**values | {"losses": LossWeights(**losses)})

    def plain(self) -> dict:
        """As JSON values."""
        return asdict(self)

    def window_at(self, number: int) -> int:
        """The side of the pictures of a batch, px, by its number."""
        return self.window if (number + 1) % self.whole_every else _WHOLE


def _known(values: dict, kind: type, where: str) -> None:
    unknown = sorted(set(values) - {f.name for f in fields(kind)})
    if unknown:
        raise DynamicFaceError(f"{where} sets {', '.join(unknown)}, which no training run has; see training/config.py for the settings.")
