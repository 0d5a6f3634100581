"""Faces anywhere in a plate: BlazeFace short range (close-ups) and full range (distant faces), over an image pyramid.

Both networks are fully convolutional, so they run on the whole plate at any multiple of their step; a coarser or finer level
of the pyramid takes the place of the tiles that their fixed input sizes would otherwise demand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..images import sample_crops
from .layers import BlazeBlock, Conv

OVERLAP = 0.3  # IoU above which two detections are one face
COVERED = 0.6  # part of the smaller box above which the lower-scored detection is a ghost of the other
LEVELS = 3  # full-range levels: the plate's long side at 192, 384 and 768 px, as far as the plate has them


@dataclass(frozen=True)
class Detections:
    """The faces of one frame, best first."""

    boxes: Tensor  # (N, 4) x0 y0 x1 y1, plate px
    keypoints: Tensor  # (N, 6, 2) px: right eye, left eye, nose tip, mouth centre, right ear, left ear
    scores: Tensor  # (N,) 0..1

    def __len__(self) -> int:
        return len(self.scores)


def _anchors(h: int, w: int, stride: int, repeats: int, device: torch.device) -> Tensor:
    """(h * w * repeats, 2) cell centres in input px."""
    xs, ys = ((torch.arange(n, device=device) + 0.5) * stride for n in (w, h))
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(-1, 2).repeat_interleave(repeats, 0)


def _cells(x: Tensor, values: int) -> Tensor:
    """(N, A * values, h, w) head output to (N, h * w * A, values)."""
    return rearrange(x, "n (a v) h w -> n (h w a) v", v=values)


class ShortRange(nn.Module):
    """Pictures (N, 3, h, w) in 0..1 to anchors: logits (N, A) and offsets (N, A, 16) in input px (centre, size, six keypoints)."""

    size = 128  # long side it was trained with
    step = 16  # h and w must be multiples of it

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 24, 5, 2)
        fine = ((24, 24, 1), (24, 28, 1), (28, 32, 2), (32, 36, 1), (36, 42, 1), (42, 48, 2), (48, 56, 1), (56, 64, 1))
        fine += ((64, 72, 1), (72, 80, 1), (80, 88, 1))
        coarse = ((88, 96, 2), *[(96, 96, 1)] * 4)
        self.fine = nn.Sequential(*(BlazeBlock(*b) for b in fine))
        self.coarse = nn.Sequential(*(BlazeBlock(*b) for b in coarse))
        self.score_fine, self.score_coarse = Conv(88, 2), Conv(96, 6)
        self.box_fine, self.box_coarse = Conv(88, 2 * 16), Conv(96, 6 * 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(F.relu(self.stem(x * 2 - 1)))
        coarse = self.coarse(fine)
        logits = torch.cat([_cells(self.score_fine(fine), 1), _cells(self.score_coarse(coarse), 1)], 1)
        offsets = torch.cat([_cells(self.box_fine(fine), 16), _cells(self.box_coarse(coarse), 16)], 1)
        return logits.squeeze(-1), offsets

    def anchors(self, h: int, w: int, device: torch.device) -> Tensor:
        """(A, 2) anchor centres in input px."""
        return torch.cat([_anchors(h // 8, w // 8, 8, 2, device), _anchors(h // 16, w // 16, 16, 6, device)])


class DoubleBlazeBlock(nn.Module):
    """A bottleneck of two separable convolutions with a residual around both."""

    def __init__(self, c_in: int, middle: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = Conv(c_in, c_in, 3, stride, groups=c_in, bias=False)
        self.squeeze = Conv(c_in, middle)
        self.depthwise_2 = Conv(middle, middle, 3, groups=middle, bias=False)
        self.expand = Conv(middle, c_out)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise_2(F.relu(self.squeeze(self.depthwise(x)))))
        skip = F.max_pool2d(x, 2) if self.stride == 2 else x
        if skip.shape[1] < y.shape[1]:
            skip = F.pad(skip, (0, 0, 0, 0, 0, y.shape[1] - skip.shape[1]))
        return F.relu(y + skip)


class Merge(nn.Module):
    """One step down the feature pyramid: a coarse map, reduced and doubled, joins a finer one."""

    def __init__(self, coarse: int, fine: int, c_out: int, middle: int, blocks: int) -> None:
        super().__init__()
        self.reduce, self.lateral = Conv(coarse, c_out), Conv(fine, c_out)
        self.blocks = nn.Sequential(*(DoubleBlazeBlock(c_out, middle, c_out) for _ in range(blocks)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = F.interpolate(F.relu(self.reduce(coarse)), scale_factor=2, mode="bilinear", align_corners=False)
        return self.blocks(F.relu(self.lateral(fine)) + up)


class FullRange(nn.Module):
    """The same contract as `ShortRange`, for faces from a twentieth of the picture on."""

    size = 192
    step = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, 2)
        at_4 = ((32, 8, 32, 1), (32, 8, 32, 1), (32, 12, 48, 2), (48, 12, 48, 1), (48, 16, 64, 1))
        at_8 = ((64, 24, 96, 2), (96, 32, 128, 1), (128, 32, 128, 1))
        at_16 = ((128, 36, 144, 2), (144, 48, 192, 1), (192, 64, 256, 1))
        at_32 = ((256, 96, 384, 2), *[(384, 96, 384, 1)] * 3)
        self.stages = nn.ModuleList(nn.Sequential(*(DoubleBlazeBlock(*b) for b in stage)) for stage in (at_4, at_8, at_16, at_32))
        self.merges = nn.ModuleList([Merge(384, 256, 96, 48, 2), Merge(96, 128, 64, 32, 2), Merge(64, 64, 48, 24, 1)])
        self.score, self.box = Conv(48, 1), Conv(48, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x * 2 - 1))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        for merge, level in zip(self.merges, levels[-2::-1], strict=True):
            x = merge(x, level)
        return _cells(self.score(x), 1).squeeze(-1), _cells(self.box(x), 16)

    def anchors(self, h: int, w: int, device: torch.device) -> Tensor:
        return _anchors(h // 4, w // 4, 4, 1, device)


class FaceDetector(nn.Module):
    """Both BlazeFace nets over the plate."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.full = ShortRange(), FullRange()

    @torch.inference_mode()
    def detect(self, images: Tensor, threshold: float = 0.5, max_faces: int = 16, small: bool = True) -> list[Detections]:
        """Faces of every frame (F, H, W, 3), best first.

        Args:
            threshold: least score 0..1 of a face.
            small: also search the finer levels of the pyramid, for faces less than about a tenth of the plate wide (slower).
        """
        long_side = max(images.shape[1:3])
        plan = [(self.short, self.short.size), (self.full, self.full.size)]
        if small:
            finer = (self.full.size * 2**level for level in range(1, LEVELS))
            plan += [(self.full, side) for side in finer if side < 1.5 * long_side]
        frame, scores, points = (torch.cat(x) for x in zip(*(self._level(*p, images, threshold) for p in plan), strict=True))
        return [_merge(scores[frame == f], points[frame == f], max_faces) for f in range(len(images))]

    def _level(self, net: ShortRange | FullRange, side: int, images: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """One net on the plates with their long side scaled to `side` px: frame (n,), score (n,), points (n, 8, 2) in plate px."""
        frames, height, width, _ = images.shape
        scale = side / max(height, width)
        h, w = (net.step * math.ceil(round(length * scale, 3) / net.step) for length in (height, width))
        matrix = torch.tensor([[scale, 0, 0], [0, scale, 0]], device=images.device).expand(frames, -1, -1)
        pictures = sample_crops(images, matrix, (h, w), padding="zeros", max_taps=2)
        dtype = net.stem.weight.dtype
        logits, offsets = net(pictures.clamp(0, 1).to(dtype).contiguous(memory_format=torch.channels_last))
        scores = logits.float().sigmoid()
        frame, cell = (scores >= threshold).nonzero(as_tuple=True)
        anchor = net.anchors(h, w, images.device)[cell]
        points = rearrange(offsets[frame, cell].float(), "n (k xy) -> n k xy", xy=2)
        centre, half, keypoints = points[:, :1] + anchor[:, None], points[:, 1:2] / 2, points[:, 2:] + anchor[:, None]
        return frame, scores[frame, cell], torch.cat([centre - half, centre + half, keypoints], 1) / scale


def _intersection(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Area shared by boxes (N, 4) and (M, 4): (N, M), and their areas (N, 1), (1, M)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp_min(0).prod(-1) for x in (a, b))
    return (high - low).clamp_min(0).prod(-1), area_a[:, None], area_b[None]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    both, area_a, area_b = _intersection(a, b)
    return both / (area_a + area_b - both).clamp_min(1e-9)


def _merge(scores: Tensor, points: Tensor, max_faces: int) -> Detections:
    """Weighted non-maximum suppression: overlapping detections become their score-weighted mean.

    scores (N,); points (N, 8, 2): low corner, high corner, six keypoints.
    """
    order = scores.argsort(descending=True)
    scores, points = scores[order], points[order]
    boxes = points[:, :2].flatten(1)
    both, area_a, area_b = _intersection(boxes, boxes)
    same = iou(boxes, boxes) > OVERLAP
    ghost = both / torch.minimum(area_a, area_b).clamp_min(1e-9) > COVERED
    free = torch.ones_like(scores, dtype=torch.bool)
    faces, best = [], []
    while free.any() and len(faces) < max_faces:
        i = int(free.float().argmax())
        group = (same[i] & free).index_fill(0, torch.tensor([i], device=free.device), True)
        weight = scores[group] / scores[group].sum()
        faces.append((points[group] * weight[:, None, None]).sum(0))
        best.append(scores[i])
        free &= ~(group | ghost[i])
    merged = torch.stack(faces) if faces else points[:0]
    return Detections(merged[:, :2].flatten(1), merged[:, 2:], torch.stack(best) if best else scores[:0])
