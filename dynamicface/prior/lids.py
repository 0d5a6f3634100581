"""Eyelids that close over the eyeball, on any face.

A linear blink closes one face only: on another the lids stop short, cross, or cut through the eyeball. Here the upper lid's rim is
paired with the lower one; a blink moves it by a fraction of the gap measured on the face at hand, its neighbourhood follows, and
whatever of the lids would enter the eyeball is pushed out along the radius.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP = 3e-4
"""Metres the upper rim comes to lie below the lower one in a full blink, so that no slit shows where two polylines meet."""
CLEARANCE = 1.015
"""Lids stay outside this multiple of the eyeball's radius: a triangle between two lid vertices must clear the sphere as well."""


@dataclass(frozen=True, eq=False)
class Lids:
    """One eye's lids: P points of the upper rim, the points of the lower rim they meet, R vertices that follow, K vertices of the shell."""

    upper: Tensor  # (P,) int64
    lower: Tensor  # (P, 2) int64
    lower_weight: Tensor  # (P, 2)
    region: Tensor  # (R,) int64
    follow: Tensor  # (R, P) share of each rim point's correction
    shell: Tensor  # (K,) int64

    def gap(self, vertices: Tensor) -> Tensor:
        """Vertices (.., V, 3) -> from the upper rim to the lower, (.., P, 3) metres."""
        return (vertices[..., self.lower, :] * self.lower_weight[..., None]).sum(-2) - vertices[..., self.upper, :]

    def close(self, vertices: Tensor, blink: Tensor, travel: Tensor) -> Tensor:
        """Make a linear blink exact. vertices (.., V, 3) contain blink (..,) times travel (V, 3); after this the upper rim has gone the
        blink's share of the way to the lower, and all the way where the lids had crossed."""
        blink = blink[..., None, None]
        linear = blink * travel[self.upper]
        gap = self.gap(vertices) + linear - vertices.new_tensor([0, OVERLAP, 0])
        share = torch.where(gap[..., 1:2] > 0, 1.0, blink.clamp(0, 1))
        correction = share * gap - linear
        return vertices.index_add(-2, self.region, self.follow @ correction)

    def clear(self, vertices: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
        """Push the shell of vertices (.., V, 3) out of the eyeball, centre (.., 3), radius (..,)."""
        arm = vertices[..., self.shell, :] - centre[..., None, :]
        distance = arm.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        push = (CLEARANCE * radius[..., None, None] - distance).clamp_min(0)
        return vertices.index_add(-2, self.shell, arm / distance * push)

    def pack(self) -> dict[str, Tensor]:
        """Tensors to store."""
        return {f.name: v.float() if (v := getattr(self, f.name)).is_floating_point() else v.int() for f in dataclasses.fields(self)}

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor]) -> Lids:
        """Inverse of :meth:`pack`."""
        return cls(**{key: value if value.is_floating_point() else value.long() for key, value in tensors.items()})

    def map(self, change: Callable[[Tensor], Tensor]) -> Lids:
        """Apply a function to every tensor."""
        return Lids(**{f.name: change(getattr(self, f.name)) for f in dataclasses.fields(self)})
