"""The library's networks and tensors under ComfyUI's memory management."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management as mm
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...dynamicface.generator.face_generator import FaceGenerator
from ...dynamicface.images import as_plate
from ...dynamicface.metrics import fid, lpips
from ...dynamicface.perception import Perception
from ...dynamicface.prior.head import HeadModel
from .folders import MODELS

T = TypeVar("T")

_WORKING_SPACE = 4  # memory of a step over the memory of its inputs


@cache
def _perception() -> tuple[Perception, ModelPatcher]:
    """The networks in main memory and the patcher through which ComfyUI moves them. Small, so they move together."""
    networks = Perception.load(device="cpu")
    module = nn.ModuleDict({field.name: getattr(networks, field.name) for field in fields(networks)})
    return networks, ModelPatcher(module, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def perception() -> Perception:
    """The perception networks, loaded onto ComfyUI's device for the work that follows."""
    networks, patcher = _perception()
    mm.load_models_gpu([patcher])
    return networks


def person_matte(images: Tensor, cuts: Tensor | None = None) -> Tensor:
    """(F, h, w) of the person in frames on ComfyUI's device; keeps edits of the light off the background. cuts: (F,) of a clip's track."""
    return perception().matte.coarse(as_plate(images), cuts)


@lru_cache(maxsize=2)
def _generator(path: str | None) -> tuple[FaceGenerator, ModelPatcher]:
    generator = FaceGenerator.load(path)
    return generator, ModelPatcher(generator.network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def face_generator(path: str | None) -> FaceGenerator:
    """The generator of a weight file (None = the shipped one), loaded onto ComfyUI's device for the work that follows."""
    generator, patcher = _generator(path)
    mm.load_models_gpu([patcher])
    return generator


_JUDGES = {"lpips": (lpips.FILE, lpips.Lpips), "inception": (fid.FILE, fid.InceptionFeatures)}


@lru_cache(maxsize=len(_JUDGES))
def _judge(name: str, folder: Path) -> tuple[nn.Module, ModelPatcher]:
    network = _JUDGES[name][1].load(folder)
    return network, ModelPatcher(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def judges() -> dict[str, nn.Module]:
    """The user's networks in models/dynamicface/networks that judge pictures, by name, on ComfyUI's device; only those that are there."""
    paths = {name: folder_paths.get_full_path(MODELS, f"networks/{file}") for name, (file, _) in _JUDGES.items()}
    found = {name: _judge(name, Path(path).parent) for name, path in paths.items() if path is not None}
    if found:
        mm.load_models_gpu([patcher for _, patcher in found.values()])
    return {name: network for name, (network, _) in found.items()}


@cache
def _head(device: torch.device) -> HeadModel:
    return HeadModel.load().to(device)


def head_model() -> HeadModel:
    """The embedded head on ComfyUI's device. Plain arrays of a few megabytes, kept: nothing to offload."""
    return _head(mm.get_torch_device())


def to_working_device(value: T) -> T:
    """A tensor or library object on the device ComfyUI computes on; room for it is made there first."""
    device = mm.get_torch_device()
    if device.type != "cpu":
        mm.free_memory(_WORKING_SPACE * _bytes(value, set()), device)
    return _move(value, device, {})


def to_graph_device(value: T, *unchanged: tuple[Tensor, Tensor]) -> T:
    """A tensor or library object where ComfyUI keeps values between nodes.

    unchanged: pairs (working copy, the graph's own tensor); the graph's own stands in for the copy, so a plate is never held twice.
    """
    return _move(value, mm.intermediate_device(), {id(working): original for working, original in unchanged})


def _bytes(value: Any, seen: set[int]) -> int:
    """Size of all tensors in a value, each counted once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, tuple):
        return sum(_bytes(item, seen) for item in value)
    return sum(_bytes(getattr(value, field.name), seen) for field in fields(value)) if is_dataclass(value) else 0


def _move(value: Any, device: torch.device, moved: dict[int, Any]) -> Any:
    """Copy to a device; what was one object (an identity shared by two priors) stays one, what need not move is returned itself."""
    if id(value) in moved:
        return moved[id(value)]
    result = value
    if isinstance(value, Tensor):
        result = value.to(device)
    elif isinstance(value, tuple) and any(is_dataclass(item) or isinstance(item, Tensor) for item in value):
        result = tuple(_move(item, device, moved) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: _move(getattr(value, field.name), device, moved) for field in fields(value)}
        if any(changes[name] is not getattr(value, name) for name in changes):
            result = replace(value, **changes)
    moved[id(value)] = result
    return result
