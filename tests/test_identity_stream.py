"""Identity tokens from files of the two published layouts, and guidance purification."""

from __future__ import annotations

import pytest
import torch

from dynamicface import DynamicFaceError
from dynamicface.identity_stream import FaceIDProjection, ID2Token, face_id, id2token, purify


def filled(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) * 0.2 for name, value in module.state_dict().items()}


def test_id2token_has_the_published_size():
    with torch.device("meta"):
        state = ID2Token().state_dict()
    assert state["query"].shape == (1, 77, 768) and state["id_proj.weight"].shape == (768, 512)
    assert state["id2t.layers.2.self_attn.in_proj_weight"].shape == (2304, 768)
    assert ID2Token(8, 768, 1, 1).id2t.layers[0].self_attn.num_heads == 12


def test_id2token_reads_who():
    state = filled(ID2Token(16, 64, 5, 2))
    tokens = [id2token(state, torch.eye(16)[k]).tokens for k in range(2)]
    assert tokens[0].shape == (1, 5, 64)
    assert not torch.allclose(*tokens)
    assert torch.equal(id2token(state, torch.eye(16)[0] * 3).tokens, tokens[0])  # only the direction counts


def test_face_id_brings_its_own_keys_and_low_rank_changes():
    state = {f"image_proj.{name}": value for name, value in filled(FaceIDProjection(16, 64, 3)).items()}
    state |= {f"ip_adapter.{n}.to_{x}_ip.weight": torch.full((8, 64), float(n)) for n in (3, 1) for x in "kv"}
    state |= {f"ip_adapter.0.to_q_lora.{x}.weight": torch.ones(2, 2) for x in ("up", "down")}
    identity = face_id(state, torch.ones(16))
    assert identity.tokens.shape == identity.unconditional.shape == (1, 3, 64)
    assert [float(k[0, 0]) for k, _ in identity.projections] == [1.0, 3.0]
    assert identity.low_rank.keys() == {(0, "to_q")} and not identity.instead


def test_an_embedding_of_another_network_is_a_sentence():
    with pytest.raises(DynamicFaceError, match=r"reads 16 numbers .* carries 1024"):
        id2token(filled(ID2Token(16, 64, 5, 1)), torch.ones(1024))


def test_purification_at_one_is_plain_guidance():
    c, u = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(purify(c, u, 3.0, 1.0), u + 3.0 * (c - u))


def test_purification_strengthens_along_and_damps_across():
    c = torch.tensor([[2.0, 0.0]])
    u = torch.tensor([[1.0, -1.0]])  # d = (1, 1): one along c, one across
    torch.testing.assert_close(purify(c, u, 2.0, 2.0), torch.tensor([[4.0, 0.5]]))
