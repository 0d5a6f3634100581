"""Faces anywhere in a plate: BlazeFace short range (close-ups) and full range (distant faces) over a small pyramid of tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..images import sample_crops
from ..perception.layers import BlazeBlock, Conv

OVERLAP = 0.3  # IoU above which two detections are one face
TILE_OVERLAP = 0.25  # of a tile's side


@dataclass(frozen=True)
class Detections:
    """The faces of one frame, best first."""

    boxes: Tensor  # (N, 4) x0 y0 x1 y1, plate px
    keypoints: Tensor  # (N, 6, 2) px: right eye, left eye, nose tip, mouth centre, right ear, left ear
    scores: Tensor  # (N,) 0..1

    def __len__(self) -> int:
        return len(self.scores)


def _centres(side: int, repeats: int) -> Tensor:
    """(side * side * repeats, 2) cell centres in 0..1."""
    c = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(c, c, indexing="xy"), -1).reshape(-1, 2).repeat_interleave(repeats, 0)


def _cells(x: Tensor, values: int) -> Tensor:
    """(N, A * values, H, W) head output to (N, H * W * A, values)."""
    return rearrange(x, "n (a v) h w -> n (h w a) v", v=values)


class ShortRange(nn.Module):
    """Pictures (N, 3, 128, 128) in 0..1 to anchors: logits (N, 896) and boxes with keypoints (N, 896, 8, 2) in 0..1."""

    size = 128

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 24, 5, 2)
        fine = ((24, 24, 1), (24, 28, 1), (28, 32, 2), (32, 36, 1), (36, 42, 1), (42, 48, 2), (48, 56, 1), (56, 64, 1))
        fine += ((64, 72, 1), (72, 80, 1), (80, 88, 1))
        coarse = ((88, 96, 2),) + ((96, 96, 1),) * 4
        self.fine = nn.Sequential(*(BlazeBlock(*b) for b in fine))
        self.coarse = nn.Sequential(*(BlazeBlock(*b) for b in coarse))
        self.score_fine, self.score_coarse = Conv(88, 2), Conv(96, 6)
        self.box_fine, self.box_coarse = Conv(88, 2 * 16), Conv(96, 6 * 16)
        self.register_buffer("anchors", torch.cat([_centres(16, 2), _centres(8, 6)]), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(F.relu(self.stem(x * 2 - 1)))
        coarse = self.coarse(fine)
        logits = torch.cat([_cells(self.score_fine(fine), 1), _cells(self.score_coarse(coarse), 1)], 1)
        boxes = torch.cat([_cells(self.box_fine(fine), 16), _cells(self.box_coarse(coarse), 16)], 1)
        return logits[..., 0], rearrange(boxes, "n a (k xy) -> n a k xy", xy=2) / self.size


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
    """Pictures (N, 3, 192, 192) in 0..1 to anchors: logits (N, 2304) and boxes with keypoints (N, 2304, 8, 2) in 0..1."""

    size = 192

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, 2)
        at_48 = ((32, 8, 32, 1), (32, 8, 32, 1), (32, 12, 48, 2), (48, 12, 48, 1), (48, 16, 64, 1))
        at_24 = ((64, 24, 96, 2), (96, 32, 128, 1), (128, 32, 128, 1))
        at_12 = ((128, 36, 144, 2), (144, 48, 192, 1), (192, 64, 256, 1))
        at_6 = ((256, 96, 384, 2),) + ((384, 96, 384, 1),) * 3
        stages = (at_48, at_24, at_12, at_6)
        self.stages = nn.ModuleList(nn.Sequential(*(DoubleBlazeBlock(*b) for b in stage)) for stage in stages)
        self.merges = nn.ModuleList([Merge(384, 256, 96, 48, 2), Merge(96, 128, 64, 32, 2), Merge(64, 64, 48, 24, 1)])
        self.score, self.box = Conv(48, 1), Conv(48, 16)
        self.register_buffer("anchors", _centres(48, 1), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x * 2 - 1))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        for merge, level in zip(self.merges, levels[-2::-1], strict=True):
            x = merge(x, level)
        return _cells(self.score(x), 1)[..., 0], rearrange(_cells(self.box(x), 16), "n a (k xy) -> n a k xy", xy=2) / self.size


class FaceDetector(nn.Module):
    """Both BlazeFace nets over the whole plate and, for small faces, over tiles of it."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.full = ShortRange(), FullRange()

    @torch.inference_mode()
    def detect(self, images: Tensor, threshold: float = 0.5, max_faces: int = 16, tiles: bool = True) -> list[Detections]:
        """Faces of every frame (F, H, W, 3).

        Args:
            threshold: least score 0..1 of a face.
            tiles: also look for faces smaller than a tenth of the plate (slower on large plates).
        """
        frames, height, width, _ = images.shape
        plans = [(self.short, _whole(height, width)), (self.full, _whole(height, width))]
        if tiles:
            plans += [(self.full, level) for level in _tile_levels(height, width)]
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(frames)]
        for net, squares in plans:
            for frame, scores, points in self._run(net, images, squares.to(images.device), threshold):
                found[frame].append((scores, points))
        return [_merge(candidates, max_faces, images.device) for candidates in found]

    def _run(self, net: nn.Module, images: Tensor, squares: Tensor, threshold: float):
        """Yield (frame, scores (n,), points (n, 8, 2) px) of one net over the squares (T, 3: x, y, side) of every frame."""
        frames = len(images)
        corner, side = squares[:, :2], squares[:, 2]
        scale = net.size / side
        matrix = torch.zeros(len(squares), 2, 3, device=images.device)
        matrix[:, 0, 0] = matrix[:, 1, 1] = scale
        matrix[:, :, 2] = -corner * scale[:, None]
        frame = torch.arange(frames, device=images.device).repeat_interleave(len(squares))
        crops = sample_crops(images, matrix.repeat(frames, 1, 1), net.size, frame, padding="zeros")
        dtype = net.stem.weight.dtype
        logits, points = net(crops.to(dtype).clamp(0, 1).contiguous(memory_format=torch.channels_last))
        scores, points = logits.float().sigmoid(), points.float()
        for item, tile in zip(range(len(crops)), list(range(len(squares))) * frames, strict=True):
            keep = scores[item] >= threshold
            if keep.any():
                p = points[item, keep]
                offset = torch.cat([p[:, :1], p[:, 2:]], 1) + net.anchors[keep, None]  # the size is no position
                size = p[:, 1:2] / 2
                p = torch.cat([offset[:, :1] - size, offset[:, :1] + size, offset[:, 1:]], 1)  # low, high, keypoints
                yield item // len(squares), scores[item, keep], p * side[tile] + corner[tile]


