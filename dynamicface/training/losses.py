"""What the generator is asked for, between pictures (B, 3, H, W) in -1..1.

- identity stream   low frequencies, and the face's contour (L1)
- detail stream     pixels with more weight on eyes, brows and mouth; Laplacian bands; features and judgement of a patch discriminator
- likeness          distance in the stages of the identity net, cosine of its embedding
- expression        the landmark net's mesh, found anew on the result
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..filters import blur, dilate
from ..images import sample_crops, square_matrix
from ..perception import IdentityNet, LandmarkNet

_STAGES = (1, 3, 5, 11)  # blocks of the identity net: 1/4, 1/8, 1/16 and 1/32 of the frame
_CHARBONNIER = 0.01
_BANDS = 3
_COARSE = 8  # px of a cell of the low frequencies
_FACE_SHARE = 0.4  # of the picture
_FRAME_MARGIN = 1.15
_STRAY = 0.15  # of the moved frame: shift in its sides, log of its scale, turn in radians
_MESH_MARGIN = 1.5  # the landmark net wants the face to fill two thirds


@dataclass(frozen=True)
class LossWeights:
    """What each term counts; 0 leaves it out and costs nothing.

    Set by the length of each term's gradient in the picture, measured on held-out swaps at the composite: per unit of weight that of
    features is 3, of identity 13 and of landmarks 200 times that of pixels, and it points almost anywhere but at the photograph (cosine
    0.13, 0.01, 0.01 against 0.57). With weights that look balanced in the curves the network learns nothing.
    """

    pixels: float = 1.0
    low: float = 1.0
    contour: float = 0.5
    bands: float = 0.5
    features: float = 0.3
    identity: float = 0.02
    landmarks: float = 0.0
    adversarial: float = 0.0
    matching: float = 0.0
    parts: float = 3.0  # how much more eyes, brows and mouth count than skin
    outside: float = 0.05  # how much the picture beside the mask counts
    snr: float = 1.0  # the most a nearly clean picture counts (min-SNR); 1 = all alike


def flow_weight(sigma: Tensor, ceiling: float) -> Tensor:
    """Min-SNR weight (arXiv:2303.09556) of an x-prediction at sigma (B,), at least 1: pure noise, where sampling starts, counts fully."""
    return ((1 - sigma) / sigma.clamp_min(1e-3)).square().clamp(1, ceiling)


class Criterion(nn.Module):
    """Terms between a prediction and its answer. Networks stay frozen."""

    def __init__(self, weights: LossWeights, identity: IdentityNet, landmarks: LandmarkNet | None = None, frame: int = 160) -> None:
        """frame: side in px at which the identity net looks; smaller is cheaper."""
        super().__init__()
        self.weights, self.frame = weights, frame
        self.identity, self.landmarks = identity, landmarks
        self.requires_grad_(False)

    def forward(self, found: Tensor, batch: dict[str, Tensor], sigma: Tensor, draw: torch.Generator | None = None) -> dict[str, Tensor]:
        """Weighted terms by name, each a number; their sum is the loss. All in float32.

        draw: the identity net looks through a frame that is moved at random, so that it cannot be pleased by patterns of single pixels.
        """
        w, found, target = self.weights, found.float(), batch["target"]
        scale = flow_weight(sigma, w.snr)[:, None, None, None]
        region = batch["mask"] + w.outside * (1 - batch["mask"])
        attention = scale * region * (1 + w.parts * parts_of(batch["expression"]))
        terms = {
            "pixels": w.pixels * _mean(torch.sqrt((found - target).square() + _CHARBONNIER**2) - _CHARBONNIER, attention),
            "low": w.low * _low(found, target, scale * region),
            "contour": w.contour * _mean((found - target).abs(), scale * contour_of(batch["mask"])),
            "bands": w.bands * _bands(found, target, attention),
        }
        if w.features or w.identity:
            terms |= self._likeness(found, target, batch, draw)
        if w.landmarks and self.landmarks is not None:
            terms["landmarks"] = w.landmarks * self._expression(found, target, batch["landmarks"])
        return terms

    def _likeness(self, found: Tensor, target: Tensor, batch: dict[str, Tensor], draw: torch.Generator | None) -> dict[str, Tensor]:
        matrix = _face_frame(batch["landmarks"], self.frame, _FRAME_MARGIN, draw)
        pictures = torch.cat([found, target, batch["mask"].expand_as(found) * 2 - 1])
        frames = sample_crops(pictures.permute(0, 2, 3, 1), matrix.repeat(3, 1, 1), self.frame) / 2 + 0.5
        mine, truth, inside = frames.chunk(3)
        stages, embedding = features(self.identity, mine)
        with torch.no_grad():
            wanted, known = features(self.identity, truth)
        distance = sum(_mean(_unit_distance(a, b), _shrunk(inside[:, :1], a)) for a, b in zip(stages, wanted, strict=True))
        cosine = F.cosine_similarity(embedding, known).mean()
        return {"features": self.weights.features * distance / len(stages), "identity": self.weights.identity * (1 - cosine)}

    def _expression(self, found: Tensor, target: Tensor, landmarks: Tensor) -> Tensor:
        """Distance of the meshes found on both, in shares of the crop."""
        matrix = _face_frame(landmarks, LandmarkNet.size, _MESH_MARGIN)
        crops = [sample_crops(x.permute(0, 2, 3, 1), matrix, LandmarkNet.size) / 2 + 0.5 for x in (found, target)]
        mine = self.landmarks(crops[0])[0]
        with torch.no_grad():
            truth = self.landmarks(crops[1])[0]
        return (mine - truth)[..., :2].norm(dim=-1).mean() / LandmarkNet.size * 100


def features(net: IdentityNet, crops: Tensor) -> tuple[list[Tensor], Tensor]:
    """Unit features of four stages and the embedding (B, 1024) of crops (B, 3, S, S) in 0..1."""
    x = net.stem((crops.clamp(0, 1).flip(1) * 255 - net.mean).contiguous(memory_format=torch.channels_last))
    x, stages = F.relu6(x), []
    for number, block in enumerate(net.blocks):
        x = block(x)
        if number in _STAGES:
            stages.append(F.normalize(x.float(), dim=1))
    return stages, x.float().mean((2, 3))


def parts_of(expression: Tensor) -> Tensor:
    """(B, 1, H, W) 1 on and around brows, eyes and mouth of the expression map."""
    drawn = (expression.amax(1, keepdim=True) > 0.1).float()
    return blur(dilate(drawn, 4), 2, 2)


def contour_of(mask: Tensor) -> Tensor:
    """(B, 1, H, W) 1 in a band along the mask's border."""
    return (dilate(mask, 6) + dilate(-mask, 6)).clamp(0, 1)


