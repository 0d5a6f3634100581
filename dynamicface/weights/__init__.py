"""The weights shipped with the pack: a registry (`registry.json`) and a loader that trusts nothing.

Every file is safetensors and has a row with its source, licence, size and sha256. A file is hashed once per process, before it
is parsed, so a truncated download or an altered file is reported as a sentence instead of surfacing as a wrong picture.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from ..errors import WeightsError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One weight file."""

    id: str
    file: str
    source: str  # package and version the weights come from, or the script that made them
    source_file: str  # the file inside that package
    licence: str
    commercial: bool
    sha256: str
    size: int  # bytes
    converted: str  # how the file was made
    note: str = ""


@cache
def registry() -> dict[str, Row]:
    """Every shipped weight file by id."""
    rows = json.loads((FOLDER / "registry.json").read_text(encoding="utf-8"))
    return {row["id"]: Row(**row) for row in rows}


@cache
def verified_bytes(path: Path, size: int, sha256: str) -> bytes:
    """The content of a weight file after checking its size and hash."""
    repair = "Reinstall the DynamicFace pack (or restore the file from its repository)."
    if not path.is_file():
        raise WeightsError(f"The weight file {path} is missing; it should be {size:,} bytes. {repair}")
    content = path.read_bytes()
    if len(content) != size:
        raise WeightsError(f"The weight file {path} has {len(content):,} bytes instead of {size:,}; it is truncated or altered. {repair}")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(f"The weight file {path} was altered: its sha256 is {found}, expected {sha256}. {repair}")
    return content


def load_weights(id: str, folder: Path = FOLDER) -> dict[str, Tensor]:
    """Tensors of a registered weight file, floating point ones as float32; what is stored in double precision stays so.

    Raises:
        WeightsError: no such row, or the file is missing, truncated or altered.
    """
    if id not in registry():
        raise WeightsError(f"There is no weight file called {id!r}; the registry has {', '.join(registry())}.")
    row = registry()[id]
    tensors = parse_safetensors(verified_bytes(folder / row.file, row.size, row.sha256))
    return {name: t.float() if t.is_floating_point() and t.dtype != torch.float64 else t for name, t in tensors.items()}


def load_module(module: nn.Module, id: str) -> nn.Module:
    """Fill a network with its registered weights and freeze it."""
    module.load_state_dict(load_weights(id))
    return module.eval().requires_grad_(False)
