"""The embedded generator's network: neutral at birth, obedient to each condition, indifferent to what is switched off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dynamicface.generator.network import Conditions, Generator, GeneratorConfig, grid_position
from dynamicface.guiders import GUIDERS


def run(net, pictures, conditions, sigma=0.7):
    noisy = pictures["composite"] * (1 - sigma) + sigma * torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return net(noisy, torch.full((3,), sigma), pictures["composite"], pictures["mask"], conditions)


def everything(net, pictures, **strength) -> Conditions:
    return net.condition(pictures["guides"], strength, pictures["embedding"], pictures["shape"], pictures["reference"])


def test_an_untrained_generator_returns_the_composite(tiny, pictures):
    net = Generator(tiny.config)
    out = run(net, pictures, everything(net, pictures))
    assert torch.equal(out, pictures["composite"])


@pytest.mark.parametrize("left_out", ["guides", "embedding", "reference"])
def test_every_condition_speaks(tiny, pictures, left_out):
    with torch.inference_mode():
        full = run(tiny, pictures, everything(tiny, pictures))
        conditions = {"guides": pictures["guides"], "embedding": pictures["embedding"], "reference": pictures["reference"]}
        conditions["shape"] = pictures["shape"]
        less = run(tiny, pictures, tiny.condition(**{k: v for k, v in conditions.items() if k != left_out}))
    assert (full - less).abs().mean() > 1e-4


@pytest.mark.parametrize("name", GUIDERS)
def test_weight_zero_is_the_guider_absent_to_the_bit(tiny, pictures, name):
    with torch.inference_mode():
        off = tiny.condition(pictures["guides"], {name: 0.0})
        absent = tiny.condition({k: v for k, v in pictures["guides"].items() if k != name})
        assert torch.equal(run(tiny, pictures, off), run(tiny, pictures, absent))
        assert not torch.equal(run(tiny, pictures, off), run(tiny, pictures, tiny.condition(pictures["guides"])))


def test_all_guiders_off_is_no_mixture_at_all(tiny, pictures):
    with torch.inference_mode():
        off = tiny.condition(pictures["guides"], dict.fromkeys(GUIDERS, 0.0))
        out = run(tiny, pictures, off)
        none = run(tiny, pictures, Conditions())
    assert torch.isfinite(out).all()
    # What remains of a silenced mixture are the biases of layers that read it.
    assert (out - none).abs().mean() < (run(tiny, pictures, tiny.condition(pictures["guides"])) - none).abs().mean()


@pytest.mark.parametrize(("stream", "needs"), [("identity", "tokens"), ("detail", "bank")])
def test_streams_of_weight_zero_are_absent_to_the_bit(tiny, pictures, stream, needs):
    with torch.inference_mode():
        conditions = everything(tiny, pictures)
        off = conditions.replace(**{stream: torch.zeros(1)})
        assert torch.equal(run(tiny, pictures, off), run(tiny, pictures, conditions.replace(**{needs: None})))
        assert torch.equal(run(tiny, pictures, conditions.replace(**{stream: torch.ones(1)})), run(tiny, pictures, conditions))


def test_a_guider_acts_only_inside_its_window(tiny, pictures):
    late = torch.tensor([[0.5, 0.0], *[[1.0, 0.0]] * 4])
    with torch.inference_mode():
        conditions = tiny.condition(pictures["guides"]).replace(window=late)
        without = tiny.condition(pictures["guides"], {"normal": 0.0})
        assert torch.equal(run(tiny, pictures, conditions, 0.7), run(tiny, pictures, without, 0.7))
        assert torch.equal(run(tiny, pictures, conditions, 0.3), run(tiny, pictures, tiny.condition(pictures["guides"]), 0.3))


@pytest.mark.parametrize(("stream", "needs"), [("identity", "tokens"), ("detail", "bank")])
def test_a_stream_acts_only_inside_its_window(tiny, pictures, stream, needs):
    with torch.inference_mode():
        conditions = everything(tiny, pictures)
        late = conditions.replace(**{f"{stream}_window": torch.tensor([0.5, 0.0])})
        assert torch.equal(run(tiny, pictures, late, 0.7), run(tiny, pictures, conditions.replace(**{needs: None}), 0.7))
        assert torch.equal(run(tiny, pictures, late, 0.3), run(tiny, pictures, conditions, 0.3))


@torch.inference_mode()
@pytest.mark.parametrize("detail", [None, 1.0, 0.4])
def test_what_the_steps_share_can_be_kept(tiny, pictures, detail):
    mask = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    unsure = torch.tensor([1.0, 0.0, 0.5])[:, None, None, None]  # a guider that is off in one frame of the clip
    conditions = everything(tiny, pictures, normal=mask, pose=unsure, illumination=0.0, background=-0.5)
    conditions = conditions.replace(detail=None if detail is None else torch.tensor([detail]))
    kept = tiny.keep(conditions)
    assert kept.features is kept.strength is None and kept.seen is not None
    torch.testing.assert_close(run(tiny, pictures, kept), run(tiny, pictures, conditions), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_kept_guider_of_weight_zero_is_absent_to_the_bit(tiny, pictures):
    off = tiny.keep(tiny.condition(pictures["guides"], {"pose": 0.0}))
    absent = tiny.keep(tiny.condition({k: v for k, v in pictures["guides"].items() if k != "pose"}))
    assert torch.equal(run(tiny, pictures, off), run(tiny, pictures, absent))


@torch.inference_mode()
def test_guiders_that_come_and_go_stay_with_the_steps(tiny, pictures):
    late = torch.tensor([[0.5, 0.0], *[[1.0, 0.0]] * 4])
    conditions = everything(tiny, pictures).replace(window=late, detail_window=torch.tensor([0.5, 0.0]))
    kept = tiny.keep(conditions)
    assert kept.features is conditions.features and kept.mixed is None
    for sigma in (0.7, 0.3):
        torch.testing.assert_close(run(tiny, pictures, kept, sigma), run(tiny, pictures, conditions, sigma), atol=1e-5, rtol=0)


def test_frames_do_not_talk_to_each_other(tiny, pictures):
    """A clip's frames are the batch: each comes out as it would alone."""
    with torch.inference_mode():
        together = run(tiny, pictures, everything(tiny, pictures))
        alone = {k: v[1:2] for k, v in pictures.items() if k != "guides"}
        alone["guides"] = {k: v[1:2] for k, v in pictures["guides"].items()}
        noisy = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))[1:2] * 0.7 + alone["composite"] * 0.3
        conditions = everything(tiny, alone)
        out = tiny(noisy, torch.full((1,), 0.7), alone["composite"], alone["mask"], conditions)
    torch.testing.assert_close(out[0], together[1], atol=2e-5, rtol=0)