def _low(found: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return _mean(F.avg_pool2d(found - target, _COARSE).abs(), F.avg_pool2d(weight, _COARSE))


def _bands(found: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 of the Laplacian pyramid's fine bands."""
    difference, total = found - target, found.new_zeros(())
    for _ in range(_BANDS):
        coarse = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(coarse, difference.shape[-2:], mode="bilinear", align_corners=False)
        total = total + _mean(band.abs(), weight)
        difference, weight = coarse, F.avg_pool2d(weight, 2)
    return total


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    """Mean of a value (B, C, h, w) under a weight (B, 1, h, w), over a face of usual size."""
    return (value.mean(1, keepdim=True) * weight).mean() / _FACE_SHARE


def _unit_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(1, keepdim=True)


def _shrunk(mask: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(mask, like.shape[-2:], mode="area")


def _face_frame(landmarks: Tensor, size: int, margin: float, draw: torch.Generator | None = None) -> Tensor:
    """(B, 2, 3) from the picture to a square around landmarks (B, 478, 2), upright or with a drawn turn, shift and scale."""
    points = landmarks[:, :468]
    low, high = points.amin(1), points.amax(1)
    centre, side, turn = (low + high) / 2, (high - low).amax(-1) * margin, landmarks.new_zeros(len(landmarks))
    if draw is not None:
        chance = torch.rand(len(landmarks), 4, generator=draw).to(landmarks) * 2 - 1
        centre = centre + chance[:, :2] * _STRAY * side[:, None]
        side, turn = side * torch.exp(chance[:, 2] * _STRAY), chance[:, 3] * _STRAY
    return square_matrix(centre, side, turn, size)
