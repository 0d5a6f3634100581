"""Moving library objects between devices, with the meta device standing in for a GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="module")
def models(comfy):
    package = comfy.nodes["DynamicFace_TrackFaces"].__module__.rpartition(".")[0]
    return sys.modules[f"{package}.host.models"]


@dataclass(frozen=True)
class Leaf:
    value: Tensor
    size: tuple[int, int] = (3, 4)


@dataclass(frozen=True)
class Pair:
    first: Leaf
    second: Leaf
    plate: Tensor


def test_what_was_shared_stays_shared(models):
    """An unchanged identity is recognised by being the same object, so a move must not split it."""
    leaf = Leaf(torch.ones(2))
    moved = models._move(Pair(leaf, leaf, leaf.value), torch.device("meta"), {})
    assert moved.first is moved.second and moved.plate is moved.first.value
    assert moved.plate.device.type == "meta" and moved.first.size == (3, 4)


def test_nothing_is_copied_without_need(models):
    pair = Pair(Leaf(torch.ones(2)), Leaf(torch.ones(2)), torch.ones(1))
    assert models._move(pair, torch.device("cpu"), {}) is pair


def test_a_plate_is_not_held_twice(models):
    plate = torch.ones(5)
    working = models._move(Pair(Leaf(torch.ones(2)), Leaf(torch.ones(2)), plate), torch.device("meta"), {})
    back = models._move(working.plate, torch.device("cpu"), {id(working.plate): plate})
    assert back is plate


def test_room_is_made_for_each_tensor_once(models):
    leaf = Leaf(torch.ones(2))
    assert models._bytes((Pair(leaf, leaf, leaf.value), None, 3), set()) == 8


def test_networks_are_moved_by_comfyui(models):
    """The perception networks are those of a ModelPatcher that ComfyUI knows as loaded."""
    import comfy.model_management as mm

    networks = models.perception()
    loaded = [entry.model.model for entry in mm.current_loaded_models]
    assert any(networks.landmarks in module.children() for module in loaded)