def test_sizes(tiny):
    square = torch.zeros(1, 3, 48, 40)
    assert tiny(square, torch.ones(1), square, square[:, :1]).shape == square.shape
    with pytest.raises(ValueError, match="20 x 32; both sides must be multiples of 8"):
        odd = torch.zeros(1, 3, 32, 20)
        tiny(odd, torch.ones(1), odd, odd[:, :1])


def test_unknown_guiders_are_refused(tiny, pictures):
    with pytest.raises(ValueError, match="no guider named depth; it has normal"):
        tiny.condition({"depth": pictures["composite"]})


def test_places_mean_the_same_at_every_resolution():
    like = torch.zeros(1)
    coarse, fine = grid_position(4, 4, 32, like).view(4, 4, 32), grid_position(12, 12, 32, like).view(12, 12, 32)
    torch.testing.assert_close(coarse, fine[1::3, 1::3])


def test_half_precision_is_close(tiny, pictures):
    half = Generator(tiny.config).to(torch.bfloat16)
    half.load_state_dict(tiny.state_dict())
    cast = {k: v.bfloat16() for k, v in pictures.items() if k != "guides"} | {
        "guides": {k: v.bfloat16() for k, v in pictures["guides"].items()}
    }
    with torch.inference_mode():
        exact = run(tiny, pictures, everything(tiny, pictures))
        sigma = torch.full((3,), 0.7)
        noisy = pictures["composite"] * 0.3 + 0.7 * torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        rough = half(noisy.bfloat16(), sigma, cast["composite"], cast["mask"], everything(half, cast))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_the_default_network_is_small_enough_to_ship():
    with torch.device("meta"):
        count = sum(p.numel() for p in Generator(GeneratorConfig()).parameters())
    assert 2 * count < 20e6


def test_configs_are_values(tiny):
    assert replace(tiny.config, tokens=4) == tiny.config and tiny.config.multiple == 8
