"""The benchmark's peer is what it says: diffusers' own pipeline runs every ControlNet, around the U-Net that the mixture steers."""

from __future__ import annotations

import builtins

import pytest
import torch

TINY = {"frames": 1, "size": 64, "steps": 1}


@pytest.fixture(scope="module")
def peers(benchmarks):
    module = benchmarks("controlnets")
    torch.manual_seed(0)
    try:
        return module.Peers(("normal", "pose"), shrink=8)
    except module.SkippedError as reason:
        pytest.skip(str(reason))


@torch.inference_mode()
def test_with_every_guide_off_both_sides_are_the_plain_pipeline(peers):
    given = peers.inputs(**TINY)
    plain = peers.alone(given)
    assert plain.shape == given.latents.shape
    assert torch.equal(peers.series(given, strength=0.0), plain)
    assert torch.equal(peers.mixture(given, strength=0.0), plain)


@torch.inference_mode()
def test_both_sides_steer_and_leave_the_network_as_it_was(peers):
    given = peers.inputs(**TINY)
    plain = peers.alone(given)
    for way in (peers.series, peers.mixture):
        steered = way(given)
        assert steered.shape == plain.shape and steered.isfinite().all()
        assert not torch.equal(steered, plain)
    assert torch.equal(peers.alone(given), plain)


@torch.inference_mode()
def test_every_controlnet_runs_at_every_step(peers):
    ran = []
    nets = [*peers.controls, peers.unet]
    hooks = [net.register_forward_hook(lambda *_, number=number: ran.append(number)) for number, net in enumerate(nets)]
    peers.series(peers.inputs(frames=1, size=64, steps=3))
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1, 2] * 3


def test_without_diffusers_the_table_says_what_to_install(benchmarks, monkeypatch):
    mixture, real = benchmarks("mixture"), builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == "diffusers":
            raise ModuleNotFoundError("No module named 'diffusers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    table = mixture.against_controlnets("cpu", 1, (1,))
    assert not table.rows
    assert "pip install diffusers" in table.note and "No module named 'diffusers'" in table.note
    assert table.missing.keys() == {"mixture.over_controlnets_1"}


@torch.inference_mode()
def test_the_table_holds_speed_and_memory_of_both(benchmarks, peers):
    table = benchmarks("mixture").against_controlnets("cpu", 1, (1, 2), **TINY, shrink=8)
    assert [row[0] for row in table.rows] == [1, 2]
    assert all(len(row) == len(table.columns) and min(row) > 0 for row in table.rows)
    assert all(row[-2] > row[-1] for row in table.rows)  # a ControlNet weighs more than a guider
    assert [figure.key for figure in table.figures] == ["mixture.over_controlnets_2"]
