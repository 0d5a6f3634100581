"""Plausible people from MakeHuman's sliders, and the symmetric and antisymmetric modes they span.

A sample is base + macro (race, gender, age, muscle, weight) + local sliders, aligned to the mean adult by a similarity over the face.
Splitting every sample into its mirror-symmetric and mirror-antisymmetric half before the PCA makes each mode exactly one or the other.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

RACES, GENDERS, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old")
MUSCLES, WEIGHTS = ("minmuscle", "averagemuscle", "maxmuscle"), ("minweight", "averageweight", "maxweight")
OPPOSITES = (
    *(("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward")),
    *(("compress", "uncompress"), ("concave", "convex"), ("pointed", "round")),
)
UNUSED = re.compile(r"head-trans|neck-trans|ear-shape|measure-neck-height|ears/.*-ear-(trans|shape)")  # pose, elves, seams
SLIDER_SIGMA = 0.16  # 0.32 gives caricatures


@dataclass(frozen=True)
class Modes:
    mean: Tensor  # (V, 3) symmetric
    basis: Tensor  # (S, V, 3) at one standard deviation, by falling variance
    sign: Tensor  # (S,) +1 mirror-symmetric, -1 mirror-antisymmetric
    scale: float  # mean similarity scale of the samples


def _macro(rng: np.random.Generator, n: int, names: list[str]) -> np.ndarray:
    """(n, len(names)) weights of the macro targets."""
    race = dict(zip(RACES, rng.dirichlet([0.45] * 3, n).T, strict=True))
    male = rng.beta(0.35, 0.35, n)
    gender = {"male": male, "female": 1 - male}
    years = rng.uniform(0, 1, n) ** 1.3 * 0.95
    child = np.where(rng.uniform(size=n) < 0.03, rng.uniform(0, 0.9, n), 0)
    age = {"child": child, "young": (1 - child) * (1 - years), "old": (1 - child) * years}

    def three(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.clip(1 - 2 * x, 0, 1), 1 - np.abs(2 * x - 1), np.clip(2 * x - 1, 0, 1)

    muscle = dict(zip(MUSCLES, three(np.clip(rng.normal(0.5, 0.18, n), 0, 1)), strict=True))
    weight = dict(zip(WEIGHTS, three(np.clip(rng.normal(0.5, 0.22, n), 0, 1)), strict=True))
    columns = {f"{r}-{g}-{a}": race[r] * gender[g] * age[a] for r in RACES for g in GENDERS for a in AGES}
    columns |= {
        f"universal-{g}-{a}-{m}-{w}": gender[g] * age[a] * muscle[m] * weight[w]
        for g in GENDERS
        for a in AGES
        for m in MUSCLES
        for w in WEIGHTS
    }
    return np.stack([columns.get(name, np.zeros(n)) for name in names], 1).astype(np.float32)


def _sliders(names: list[str]) -> list[tuple[str, str | None]]:
    """Opposite targets as one slider (negative end, positive end); a target without an opposite is one-sided."""
    known, taken, out = set(names), set(), []
    for name in names:
        for low, high in OPPOSITES:
            other = name[: -len(low)] + high
            if name.endswith("-" + low) and other in known:
                out.append((name, other))
                taken |= {name, other}
    return out + [(name, None) for name in names if name not in taken]


def _local(rng: np.random.Generator, n: int, names: list[str]) -> np.ndarray:
    """(n, len(names)) weights of the local targets; a left slider carries its right twin with a little asymmetry."""
    sliders = [s for s in _sliders(names) if not UNUSED.search(s[0])]
    position = {low: i for i, (low, _) in enumerate(sliders)}
    value = np.clip(rng.normal(0, SLIDER_SIGMA, (n, len(sliders))), -1, 1)
    for i, (low, _) in enumerate(sliders):
        if (twin := position.get(low.replace("/l-", "/r-"))) not in (None, i):
            value[:, twin] = np.clip(value[:, i] + rng.normal(0, SLIDER_SIGMA / 4, n), -1, 1)
        if low.startswith("asym"):
            value[:, i] *= 0.5
    column = {name: i for i, name in enumerate(names)}
    out = np.zeros((n, len(names)), np.float32)
    for i, (low, high) in enumerate(sliders):
        if high is None:
            out[:, column[low]] = np.clip(value[:, i], 0, 1) * 0.8
        else:
            out[:, column[low]] = np.clip(-value[:, i], 0, 1)
            out[:, column[high]] = np.clip(value[:, i], 0, 1)
    return out


def _align(x: Tensor, reference: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted similarity Procrustes of x (n, V, 3) onto reference (V, 3); aligned x and scales (n,)."""
    w = (weight / weight.sum())[:, None]
    centre, target = (x * w).sum(1, keepdim=True), (reference * w).sum(0)
    x, y = x - centre, reference - target
    u, s, vt = torch.linalg.svd(torch.einsum("nvi,vj->nij", x, y * w))
    sign = torch.ones(len(x), 3)
    sign[:, 2] = torch.linalg.det(u @ vt).sign()
    scale = (s * sign).sum(1) / (x.square() * w).sum((1, 2))
    return scale[:, None, None] * (x @ ((u * sign[:, None]) @ vt)) + target, scale


