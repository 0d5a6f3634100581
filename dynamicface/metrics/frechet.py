"""Fréchet distance between sets of feature vectors taken for Gaussians (Dowson & Landau 1982; with Inception's features it is the FID).

`face_feature_frechet` uses the identity net that ships: it sees faces only and its figures are no FIDs. Compare them with one another only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DynamicFaceError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^1/2) of features (N, D) and (M, D), A and B their covariances. In double precision.

    With fewer samples than dimensions the distance is too large, but comparable between sets of the same size.
    """
    if min(len(a), len(b)) < 2:
        raise DynamicFaceError(f"A Fréchet distance needs at least two pictures on each side; there are {len(a)} and {len(b)}.")
    a, b = a.double(), b.double()
    x, y = ((values - values.mean(0)) / (len(values) - 1) ** 0.5 for values in (a, b))  # covariance = x^T x
    # tr (A B)^1/2 is the sum of the singular values of x y^T, which needs no square root of a matrix.
    cross = torch.linalg.svdvals(x @ y.mT).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * cross)


def face_feature_frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance, times 100, of two sets (N, 1024) and (M, 1024) of the identity net's unit vectors (`IdentityNet.embed`).

    Not an FID: another network, on aligned faces.
    """
    return 100 * frechet_distance(a, b)
