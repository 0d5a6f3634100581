"""Checks the metrics share; each failure is one sentence."""

from __future__ import annotations

from torch import Tensor

from ..errors import ImageError


def same_shape(a: Tensor, b: Tensor, names: tuple[str, str] = ("result", "reference")) -> None:
    """Raise ImageError unless two batches of frames (F, H, W, C) can be compared pixel by pixel."""
    if a.shape != b.shape:
        raise ImageError(
            f"The {names[0]} is {_size(a)}, the {names[1]} is {_size(b)}. "
            "They are compared pixel by pixel: give both the same frames at the same resolution."
        )


def _size(images: Tensor) -> str:
    if images.dim() != 4:
        return f"a tensor of shape {tuple(images.shape)}"
    frames, height, width, channels = images.shape
    return f"{frames} frame{'s' * (frames != 1)} of {width} x {height} with {channels} channels"