def _whole(height: int, width: int) -> Tensor:
    """The centred square that holds the plate, as one row (x, y, side)."""
    side = max(height, width)
    return torch.tensor([[(width - side) / 2, (height - side) / 2, side]], dtype=torch.float32)


def _tile_levels(height: int, width: int) -> list[Tensor]:
    """Overlapping square tiles (T, 3: x, y, side): the plate's short side, then half of it while that is still minified."""
    levels, side = [], min(height, width)
    while side >= 1.5 * FullRange.size and len(levels) < 2:
        if side < 0.8 * max(height, width):
            counts = [math.ceil(max(length / side - TILE_OVERLAP, 1) / (1 - TILE_OVERLAP)) for length in (width, height)]
            xs, ys = (torch.linspace(0, length - side, n) for length, n in zip((width, height), counts, strict=True))
            xy = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(-1, 2)
            levels.append(torch.cat([xy, torch.full((len(xy), 1), float(side))], -1))
        side //= 2
    return levels


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clamp_min(0).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return both / (area_a[:, None] + area_b[None] - both).clamp_min(1e-9)


def _merge(candidates: list[tuple[Tensor, Tensor]], max_faces: int, device: torch.device) -> Detections:
    """Weighted non-maximum suppression: overlapping detections become their score-weighted mean."""
    if not candidates:
        return Detections(torch.zeros(0, 4, device=device), torch.zeros(0, 6, 2, device=device), torch.zeros(0, device=device))
    scores = torch.cat([s for s, _ in candidates])
    points = torch.cat([p for _, p in candidates])
    order = scores.argsort(descending=True)
    scores, points = scores[order], points[order]
    overlap = iou(points[:, :2].flatten(1), points[:, :2].flatten(1)) > OVERLAP
    free = torch.ones_like(scores, dtype=torch.bool)
    faces, best = [], []
    while free.any() and len(faces) < max_faces:
        i = int(free.float().argmax())
        group = overlap[i] & free
        group[i] = True
        weight = scores[group] / scores[group].sum()
        faces.append((points[group] * weight[:, None, None]).sum(0))
        best.append(scores[i])
        free &= ~group
    merged = torch.stack(faces)
    return Detections(merged[:, :2].flatten(1), merged[:, 2:], torch.stack(best))