def average_adult(base: Tensor, macros: dict[str, np.ndarray]) -> Tensor:
    """(V, 3) mean over the macro distribution, no local sliders."""
    weight = _macro(np.random.default_rng(5), 4000, list(macros)).mean(0)
    return base + torch.einsum("k,kvi->vi", torch.from_numpy(weight), torch.from_numpy(np.stack(list(macros.values()))))


def identity_modes(
    base: Tensor,
    macros: dict[str, np.ndarray],
    sliders: dict[str, np.ndarray],
    weight: Tensor,
    mirror: Tensor,
    *,
    symmetric: int,
    antisymmetric: int,
    samples: int = 4096,
    seed: int = 0,
) -> Modes:
    """Principal modes of sampled identities.

    base (V, 3), targets name -> (V, 3), weight (V,) importance of a vertex, mirror (V,) vertex permutation.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    targets = torch.from_numpy(np.concatenate([np.stack(list(macros.values())), np.stack(list(sliders.values()))])).flatten(1)
    reference, flip = average_adult(base, macros), torch.tensor([-1.0, 1.0, 1.0])
    people, scales = [], []
    for _ in range(samples // 256):
        w = np.concatenate([_macro(rng, 256, list(macros)), _local(rng, 256, list(sliders))], 1)
        aligned, scale = _align(base + (torch.from_numpy(w) @ targets).unflatten(1, (-1, 3)), reference, weight)
        people.append(aligned)
        scales.append(scale)
    people, scales = torch.cat(people), torch.cat(scales)
    mean = people.mean(0)
    mean = (mean + mean[mirror] * flip) / 2
    people -= mean
    basis, sign = [], []
    for parity, count in ((1, symmetric), (-1, antisymmetric)):
        half = ((people + parity * people[:, mirror] * flip) / 2).flatten(1)
        u, s, _ = torch.svd_lowrank(half * weight.sqrt().repeat_interleave(3), q=count + 12, niter=4)
        modes = (u[:, :count].T @ half).unflatten(1, (-1, 3)) / samples**0.5
        basis.append((modes + parity * modes[:, mirror] * flip) / 2)
        sign.append(torch.full((count,), float(parity)))
        held = (s[:count] ** 2).sum() / (half.square().sum(0) @ weight.repeat_interleave(3))
        log.info("parity %+d: %d modes hold %.2f %% of the variance", parity, count, 100 * held)
    basis, sign = torch.cat(basis), torch.cat(sign)
    order = (basis.square().sum(-1) @ weight).argsort(descending=True)
    spread = basis.square().sum((0, 2)).sqrt()
    size = 1 / scales
    log.info(
        "spread over the face %.2f mm, size of the samples %.3f +- %.3f", 1e3 * (spread @ weight) / weight.sum(), size.mean(), size.std()
    )
    return Modes(mean, basis[order], sign[order], float(scales.mean()))


def principal_axes(basis: Tensor, parity: Tensor, weight: Tensor) -> Tensor:
    """Rotate unit-variance modes (S, V, 3) within each parity until they are orthogonal under weight (V,), by falling variance.

    A rotation of independent unit-variance coefficients leaves them independent with unit variance.
    """
    flat = (basis * weight.sqrt()[:, None]).flatten(1)
    out = torch.zeros_like(basis)
    for sign in (1, -1):
        chosen = parity == sign
        _, axes = torch.linalg.eigh((flat[chosen] @ flat[chosen].T).double())
        out[chosen] = torch.einsum("ks,kvi->svi", axes.float(), basis[chosen])
    peak = out.flatten(1).gather(1, out.flatten(1).abs().argmax(1, keepdim=True)).sign()
    order = (out.square().sum(-1) @ weight).argsort(descending=True)
    return (out * peak[..., None])[order]
