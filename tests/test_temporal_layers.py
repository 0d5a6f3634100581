"""Temporal layers: published names, frames that see each other, stills left alone."""

from __future__ import annotations

import pytest
import torch

from dynamicface import DynamicFaceError
from dynamicface.temporal_layers import TemporalLayer, TemporalLayers, attend


@pytest.fixture
def layer() -> TemporalLayer:
    torch.manual_seed(0)
    return TemporalLayer(32, length=8).eval()


def clip(frames: int, clips: int = 1) -> torch.Tensor:
    return torch.randn(clips * frames, 32, 3, 5, generator=torch.Generator().manual_seed(1))


def test_names_are_animatediffs(layer):
    names = set(layer.state_dict())
    block = "temporal_transformer.transformer_blocks.0"
    assert {
        f"{block}.attention_blocks.1.to_out.0.bias",
        f"{block}.attention_blocks.0.pos_encoder.pe",
        f"{block}.ff.net.0.proj.weight",
    } <= names
    assert {f"{block}.norms.1.weight", f"{block}.ff_norm.bias", "temporal_transformer.proj_in.weight"} <= names
    assert len(names) == 28


def test_a_still_is_left_alone(layer):
    x = clip(1, clips=3)
    assert layer(x, 1) is x


def test_frames_see_each_other_but_not_other_clips(layer):
    x = clip(4, clips=2)
    changed = x.clone()
    changed[0] += 1.0 + x[0]
    difference = (layer(changed, 4) - layer(x, 4)).detach().abs().flatten(1).amax(1)
    assert (difference[:4] > 0).all()
    assert difference[4:].max() == 0


def test_each_position_keeps_to_itself(layer):
    block = layer.temporal_transformer.transformer_blocks[0]
    x = clip(4).flatten(2).mT
    changed = x.clone()
    changed[0, 0] += 1.0 + x[0, 0]
    difference = (block(changed, 4, attend) - block(x, 4, attend)).detach().abs().amax(-1)
    assert (difference[:, 0] > 0).all()
    assert difference[:, 1:].max() == 0


def test_order_of_frames_matters(layer):
    x = clip(4)
    assert not torch.allclose(layer(x.flip(0), 4).flip(0), layer(x, 4), atol=1e-4)


def test_more_frames_than_places_is_a_sentence(layer):
    with pytest.raises(DynamicFaceError, match="know 8 frames at once, but the sampler gave them 9"):
        layer(clip(9), 9)


def test_state_round_trip(layer):
    names = ("down_blocks.0.motion_modules.1.", "mid_block.motion_modules.0.")
    state = {prefix + name: value for prefix in names for name, value in layer.state_dict().items()} | {"conv_in.weight": torch.zeros(1)}
    layers = TemporalLayers.from_state(state)
    assert layers.places == (("down_blocks.0", 1), ("mid_block", 0))
    assert torch.equal(layers.layers[1](clip(4), 4), layer(clip(4), 4))
