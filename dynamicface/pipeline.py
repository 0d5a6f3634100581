"""The simple API: one object that tracks, fits, edits, swaps and renders, without ComfyUI.

from dynamicface import FacePipeline
pipe = FacePipeline.load()
prior = pipe.fit(image)                              # image (1, H, W, 3)
picture, mask = pipe.render(pipe.edit(prior, smile=0.8, yaw=10))
picture, mask = pipe.swap(source_image, target_image)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .checks import check_occlusion, plate_of
from .compose import compose_prior
from .composite import compute_change, is_unchanged, paint_change, trust, working_size
from .edit import apply_settings
from .generator.face_generator import FaceGenerator
from .guides import Guides, render_guides
from .images import as_plate, empty_masks
from .occlusion import find_occlusion, hidden_face, mask_of_face
from .perception import Perception
from .prior.estimate import fit_prior, select_frames
from .prior.head import HeadModel
from .skin import SwapLook
from .track import track_faces
from .types import FacePrior, FaceTrack
from .windows import map_windows

_WINDOW = 4  # frames rendered at once; keeps memory flat over a clip
_WINDOW_SIZE = 512  # crop px up to which there are so many; fewer of larger crops, whose fields take 300 MB a frame


@dataclass(frozen=True)
class FacePipeline:
    """Perception nets and head model on one device."""

    perception: Perception
    head: HeadModel

    @classmethod
    def load(cls, device: str | torch.device = "cpu") -> FacePipeline:
        """Everything that ships with the package."""
        return cls(Perception.load(device), HeadModel.load().to(device))

    def track(self, images: Tensor, **choice) -> FaceTrack:
        """Find and follow one face; `choice` as in :func:`track_faces`."""
        return track_faces(as_plate(images), self.perception, **choice)

    @torch.inference_mode()
    def fit(
        self, images: Tensor, track: FaceTrack | None = None, *, occlusion: Tensor | Literal["find"] | None = None, **options
    ) -> FacePrior:
        """Take the face apart; `options` as in :func:`fit_prior`.

        occlusion (F, H, W), 1 = something in front of the face, is left out of the fit; "find" looks for it first.
        """
        images = as_plate(images)
        track = track or self.track(images)
        if "matte" not in options:
            options["matte"] = self.perception.matte.coarse(images, track.cuts)
        if occlusion is None:
            return fit_prior(images, track, self.head, **options)
        plain = fit_prior(images, track, self.head, **options | {"texture_size": 0, "progress": None})
        if isinstance(occlusion, str):
            hidden = hidden_face(plain, images, self.head, self.perception)
        else:
            check_occlusion(occlusion, images)
            hidden = mask_of_face(occlusion.to(images), plain)
        return fit_prior(images, track, self.head, occlusion=hidden, **options)

    def occlusion(self, prior: FacePrior, **options) -> Tensor:
        """What is in front of the fitted face, (F, H, W) in its plate; `options` as in :func:`find_occlusion`."""
        return find_occlusion(prior, self.head, self.perception, **options)

    @torch.inference_mode()
    def edit(self, prior: FacePrior, **settings: float) -> FacePrior:
        """Move dials by name: smile=0.8, jawOpen=0.2, yaw=10, light=0.5, jaw_width=-0.3 (names: `edit.SETTINGS`)."""
        return apply_settings(prior, self.head, settings)

    @torch.inference_mode()
    def render(
        self, prior: FacePrior, *, occlusion: Tensor | None = None, size: int | None = None, look: SwapLook | None = None
    ) -> tuple[Tensor, Tensor]:
        """The prior's picture in its plate, (F, H, W, C), and the mask of what changed, (F, H, W). Neutral is exact."""
        return render_composite(prior, self.head, occlusion=occlusion, size=size, look=look)

    def swap(
        self, source: Tensor | FacePrior, target: Tensor | FacePrior, *, weight: float = 1.0, occlusion: Tensor | None = None, **look: float
    ) -> tuple[Tensor, Tensor]:
        """The source's face under the target's pose, expression, light and background. `look` as in :class:`SwapLook`."""
        who = source if isinstance(source, FacePrior) else self.fit(source)
        where = target if isinstance(target, FacePrior) else self.fit(target)
        return self.render(compose_prior(where, identity=who, identity_weight=weight), occlusion=occlusion, look=SwapLook(**look))

    def generate(
        self,
        prior: FacePrior,
        generator: FaceGenerator | None = None,
        *,
        occlusion: Tensor | None = None,
        look: SwapLook | None = None,
        **options,
    ) -> tuple[Tensor, Tensor]:
        """The prior's picture in its plate, refined by the embedded generator; pictures and mask as :meth:`render`.

        generator: `FaceGenerator.load()` once for many calls. `options` as in `FaceGenerator.render`: source, steps, seed, strength ...
        Raises WeightsError where the pack ships no generator and none is given.
        """
        generator = generator or FaceGenerator.load(device=self.head.template.device)
        composed, mask = self.render(prior, occlusion=occlusion, look=look)
        refined, alpha = generator.render(prior, self.head, composed, occlusion=occlusion, look=look, **options)
        return refined, torch.maximum(mask, alpha)

    @torch.inference_mode()
    def guides(self, prior: FacePrior, size: int = 512, **options) -> Guides:
        """The attribute maps of a prior."""
        return render_guides(prior, self.head, size, **options)


def render_composite(
    prior: FacePrior,
    head: HeadModel,
    *,
    occlusion: Tensor | None = None,
    size: int | None = None,
    look: SwapLook | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply a composed prior to its plate, window by window.

    Returns the pictures (F, H, W, C) and the mask (F, H, W); where the mask is 0 the pictures are the plate's, to the bit. Frames whose
    confidence is low fade to the plate. occlusion: (F, H, W), 1 = something in front of the face. progress(done, total).
    """
    plate = plate_of(prior)
    check_occlusion(occlusion, plate)
    if is_unchanged(prior):
        return plate, plate.new_zeros(plate.shape[:3])
    out, mask = plate.clone(memory_format=torch.contiguous_format), empty_masks(plate)

    def render(index: slice) -> None:
        part = select_frames(prior, index)
        change = compute_change(part, head, part.background.plate, size=size, look=look)
        hidden = None if occlusion is None else occlusion[index]
        paint_change(out[index], mask[index], part.background.plate, change, hidden, trust(part.confidence))

    window = _WINDOW * _WINDOW_SIZE**2 // max(size or working_size(prior), _WINDOW_SIZE) ** 2
    map_windows(render, len(prior), max(window, 1), plate.device, progress)
    return out, mask
