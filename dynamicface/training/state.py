"""The state of a run as small safetensors files: weights, their running average, the optimizer's moments and the step."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import WeightsError

_LARGEST = 15 << 20  # bytes of a file


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """AdamW's moments and step counts by the parameter's number."""
    numbered = [p for group in optimizer.param_groups for p in group["params"]]
    return {f"{prefix}{i}.{name}": value for i, p in enumerate(numbered) for name, value in optimizer.state.get(p, {}).items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    numbered = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith(prefix):
            number, name = key[len(prefix) :].split(".", 1)
            parameter = numbered[int(number)]
            value = value.float() if value.is_floating_point() else value
            optimizer.state[parameter][name] = value if name == "step" else value.to(parameter.device)


def restore_module(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Load a module's share of the tensors; the float type follows the module."""
    mine = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    if missing := sorted(set(module.state_dict()) - set(mine)):
        raise WeightsError(f"The training state lacks {missing[0]} and {len(missing) - 1} more; it belongs to another network. Start anew.")
    module.load_state_dict(mine)


def write_state(folder: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write tensors into files of at most 15 MiB (a larger tensor has a file of its own) and the facts beside them as JSON.

    The JSON names the files and is replaced last, so an interrupted save leaves the state before it whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        if groups[-1] and filled + size > _LARGEST:
            groups.append({})
            filled = 0
        groups[-1][name] = value.detach().cpu().contiguous()
        filled += size
    before = set(folder.glob("*.safetensors"))
    paths = [folder / f"step{facts['step']:07d}-{number}.safetensors" for number in range(len(groups))]
    for path, group in zip(paths, groups, strict=True):
        save_file(group, path)
    index = folder / "state.json"
    unfinished = index.with_suffix(".part")
    unfinished.write_text(json.dumps(facts | {"files": [path.name for path in paths]}, indent=1), encoding="utf-8")
    unfinished.replace(index)
    for path in before - set(paths):
        path.unlink()


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """What :func:`write_state` wrote; None where there is none."""
    index = folder / "state.json"
    if not index.is_file():
        return None
    facts = json.loads(index.read_text(encoding="utf-8"))
    tensors: dict[str, Tensor] = {}
    for name in facts["files"]:
        tensors |= load_file(folder / name)
    return tensors, facts
