"""Optical flow of the plate, in both directions, and where it can be believed.

The flow is always the plate's: the plate does not flicker, so what moves in it is real. Flow is in pixels of the picture it belongs
to; `this(x) = other(x + flow(x))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DynamicFaceError
from ..filters import pixel_grid, sample

LUMA = (0.2126, 0.7152, 0.0722)
FLOW_SIZE = 640  # px, longest side of the picture in which flow is estimated
_PAIRS_AT_ONCE = 8  # of frames a network is shown
_CONSISTENT = 0.01, 0.25  # forward-backward check: |w + w'|^2 against 0.01 (|w|^2 + |w'|^2) + 0.25 px^2 (Sundaram et al. 2010, tighter)

Estimator = Callable[[Tensor, Tensor], Tensor]
"""Flow (N, 2, H, W) px from pictures (N, 3, H, W) to others of the same size; what is shown is 0..1."""


@dataclass
class DisFlow:
    """Dense Inverse Search (Kroeger et al. 2016) as OpenCV has it; on the CPU, whatever the device of the pictures."""

    preset: str = "medium"  # "ultrafast", "fast" or "medium": about 4, 4 and 25 ms per direction at 640 x 360
    _engine: object = field(default=None, init=False, repr=False)

    def __call__(self, pictures: Tensor, others: Tensor) -> Tensor:
        if self._engine is None:
            self._engine = _dis(self.preset)
        if min(pictures.shape[-2:]) < _DIS_SIDE:
            return torch.zeros_like(pictures[:, :2])
        found = [self._engine.calc(a, b, None) for a, b in zip(_bytes(pictures), _bytes(others), strict=True)]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(pictures)


_DIS_SIDE = 32  # px; below, DIS has no level to search on


def _bytes(pictures: Tensor) -> np.ndarray:
    """(N, H, W) luma in eight bits, which is what DIS reads."""
    return (pictures.movedim(1, -1) @ pictures.new_tensor(LUMA)).mul(255).clamp(0, 255).byte().cpu().numpy()


def _dis(preset: str):
    try:
        import cv2
    except ImportError as error:
        raise DynamicFaceError(
            "Optical flow needs OpenCV, which is not installed here. Run `pip install opencv-python-headless`, or connect a flow model."
        ) from error
    return cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))


@dataclass
class RaftFlow:
    """A network with RAFT's signature: model(a, b) with pictures (N, 3, H, W) in -1..1, sides divisible by 8; a flow or a list of ever
    better ones (torchvision.models.optical_flow.raft_large, SEA-RAFT and others)."""

    model: nn.Module | Callable

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, others: Tensor) -> Tensor:
        height, width = pictures.shape[-2:]
        pad = (0, -width % 8, 0, -height % 8)
        weight = next(self.model.parameters(), pictures) if isinstance(self.model, nn.Module) else pictures
        found = self.model(*(F.pad(images.to(weight).clamp(0, 1) * 2 - 1, pad, mode="replicate") for images in (pictures, others)))
        found = found[-1] if isinstance(found, (list, tuple)) else found
        return found[..., :height, :width].to(pictures)


@dataclass(frozen=True)
class PairFlow:
    """Flow between N frames and their successors."""

    forward: Tensor  # (N, 2, h, w) px: frame(x) = next(x + forward)
    backward: Tensor  # (N, 2, h, w) px: next(x) = frame(x + backward)
    forward_seen: Tensor  # (N, 1, h, w) 0..1, how sure the flow is: 0 where something is covered in the next frame
    backward_seen: Tensor  # (N, 1, h, w)

    def __len__(self) -> int:
        return len(self.forward)

    def __getitem__(self, index: slice) -> PairFlow:
        return PairFlow(self.forward[index], self.backward[index], self.forward_seen[index], self.backward_seen[index])

    @classmethod
    def cat(cls, parts: Sequence[PairFlow]) -> PairFlow:
        """Pairs one after another."""
        names = ("forward", "backward", "forward_seen", "backward_seen")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def resized(self, size: tuple[int, int]) -> PairFlow:
        """The same flow for pictures of another size (h, w)."""
        forward, backward = (resize_flow(flow, size) for flow in (self.forward, self.backward))
        return PairFlow(forward, backward, *(resize(seen, size) for seen in (self.forward_seen, self.backward_seen)))


@torch.inference_mode()
def plate_flow(frames: Tensor, estimator: Estimator | None = None, longest: int = FLOW_SIZE) -> PairFlow:
    """Flow between neighbours of frames (F, 3, H, W), F >= 2, estimated and returned at `longest` px on the longer side at most."""
    estimator = estimator or DisFlow()
    height, width = frames.shape[-2:]
    scale = min(longest / max(height, width), 1.0)
    small = resize(frames, (max(round(height * scale), 1), max(round(width * scale), 1)))
    pairs = list(zip(small[:-1].split(_PAIRS_AT_ONCE), small[1:].split(_PAIRS_AT_ONCE), strict=True))
    forward, backward = (torch.cat([estimator(*pair[::way]) for pair in pairs]) for way in (1, -1))
    return PairFlow(forward, backward, consistency(forward, backward), consistency(backward, forward))


def consistency(flow: Tensor, reverse: Tensor) -> Tensor:
    """(N, 1, H, W): 1 where the way there and back ends where it began, falling to 0 where it does not or leaves the picture."""
    size = flow.new_tensor([flow.shape[-1], flow.shape[-2]])
    at = pixel_grid(*flow.shape[-2:], flow) + flow.permute(0, 2, 3, 1)
    back = sample(reverse, at)
    share, floor = _CONSISTENT
    allowed = share * (flow.square() + back.square()).sum(1, keepdim=True) + floor
    error = (flow + back).square().sum(1, keepdim=True)
    inside = ((at > 0) & (at < size)).all(-1)[:, None]
    return (2 - error / allowed).clamp(0, 1) * inside


def warp(images: Tensor, flow: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Images (N, C, H, W) read at x + flow (N, 2, H, W)."""
    height, width = images.shape[-2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + 0.5
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + 0.5
    return sample(images, torch.stack([x + flow[:, 0], y + flow[:, 1]], -1), mode=mode)


def paths(flows: Sequence[PairFlow], start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Flow from frame `start` to the frames `steps` on (back, where negative), one after another, and how sure it is.

    flows[i] lies between frames i and i + 1. Yields (1, 2, h, w) and (1, 1, h, w) for 1, 2 .. |steps| frames away.
    """
    flow, seen = None, None
    for k in range(abs(steps)):
        pair = flows[start + k] if steps > 0 else flows[start - 1 - k]
        step, sure = (pair.forward, pair.forward_seen) if steps > 0 else (pair.backward, pair.backward_seen)
        if flow is None:
            flow, seen = step, sure
        else:
            both = warp(torch.cat([step, sure], 1), flow)
            flow, seen = flow + both[:, :2], seen * both[:, 2:]
        yield flow, seen


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow of a picture for the same picture at another size."""
    if flow.shape[-2:] == size:
        return flow
    scale = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]])
    return resize(flow, size) * scale[:, None, None]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) at another size: averaged where smaller, bilinear where larger."""
    if images.shape[-2:] == size:
        return images
    if size[0] <= images.shape[-2] and size[1] <= images.shape[-1]:
        return F.interpolate(images, size, mode="area")
    return F.interpolate(images, size, mode="bilinear", align_corners=False)
