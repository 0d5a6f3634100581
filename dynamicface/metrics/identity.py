"""Who is it: cosines of identity vectors, retrieval from a gallery, steadiness over a clip. Vectors come from any identity net."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DynamicFaceError


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine (..,) of identity vectors (.., D); 1 = the same person, around 0.5 and below = strangers to the embedded net."""
    return F.cosine_similarity(a, b, dim=-1)


def nearest(queries: Tensor, gallery: Tensor) -> Tensor:
    """(N,) which of a gallery's people (G, D) each query (N, D) is most like, by cosine."""
    return (F.normalize(queries, dim=-1) @ F.normalize(gallery, dim=-1).mT).argmax(-1)


def id_error(queries: Tensor, gallery: Tensor, wanted: Tensor) -> float:
    """Share 0..1 of queries (N, D) whose nearest person of the gallery (G, D) is not the wanted one (N,): the paper's ID-Error.

    Raises DynamicFaceError for an empty gallery or a wanted person who is not in it.
    """
    if len(gallery) == 0 or len(queries) == 0:
        raise DynamicFaceError(f"ID-Error needs queries and a gallery; there are {len(queries)} queries and {len(gallery)} people.")
    if int(wanted.min()) < 0 or int(wanted.max()) >= len(gallery):
        raise DynamicFaceError(f"A wanted person is not in the gallery of {len(gallery)}: numbers run from 0 to {len(gallery) - 1}.")
    return float((nearest(queries, gallery) != wanted.to(gallery.device)).float().mean())


def identity_drift(vectors: Tensor) -> Tensor:
    """(F,) how far the face of each frame (F, D) is from the clip's mean identity, 1 - cosine."""
    unit = F.normalize(vectors, dim=-1)
    return 1 - cosine(unit, unit.mean(0, keepdim=True))


def identity_variance(vectors: Tensor) -> float:
    """Spread 0..1 of the identity over a clip (F, D): the circular variance 1 - |mean of the unit vectors|; 0 = one person throughout."""
    return float(1 - torch.linalg.vector_norm(F.normalize(vectors, dim=-1).mean(0)))
