"""Overlapping segments of a clip, and the weights with which their predictions are fused (paper section 3.4).

w_k(i) = min(i - a + 1, b - i, O + 1) / (O + 1)  of frame i in segment k = [a, b) with overlap O
x0(i)  = sum_k w_k(i) x0_k(i) / sum_k w_k(i)
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DynamicFaceError


def segments(frames: int, length: int, overlap: int) -> list[list[int]]:
    """Frame indices of each segment; together they hold every frame, neighbours share `overlap` frames, the last one maybe more."""
    if not 0 <= overlap < length:
        raise DynamicFaceError(f"Segments of {length} frames cannot overlap by {overlap}; choose an overlap from 0 to {length - 1}.")
    if frames <= length:
        return [list(range(frames))]
    starts = [*range(0, frames - length, length - overlap), frames - length]
    return [list(range(start, start + length)) for start in starts]


def anchored(indices: Sequence[int], anchor: int) -> list[int]:
    """A segment with the anchor frame in front, unless it holds it already."""
    return list(indices) if anchor in indices else [anchor, *indices]


def segment_weights(indices: Sequence[int], overlap: int) -> list[float]:
    """w_k of each frame of a segment. An anchor in front, apart from the others, is only looked at: its weight is 0."""
    own = indices[1:] if len(indices) > 1 and indices[1] != indices[0] + 1 else indices
    a, b = own[0], own[-1] + 1
    weights = [min(i - a + 1, b - i, overlap + 1) / (overlap + 1) for i in own]
    return [0.0] * (len(indices) - len(own)) + weights
