"""What steers a generator, as plain values: the mixture of guidances, the identity stream, the detail stream and their fusion.

The nodes make these values; each host (the embedded model, the artist's checkpoint) says in its own file how it obeys them.

Fusion, the one rule. As trained, identity and detail share the work 3:7. What a viewer can see of a face is limited by the smaller of two
sizes: the side of its crop in the plate and in work. Each octave of that size over 512 px moves a tenth of the work from the identity
stream (low frequencies) to the detail stream (pores, wrinkles), each octave below moves it back:

    detail = clamp(0.7 + 0.1 log2(visible / 512), 0.4, 0.9)        identity = 1 - detail

A stream's strength is its share over its share as trained, so 3:7 means 1 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import DynamicFaceError
from .guiders import MODES, Guidance

if TYPE_CHECKING:
    from .guides import Guides

IDENTITY_SHARE, DETAIL_SHARE = 0.3, 0.7  # as trained
_REFERENCE = 512.0  # px
_PER_OCTAVE = 0.1
_LIMITS = (0.4, 0.9)
_YAW_WIDTH = 15.0  # degrees


@dataclass(frozen=True)
class Mixture:
    """Several attributes guided at once. mode: how the guiders' features are put together (`guiders.MixtureOfGuiders`)."""

    guidances: tuple[Guidance, ...]
    mode: str = "mixture"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise DynamicFaceError(f"There is no mixture mode {self.mode!r}; choose one of {', '.join(MODES)}.")


@dataclass(frozen=True)
class IdentityStream:
    """Low frequencies: who it is, read by cross-attention. At least one of embedding and shape is present."""

    embedding: Tensor | None = None  # (D,) unit identity vector
    shape: Tensor | None = None  # (S,) shape coefficients of the 3D prior, unit variance
    weight: float = 1.0  # 0 = absent
    start: float = 0.0  # share of sampling, 0..1
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.embedding is None and self.shape is None:
            raise DynamicFaceError("An identity stream needs an identity embedding or shape coefficients; connect a fitted prior.")


@dataclass(frozen=True)
class DetailStream:
    """High frequencies: pictures of the source person, read by reference attention."""

    pictures: Tensor  # (N, S, S, 3) face crops of one person, sRGB 0..1
    yaw: Tensor  # (N,) degrees
    weight: float = 1.0  # 0 = absent
    start: float = 0.0  # share of sampling, 0..1
    end: float = 1.0
    blocks: str = "all"  # which attention blocks read, one of `reference.BLOCKS`

    def __post_init__(self) -> None:
        if self.pictures.dim() != 4 or len(self.pictures) != len(self.yaw) or len(self.yaw) == 0:
            raise DynamicFaceError(
                f"A detail stream needs one yaw for each of its pictures, but has pictures {tuple(self.pictures.shape)} "
                f"and yaw {tuple(self.yaw.shape)}; make it from the source's guides."
            )

    def weights_for(self, yaw: Tensor) -> Tensor:
        """(F, N), rows sum to 1: how much each picture counts for target frames of the given yaw (F,); the nearest counts most."""
        away = (yaw[:, None] - self.yaw.to(yaw)[None]) / _YAW_WIDTH
        return torch.softmax(-0.5 * away**2, -1)


@dataclass(frozen=True)
class Fusion:
    """How identity and detail share the work. `identity` given: the artist's own shares instead of the rule."""

    identity: float | None = None  # 0..1 share of the identity stream; None = by the rule above

    def __post_init__(self) -> None:
        if self.identity is not None and not 0 <= self.identity <= 1:
            raise DynamicFaceError(f"The identity share must lie between 0 and 1, but it is {self.identity:g}.")

    def shares(self, plate: float, working: float) -> tuple[float, float]:
        """(identity, detail), sum 1, for a crop of `plate` px in the plate that is generated at `working` px."""
        if self.identity is not None:
            return self.identity, 1 - self.identity
        octaves = math.log2(max(min(plate, working), 1.0) / _REFERENCE)
        detail = min(max(DETAIL_SHARE + _PER_OCTAVE * octaves, _LIMITS[0]), _LIMITS[1])
        return 1 - detail, detail

    def strengths(self, plate: float, working: float) -> tuple[float, float]:
        """(identity, detail) factors on the streams' weights; (1, 1) at 3:7."""
        identity, detail = self.shares(plate, working)
        return identity / IDENTITY_SHARE, detail / DETAIL_SHARE

    def strengths_of(self, guides: Guides, trained: float = _REFERENCE) -> tuple[float, float]:
        """The strengths for the crop that guides live in (its median side in the plate over the frames); 1, 1 at the size trained at."""
        scale = torch.linalg.vector_norm(guides.crop.matrix[..., 0, :2], dim=-1).median()
        octaves = _REFERENCE / trained
        return self.strengths(guides.crop.size / float(scale) * octaves, guides.crop.size * octaves)
