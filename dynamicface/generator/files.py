"""Weight files of the embedded generator: safetensors whose metadata states the network, so that any trained size loads by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import WeightsError
from ..weights import FOLDER, registry, verified_bytes
from .network import Generator, GeneratorConfig

FORMAT = "dynamicface-generator-1"
EMBEDDED = "generator"  # id of the shipped weights in the registry


def embedded_path() -> Path | None:
    """The shipped weights, checked against the registry; None where the pack ships none."""
    row = registry().get(EMBEDDED)
    if row is None:
        return None
    path = FOLDER / row.file
    verified_bytes(path, row.size, row.sha256)
    return path


def save_generator(path: str | Path, generator: Generator, notes: Mapping[str, str] | None = None) -> None:
    """Write fp16 weights. notes: further metadata, e.g. data, steps and licence of the training."""
    state = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in generator.state_dict().items()}
    save_file(state, str(path), {"format": FORMAT, "config": json.dumps(asdict(generator.config)), **(notes or {})})


def read_generator(path: str | Path | None = None) -> tuple[GeneratorConfig, dict[str, Tensor], dict[str, str]]:
    """Network description, tensors as stored, and metadata of a weight file; None = the shipped one.

    Raises WeightsError: no such file, not safetensors, truncated, another model's file, or tensors that do not fit the description.
    """
    path = Path(path) if path is not None else embedded_path()
    if path is None:
        raise WeightsError(
            "This copy of DynamicFace ships no generator weights. Train some (`python -m dynamicface train`) or give a file."
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no weight file {path}.") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error}); it is truncated or another format. Copy it again.") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is not a DynamicFace generator: its metadata says format {metadata.get('format', 'nothing')!r}, expected {FORMAT!r}. "
            "Checkpoints of other models are loaded with ComfyUI's own loaders."
        )
    config = _config(path, metadata.get("config", ""))
    with torch.device("meta"):
        expected = Generator(config).state_dict()
    wrong = sorted(set(expected) ^ set(state)) or sorted(name for name, value in state.items() if value.shape != expected[name].shape)
    if wrong:
        raise WeightsError(f"{path} does not fit the network it describes: {len(wrong)} tensors differ, the first is {wrong[0]}.")
    return config, state, metadata


def load_generator(path: str | Path | None = None, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Generator:
    """The network of a weight file, ready to run. Raises as :func:`read_generator`."""
    config, state, _ = read_generator(path)
    with torch.device("meta"):
        generator = Generator(config)
    generator.load_state_dict({name: value.to(device, dtype) for name, value in state.items()}, assign=True)
    return generator.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _config(path: Path, text: str) -> GeneratorConfig:
    known = {field.name for field in fields(GeneratorConfig)}
    try:
        found = json.loads(text)
        return GeneratorConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in found.items() if name in known})
    except (ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} does not describe its network: the metadata entry 'config' is not valid ({error}).") from error
