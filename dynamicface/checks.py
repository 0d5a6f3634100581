"""Checks of inputs that must fit each other; each failure is one sentence."""

from __future__ import annotations

from torch import Tensor

from .errors import DynamicFaceError, ImageError
from .types import FacePrior


def plate_of(prior: FacePrior) -> Tensor:
    """The plate (F, H, W, C) a prior was filmed in. Raises DynamicFaceError where it has none, or where it is a clip on disk."""
    if prior.background is None:
        raise DynamicFaceError(
            "This prior has no picture behind it: it was loaded from a file, or is the filmed face itself. "
            "Give it a background with compose_prior, or fit the picture again."
        )
    plate = prior.background.plate
    if not isinstance(plate, Tensor):
        raise DynamicFaceError(
            f"The plate of this prior is a clip of {len(plate)} frames on disk, which is never held as a whole. Use Composite Clip "
            "(`shots.composite_shot`) for it, or load its frames as pictures and fit those."
        )
    return plate


def check_occlusion(occlusion: Tensor | None, plate: Tensor) -> None:
    """Raise ImageError unless an occlusion mask is (F, H, W) like the plate (F, H, W, C)."""
    if occlusion is None:
        return
    if occlusion.dim() != 3 or occlusion.shape[1:] != plate.shape[1:3]:
        found, wanted = " x ".join(map(str, occlusion.shape[:0:-1])), f"{plate.shape[2]} x {plate.shape[1]}"
        raise ImageError(f"The occlusion mask is {found} pixels, the plate is {wanted}. Make the mask in the plate's size.")
    if len(occlusion) != len(plate):
        raise ImageError(f"The occlusion mask has {len(occlusion)} frames, the plate has {len(plate)}. Give one mask per frame.")
