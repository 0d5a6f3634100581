"""Domain objects that travel between the stages. Shapes, units and axes: `conventions.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from .filters import sample
from .images import invert, transform

if TYPE_CHECKING:
    from .io.clips import Clip


@dataclass(frozen=True)
class FaceTrack:
    """One person through F frames, in plate pixels."""

    image_size: tuple[int, int]  # (H, W) of the plate
    boxes: Tensor  # (F, 4) x0 y0 x1 y1
    landmarks: Tensor  # (F, 478, 3) x, y in px; z in px, growing away from the viewer (MediaPipe's)
    presence: Tensor  # (F,) 0..1, the landmark net's own score; 0 = no face in this frame (values are held from a neighbour)
    embedding: Tensor | None = None  # (D,) unit identity vector of the person, averaged over the best frames
    agreement: Tensor | None = None  # (F,) 0..1, how far two readings of the landmarks from different crops agree; None = not measured
    cuts: Tensor | None = None  # (F,) bool, True where a new shot begins; None = one shot

    def __len__(self) -> int:
        return len(self.landmarks)


@dataclass(frozen=True)
class Identity:
    """Who the person is: constant over a clip."""

    shape: Tensor  # (S,) shape coefficients, unit variance
    albedo: Tensor | None = None  # (3, U, U) linear RGB, light removed
    albedo_weight: Tensor | None = None  # (1, U, U) 0..1, how well each texel was seen
    embedding: Tensor | None = None  # (D,) unit identity vector


@dataclass(frozen=True)
class Filmed:
    """The background factor: the plate and the face as it was fitted in it."""

    plate: Tensor | Clip  # (F, H, W, C); a clip on disk is read window by window: it has a tensor's shape, and indexing it gives tensors
    prior: FacePrior  # fitted in this plate; its own background is None
    matte: Tensor | None = None  # (F, h, w) 0..1 person against background over the whole plate, any resolution


@dataclass(frozen=True)
class FacePrior:
    """A face taken apart: identity, expression, pose, illumination, background, for F frames."""

    identity: Identity
    expression: Tensor  # (F, 52)
    gaze: Tensor  # (F, 2, 2) radians
    rotation: Tensor  # (F, 3, 3)
    translation: Tensor  # (F, 3) metres
    focal: Tensor  # (F,) px of the plate
    illumination: Tensor  # (F, 9, 3)
    offset: Tensor  # (F, 478, 3) metres, model space: where the landmarks were seen beside the fitted model
    confidence: Tensor  # (F,) 0..1
    image_size: tuple[int, int]  # (H, W) of the plate
    background: Filmed | None = None
    cuts: Tensor | None = None  # (F,) bool, True where a new shot begins; None = one shot

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def filmed(self) -> FacePrior:
        """The face as fitted in the background plate; this prior itself when nothing was replaced."""
        return self if self.background is None else self.background.prior

    def replace(self, **changes) -> FacePrior:
        """A copy with some factors replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class FaceCrop:
    """Where the working crop lies in the plate, per frame."""

    matrix: Tensor  # (F, 2, 3) plate to crop
    size: int  # the crop is size x size

    @property
    def inverse(self) -> Tensor:
        """(F, 2, 3) crop to plate."""
        return invert(self.matrix)


@dataclass(frozen=True)
class FaceMask:
    """A mask in crops around the face: small, and steady on the face however it moves."""

    crop: FaceCrop
    values: Tensor  # (F, S, S) 0..1

    def at(self, points: Tensor) -> Tensor:
        """Values (F, K) at plate positions (F, K, 2) px; 0 outside of the crops."""
        inside = transform(points, self.crop.matrix.to(points)) * (self.values.shape[-1] / self.crop.size)
        return sample(self.values[:, None], inside, padding="zeros")[:, 0]

    def frames(self, index: Tensor | slice) -> FaceMask:
        """The masks of some frames."""
        return FaceMask(FaceCrop(self.crop.matrix[index], self.crop.size), self.values[index])
