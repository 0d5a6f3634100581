"""From guides and streams to the embedded generator's conditions. Both hosts, the library and ComfyUI, steer through this page."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DynamicFaceError
from ..guiders import GUIDERS, Guidance
from ..guides import Guides
from ..images import sample_crops
from ..prior.camera import euler_from_rotation
from ..prior.geometry import face_crop
from ..streams import DetailStream, Fusion, IdentityStream, Mixture
from ..types import FacePrior
from .network import Conditions, Generator

SIZE = 256  # px, the working crop the embedded generator is trained at
ZOOM = 1.3  # and how tight it is (`prior.geometry.face_crop`)
_TRUSTED, _LOST, _LOWEST = 45.0, 80.0, 0.3


@dataclass(frozen=True)
class Steering:
    """Everything that steers one run of F frames, as pictures and values."""

    composite: Tensor  # (F, 3, S, S) -1..1
    mask: Tensor  # (F, 1, S, S) 0..1
    mixture: Mixture | None = None
    identity: IdentityStream | None = None
    detail: DetailStream | None = None
    yaw: Tensor | None = None  # (F,) degrees, of the composed head; picks the nearest reference
    strengths: tuple[float, float] = (1.0, 1.0)  # factors on the identity and the detail stream (`streams.Fusion`)

    def conditions(self, generator: Generator, like: Tensor | None = None) -> Conditions:
        """Run the guiders, the Face Former and the reference once; weight 0 is the same as absent, to the bit.

        like: a tensor of the device and dtype to compute with, where a host's differ from the weights'.
        """
        like = next(generator.parameters()) if like is None else like
        out = Conditions()
        guidances = [g for g in self.mixture.guidances if g.weight != 0] if self.mixture else []
        if guidances:
            maps = {g.name: self._fit(g.map).to(like) for g in guidances}
            out = generator.condition(maps, {g.name: self._fit(g.strength()).to(like) for g in guidances})
            ranges = {g.name: (1 - g.start, 1 - g.end) for g in guidances}
            window = torch.tensor([ranges.get(name, (1.0, 0.0)) for name in generator.config.guiders])
            out = out.replace(mode=self.mixture.mode, window=None if all(r == (1, 0) for r in ranges.values()) else window.to(like.device))
        who, weight = self.identity, 0.0 if self.identity is None else self.identity.weight * self.strengths[0]
        if weight:
            if who.embedding is None:
                raise DynamicFaceError("The embedded generator's identity stream needs an identity embedding; connect a fitted prior.")
            vectors = [None if v is None else v[None].to(like) for v in (who.embedding, who.shape)]
            out = out.replace(tokens=generator.face_former(*vectors), identity=like.new_tensor([weight]).float())
            out = out.replace(identity_window=_window(who, like.device))
        weight = 0.0 if self.detail is None else self.detail.weight * self.strengths[1]
        if weight:
            pictures = F.interpolate(self.detail.pictures.movedim(-1, 1), self.composite.shape[-2:], mode="bilinear", antialias=True)
            banks = generator.remember((pictures[:, :3] * 2 - 1).to(like))
            if len(pictures) > 1 and self.yaw is not None:
                nearest = self.detail.weights_for(self.yaw.to(pictures)).argmax(1)
                banks = tuple(bank[nearest.to(bank.device)] for bank in banks)
            out = out.replace(bank=tuple(b[:1] if len(pictures) > 1 and self.yaw is None else b for b in banks))
            out = out.replace(detail=like.new_tensor([weight]).float(), detail_window=_window(self.detail, like.device))
        return out

    def _fit(self, picture: Tensor) -> Tensor:
        """Bring a map or a mask to the working size."""
        size = self.composite.shape[-2:]
        if picture.shape[-1] == 1 or picture.shape[-2:] == size:
            return picture
        return F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)


def _window(stream: IdentityStream | DetailStream, device: torch.device) -> Tensor | None:
    """(2,) highest and lowest sigma of a stream that does not act all the time."""
    return None if (stream.start, stream.end) == (0, 1) else torch.tensor([1 - stream.start, 1 - stream.end], device=device)


def pose_confidence(yaw: Tensor) -> Tensor:
    """How far expression and light of a head turned by yaw (F,) degrees are trusted: 1 below 45, falling to 0.3 at 80."""
    return 1 - (1 - _LOWEST) * ((yaw.abs() - _TRUSTED) / (_LOST - _TRUSTED)).clamp(0, 1)


def full_mixture(guides: Guides) -> Mixture:
    """All five guiders at weight 1; expression and illumination fade on large yaw."""
    trust = pose_confidence(guides.yaw)
    return Mixture(
        tuple(
            Guidance(name, getattr(guides, name).movedim(-1, 1), confidence=trust if name in ("expression", "illumination") else None)
            for name in GUIDERS
        )
    )


def identity_stream(prior: FacePrior, weight: float = 1.0) -> IdentityStream:
    """Who a fitted prior says the person is."""
    return IdentityStream(prior.identity.embedding, prior.identity.shape, weight)


def detail_stream(prior: FacePrior, size: int = SIZE, weight: float = 1.0, most: int = 4) -> DetailStream:
    """Face crops of the plate a prior was fitted in: of a clip, up to `most` frames spread over its yaw."""
    if prior.background is None:
        raise DynamicFaceError("The detail stream needs the source's picture, but this prior carries no plate. Fit it from an image.")
    filmed = prior.filmed
    yaw = euler_from_rotation(filmed.rotation)[:, 0]
    pick = yaw.argsort()[torch.linspace(0, len(yaw) - 1, min(most, len(yaw))).round().long()]
    crop = face_crop(filmed, size, ZOOM)
    pictures = sample_crops(prior.background.plate[pick][..., :3], crop.matrix[pick], size)
    return DetailStream(pictures.movedim(1, -1).clamp(0, 1), yaw[pick], weight)


def steer(
    guides: Guides,
    mixture: Mixture | None = None,
    identity: IdentityStream | None = None,
    detail: DetailStream | None = None,
    fusion: Fusion | None = None,
) -> Steering:
    """Steering for the frames of guides rendered at the working size; the mixture defaults to all five guiders."""
    strengths = (fusion or Fusion()).strengths_of(guides, trained=SIZE)
    return Steering(
        composite=guides.composite.movedim(-1, 1).clamp(0, 1) * 2 - 1,
        mask=guides.mask[:, None],
        mixture=mixture or full_mixture(guides),
        identity=identity,
        detail=detail,
        yaw=guides.yaw,
        strengths=strengths,
    )
