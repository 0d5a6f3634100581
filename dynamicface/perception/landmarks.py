"""478 face landmarks from an upright crop: MediaPipe's attention mesh (arXiv:2006.10962) as a torch module.

A trunk regresses the 468-point mesh; lips and eyes are then looked at again: each region is cut out of an early feature map
(aligned to the mesh's own estimate of that region) and refined by a small network of its own, which also places the irises.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .layers import BlazeBlock, Conv

# Mesh indices of the refined points, in the order the region networks emit them.
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408),
    *(62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407),
)
RIGHT_EYE = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    *(130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190),
    *(226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189, 35, 124, 46, 53, 52, 65),
    *(143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193),
)
LEFT_EYE = (
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
    *(359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414),
    *(446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413, 265, 353, 276, 283, 282, 295),
    *(372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336, 285, 417),
)
CONTOUR = 16  # the first points of an eye are its lid contour
CORNERS = {"lips": (61, 291), "right_eye": (33, 133), "left_eye": (362, 263)}  # the axis a region is aligned to

FEATURES = 48  # side of the feature map the regions are cut from, a quarter of the crop
WINDOW = 16  # side of a region's window in samples
MARGIN = 1.5  # window over the region's bounding box
CENTRE = 0.5  # where in its cell a sample is taken. MediaPipe's own runtime uses the middle; the published conversion to standard
# operators (our source of weights) uses the corner, 0, which moves the lips by more than a pixel of the crop.


def _tail(outputs: int) -> nn.Sequential:
    """(N, 128, 4, 4) to (N, outputs): the end of a region network."""
    return nn.Sequential(
        *(BlazeBlock(128, 128, stride, prelu=True) for stride in (1, 1, 2, 1, 1)),
        Conv(128, 32),
        nn.PReLU(32),
        BlazeBlock(32, 32, prelu=True),
        nn.Conv2d(32, outputs, 2),
        nn.Flatten(),
    )


class Region(nn.Module):
    """Refines the points `index` of one region, and its iris where it is an eye."""

    def __init__(self, index: tuple[int, ...], corners: tuple[int, int], iris: bool) -> None:
        super().__init__()
        self.corners = corners
        self.register_buffer("index", torch.tensor(index), persistent=False)
        widths = ((32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1), (64, 128, 2))
        self.stem = nn.Sequential(*(BlazeBlock(*block, prelu=True) for block in widths))
        self.points = _tail(2 * len(index))
        self.iris = _tail(2 * 5) if iris else None

    def window(self, mesh: Tensor) -> Tensor:
        """(N, 2, 3) from window samples to feature px, around the region as the mesh (N, 468, 2 crop px) sees it."""
        mesh = mesh / 4
        axis = mesh[:, self.corners[1]] - mesh[:, self.corners[0]]
        right = axis / axis.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        frame = torch.stack([right, torch.stack([-right[:, 1], right[:, 0]], -1)], -2)  # rows: right, down
        local = mesh[:, self.index] @ frame.mT
        low, high = local.amin(1), local.amax(1)
        centre = ((low + high) / 2)[:, None] @ frame
        step = frame.mT * (MARGIN / WINDOW * (high - low))[:, None]
        corner = centre.mT - step.sum(-1, keepdim=True) * (WINDOW / 2)
        return torch.cat([step, corner], -1)

    def forward(self, features: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, 32, 48, 48) and mesh (N, 468, 2) to points (N, K, 2) and iris (N, 5, 2) or None, all in crop px."""
        window = self.window(mesh)
        samples = torch.arange(WINDOW, device=mesh.device, dtype=mesh.dtype) + CENTRE
        grid = torch.stack(torch.meshgrid(samples, samples, indexing="xy"), -1)
        xy = torch.einsum("hwi,nci->nhwc", grid, window[..., :2]) + window[:, None, None, :, 2]
        xy = (2 * xy + 1 - 2 * CENTRE) / FEATURES - 1
        patch = F.grid_sample(features, xy.to(features.dtype), padding_mode="border", align_corners=False)
        patch = self.stem(patch)

        def crop_px(tail: nn.Sequential) -> Tensor:
            local = rearrange(tail(patch), "n (k xy) -> n k xy", xy=2).float()
            return local @ window[..., :2].mT + 4 * window[:, None, :, 2]

        return crop_px(self.points), None if self.iris is None else crop_px(self.iris)


class LandmarkNet(nn.Module):
    """Crops (N, 3, 192, 192), RGB 0..1, face upright and filling two thirds, to landmarks (N, 478, 3) in crop px and presence (N,)."""

    size = 192

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 16, 3, 2), nn.PReLU(16), *(BlazeBlock(*b, prelu=True) for b in ((16, 16, 1), (16, 16, 1), (16, 32, 2)))
        )
        widths = ((32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1))
        widths += ((128, 128, 2), (128, 128, 1), (128, 128, 1)) * 2
        self.trunk = nn.Sequential(
            *(BlazeBlock(*b, prelu=True) for b in widths), Conv(128, 32), nn.PReLU(32), BlazeBlock(32, 32, prelu=True)
        )
        self.mesh, self.presence = nn.Conv2d(32, 468 * 3, 3), nn.Conv2d(32, 1, 3)
        self.lips = Region(LIPS, CORNERS["lips"], iris=False)
        self.right_eye = Region(RIGHT_EYE, CORNERS["right_eye"], iris=True)
        self.left_eye = Region(LEFT_EYE, CORNERS["left_eye"], iris=True)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features, trunk, mesh = self._look(crops)
        presence = self.presence(trunk).float().flatten().sigmoid()
        xy, z = mesh[..., :2], mesh[..., 2:]
        refined, irises = xy.clone(), []
        for region in (self.lips, self.right_eye, self.left_eye):
            points, iris = region(features, xy)
            refined[:, region.index] = points
            if iris is not None:  # the net gives no depth for an iris: take its lids' mean
                depth = z[:, region.index[:CONTOUR]].mean(1, keepdim=True).expand(-1, 5, -1)
                irises.append(torch.cat([iris, depth], -1))
        return torch.cat([torch.cat([refined, z], -1), *irises], 1), presence

    def mesh_only(self, crops: Tensor) -> Tensor:
        """The trunk's unrefined mesh (N, 468, 3) in crop px, at two thirds of the cost: enough to say where the face is."""
        return self._look(crops)[2]

    def _look(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = crops.to(self.mesh.weight.dtype).clamp(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.stem(x)
        trunk = self.trunk(features)
        return features, trunk, rearrange(self.mesh(trunk).float(), "n (k xyz) 1 1 -> n k xyz", xyz=3)
