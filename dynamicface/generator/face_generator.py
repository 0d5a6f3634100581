"""The embedded generator on whole pictures: a composed prior in, the finished plate out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..composite import trust
from ..guides import Guides, render_guides
from ..paste import paste_back
from ..prior.estimate import select_frames
from ..prior.head import HeadModel
from ..skin import SwapLook
from ..streams import DetailStream, Fusion, IdentityStream, Mixture
from ..types import FacePrior
from ..windows import windows
from .files import load_generator
from .network import Generator
from .sampling import sample
from .steering import SIZE, ZOOM, detail_stream, identity_stream, steer

_WINDOW = 8  # frames at once; keeps memory flat over a clip


@dataclass(frozen=True)
class FaceGenerator:
    """The generator's network on one device."""

    network: Generator

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> FaceGenerator:
        """The shipped weights, or those of a file. Raises WeightsError."""
        return cls(load_generator(path, device, dtype))

    def refine(
        self,
        guides: Guides,
        *,
        mixture: Mixture | None = None,
        identity: IdentityStream | None = None,
        detail: DetailStream | None = None,
        fusion: Fusion | None = None,
        **sampling: Any,
    ) -> Tensor:
        """Generate the crops (F, S, S, 3), sRGB 0..1, of guides rendered at `steering.SIZE` and `ZOOM`. `sampling`: see :func:`sample`."""
        steering = steer(guides, mixture, identity, detail, fusion)
        like = next(self.network.parameters())
        composite, mask = steering.composite.to(like), steering.mask.to(like)
        pictures = sample(self.network, composite, mask, steering.conditions(self.network, like), **sampling)
        return (pictures.float().movedim(1, -1) + 1) / 2

    @torch.inference_mode()
    def render(
        self,
        prior: FacePrior,
        head: HeadModel,
        composed: Tensor,
        *,
        source: FacePrior | None = None,
        mixture: Callable[[Guides], Mixture] | None = None,
        fusion: Fusion | None = None,
        strength: float = 1.0,
        occlusion: Tensor | None = None,
        look: SwapLook | None = None,
        feather: float = 0.04,
        progress: Callable[[int, int], None] | None = None,
        **sampling: Any,
    ) -> tuple[Tensor, Tensor]:
        """Refine composed plates (F, H, W, C), as `render_composite` made them, window by window.

        source: the prior whose plate shows the person (of a swap: the source's); default the prior itself. strength 0..1 of the
        generator's changes. Only the difference to the composite is added, so the plate's own detail above the working size stays.
        Returns the pictures and the mask (F, H, W); where the mask is 0 the pictures are `composed`, to the bit.
        """
        who = source or prior
        identity = identity_stream(who) if who.identity.embedding is not None else None
        detail = detail_stream(who) if who.background is not None else None
        pictures, masks = [], []
        for index in windows(len(prior), _WINDOW):
            part = select_frames(prior, index)
            hidden = None if occlusion is None else occlusion[index]
            guides = render_guides(part, head, SIZE, zoom=ZOOM, occlusion=hidden, look=look, composed=composed[index])
            base = guides.composite.clamp(0, 1)
            new = self.refine(guides, mixture=mixture and mixture(guides), identity=identity, detail=detail, fusion=fusion, **sampling)
            weight = trust(part.confidence)[:, None, None] * strength
            done = paste_back(composed[index], new, guides.mask * weight, guides.crop, base=base, feather=feather, occlusion=hidden)
            pictures.append(done[0])
            masks.append(done[1])
            if progress is not None:
                progress(index.stop, len(prior))
        return torch.cat(pictures), torch.cat(masks)
