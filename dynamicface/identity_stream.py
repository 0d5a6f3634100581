"""The identity stream on Stable Diffusion: an identity embedding becomes tokens that every cross-attention reads.

Two published forms, under the names of their files:
- Face-Adapter's ID2Token: the embedding through a transformer decoder with learned queries; its tokens take the place of the prompt's.
- IP-Adapter-FaceID: the embedding through an MLP; its tokens are read by keys and values of their own, added to what the prompt says, and
  the file brings low-rank changes of every attention's projections.

Both were trained on ArcFace's 512 numbers. The embedded identity network has 1024 and does not fit them; the embedded generator has a Face
Former of its own (`generator.network`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import DynamicFaceError

_HEAD = 64  # width of an attention head in ID2Token
_LORA = re.compile(r"^ip_adapter\.(\d+)\.(to_q|to_k|to_v|to_out)_lora\.(up|down)\.weight$")
_IP = re.compile(r"^ip_adapter\.(\d+)\.to_([kv])_ip\.weight$")


@dataclass(frozen=True)
class IdentityTokens:
    """What cross-attention reads. Attentions are numbered as diffusers does: down, up, then middle blocks."""

    tokens: Tensor  # (1, T, D)
    unconditional: Tensor | None = None  # (1, T, D) for the unconditional half; None = it reads the prompt only
    projections: tuple[tuple[Tensor, Tensor], ...] | None = None  # (C, D) key and value weights by cross-attention; None = the prompt's own
    instead: bool = False  # True: they take the prompt's place by their weight; False: they are added to what it says
    low_rank: Mapping[tuple[int, str], tuple[Tensor, Tensor]] | None = None  # (attention, projection) -> up (C, r), down (r, C)


class ID2Token(nn.Module):
    """(B, E) -> (B, Q, D): Face-Adapter's decoder over learned queries, under its file's names."""

    def __init__(self, embedding: int = 512, dim: int = 768, queries: int = 77, layers: int = 3) -> None:
        super().__init__()
        self.id_proj = nn.Linear(embedding, dim)
        self.query = nn.Parameter(torch.zeros(1, queries, dim))
        self.id2t = nn.TransformerDecoder(nn.TransformerDecoderLayer(dim, dim // _HEAD or 1, batch_first=True), layers)

    def forward(self, embedding: Tensor) -> Tensor:
        said = self.id_proj(embedding)[:, None]
        return self.id2t(self.query.expand(len(said), -1, -1), said)


class FaceIDProjection(nn.Module):
    """(B, E) -> (B, T, D): IP-Adapter-FaceID's MLP, under its file's names."""

    def __init__(self, embedding: int = 512, dim: int = 768, tokens: int = 4) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(embedding, 2 * embedding), nn.GELU(), nn.Linear(2 * embedding, dim * tokens))
        self.norm = nn.LayerNorm(dim)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.norm(self.proj(embedding).unflatten(-1, (-1, self.norm.normalized_shape[0])))


@torch.inference_mode()
def id2token(state: Mapping[str, Tensor], embedding: Tensor) -> IdentityTokens:
    """Tokens of an embedding (E,) by an ID2Token file's tensors."""
    dim, numbers = state["id_proj.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("id2t.layers."))
    network = ID2Token(numbers, dim, state["query"].shape[1], layers).eval()
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return IdentityTokens(network(_fitting(embedding, numbers)[None]), instead=True)


@torch.inference_mode()
def face_id(state: Mapping[str, Tensor], embedding: Tensor) -> IdentityTokens:
    """Tokens of an embedding (E,) by an IP-Adapter-FaceID file's tensors."""
    numbers, dim = state["image_proj.proj.0.weight"].shape[1], len(state["image_proj.norm.weight"])
    network = FaceIDProjection(numbers, dim, len(state["image_proj.proj.2.bias"]) // dim).eval()
    network.load_state_dict({name.removeprefix("image_proj."): v.float() for name, v in state.items() if name.startswith("image_proj.")})
    embedding = _fitting(embedding, numbers)[None]
    own: dict[int, dict[str, Tensor]] = {}
    low_rank: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, value in state.items():
        if found := _IP.match(name):
            own.setdefault(int(found[1]), {})[found[2]] = value
        elif found := _LORA.match(name):
            low_rank.setdefault((int(found[1]), found[2]), {})[found[3]] = value
    return IdentityTokens(
        network(embedding),
        network(torch.zeros_like(embedding)),
        tuple((own[number]["k"], own[number]["v"]) for number in sorted(own)),
        low_rank={place: (pair["up"], pair["down"]) for place, pair in low_rank.items()},
    )


def _fitting(embedding: Tensor, numbers: int) -> Tensor:
    """The unit embedding, if it has as many numbers as a file was trained on."""
    if embedding.numel() != numbers:
        raise DynamicFaceError(
            f"The identity file reads {numbers} numbers per face (ArcFace's), but the identity stream carries {embedding.numel()}: "
            "the embedded identity network is another one. Give Identity Stream an ArcFace embedding file, or remove the identity file."
        )
    return F.normalize(embedding.flatten().float().cpu(), dim=0)


def purify(conditional: Tensor, unconditional: Tensor, scale: float, alpha: float) -> Tensor:
    """Identity guidance purification: v_c + (scale - 1)(alpha d_par + d_orth / alpha), with d = v_c - v_u split along v_c per frame.

    alpha > 1 strengthens what guidance adds along the prediction and damps what it adds across it; alpha = 1 is classifier-free guidance.
    Predictions (F, ...) of velocity or noise, not of the clean picture. Training-free; after DreamID-V.
    """
    d, axis = (conditional - unconditional).flatten(1), conditional.flatten(1)
    along = (d * axis).sum(1, keepdim=True) / axis.square().sum(1, keepdim=True).clamp_min(1e-12) * axis
    return conditional + ((scale - 1) * (alpha * along + (d - along) / alpha)).view_as(conditional)
