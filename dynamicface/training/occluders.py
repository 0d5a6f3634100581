"""Things in front of faces, drawn: what the occlusion net learns from, with the exact mask; and what it must leave alone.

Drawn are patches cut out of other pictures, flat and shaded blobs, hands (fingers and a palm in skin colours), sticks and microphones,
strands and locks of hair, glasses and cloth. Left alone, and drawn too: shadows with hard and soft edges, coloured light, make-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import blur, pixel_grid, sample

_HAIR = ((0.02, 0.015, 0.012), (0.06, 0.035, 0.02), (0.16, 0.09, 0.05), (0.35, 0.24, 0.13), (0.45, 0.43, 0.4), (0.22, 0.06, 0.03))


@dataclass(frozen=True)
class Scene:
    """One linear picture (3, S, S), another one to cut from, and where the face is."""

    picture: Tensor
    other: Tensor
    position: Tensor  # (3, S, S) place on the mean head in decimetres
    face: Tensor  # (S, S) weight of the face


def occlude(scene: Scene, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The picture (3, S, S) with up to three things in front of its face, and their mask (S, S), 0..1."""
    artist = _Artist(scene, draw)
    artist.disturb()
    for _ in range(artist.pick((0.15, 0.6, 0.2, 0.05))):
        artist.add()
    return artist.picture, artist.mask


class _Artist:
    def __init__(self, scene: Scene, draw: torch.Generator) -> None:
        self.scene, self.draw = scene, draw
        self.picture, self.size = scene.picture, scene.picture.shape[-1]
        self.mask = torch.zeros(self.size, self.size)
        self.grid = pixel_grid(self.size, self.size, scene.picture)
        weight = scene.face.flatten()
        self.skin = (scene.picture.flatten(1) * weight).sum(1) / weight.sum().clamp_min(1e-6)

    # --- chance ---------------------------------------------------------------------------------------------------------

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.draw))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw)

    def pick(self, shares: tuple[float, ...]) -> int:
        return int(torch.multinomial(torch.tensor(shares, dtype=torch.float32), 1, generator=self.draw))

    def on_face(self) -> Tensor:
        """(2,) a place on the face, px."""
        return self.grid.view(-1, 2)[torch.multinomial(self.scene.face.flatten() + 1e-6, 1, generator=self.draw)[0]]

    def direction(self) -> Tensor:
        angle = self.uniform(0, 2 * math.pi)
        return torch.tensor([math.cos(angle), math.sin(angle)])

    def field(self, cells: int) -> Tensor:
        """(S, S) smooth noise of unit spread."""
        return F.interpolate(self.normal(1, 1, cells, cells), (self.size, self.size), mode="bicubic", align_corners=True)[0, 0]

    # --- what is not in front of the face -------------------------------------------------------------------------------

    def disturb(self) -> None:
        """Shadows, lights and make-up, none of which hides the face."""
        if self.uniform() < 0.25:
            edge = self.uniform(0.3, 12)
            side = (self.field(self.pick((0, 0, 0, 1, 1, 1))) * self.uniform(5, 20) / edge).sigmoid()
            if self.uniform() < 0.5:
                side = (((self.grid - self.on_face()) @ self.direction()) / edge).sigmoid()
            colour = 1 - self.uniform(0.2, 0.6) * (1 - 0.15 * torch.rand(3, generator=self.draw))
            self.picture = self.picture * torch.lerp(torch.ones(3)[:, None, None], colour[:, None, None], side)
        if self.uniform() < 0.25:
            soft = torch.exp(-0.5 * ((self.grid - self.on_face()).norm(dim=-1) / self.uniform(2, 10)) ** 2)
            self.picture = self.picture + soft * self.uniform(0.05, 0.6) * self.skin.max()
        if self.uniform() < 0.2:
            tint = (0.25 * self.normal(3)).exp()[:, None, None]
            place = torch.tensor([[0.3, 0.0], [-0.3, 0.0], [0.0, -0.75], [0.45, -0.35]])[self.pick((1, 1, 1, 1))]
            near = ((self.scene.position[:2] - place[:, None, None]).norm(dim=0) / self.uniform(0.08, 0.25)) ** 4
            both = torch.exp(-near - torch.exp(-near)) if self.uniform() < 0.2 else torch.exp(-near)
            self.picture = self.picture * torch.lerp(torch.ones_like(tint), tint * self.uniform(0.5, 1.1), both)

    # --- what is --------------------------------------------------------------------------------------------------------

    def add(self) -> None:
        shapes = (self.patch, self.hand, self.stick, self.strands, self.lock, self.glasses, self.cloth)
        colour, alpha = shapes[self.pick((0.28, 0.26, 0.14, 0.1, 0.1, 0.09, 0.03))]()
        if self.uniform() < 0.4:
            radius = self.pick((0, 0.6, 0.3, 0.1))
            alpha = blur(alpha[None, None], radius, 2)[0, 0]
        if self.uniform() < 0.5:  # it throws a shadow
            shift = (self.direction() * self.uniform(0, 8)).round().long().tolist()
            shadow = blur(alpha.roll(shift, (0, 1))[None, None], int(self.uniform(1, 6)), 2)[0, 0]
            self.picture = self.picture * (1 - shadow * self.uniform(0.1, 0.6))
        self.picture = torch.lerp(self.picture, colour, alpha)
        self.mask = self.mask + (1 - self.mask) * alpha

    def cut(self, distance: Tensor) -> Tensor:
        """(S, S) alpha of what is inside (distance < 0, px), edges smooth."""
        return (0.5 - distance).clamp(0, 1)

    def cloth_colour(self) -> Tensor:
        """(3, S, S) some surface: flat, graded, striped, noisy, or out of the other picture."""
        kind = self.pick((0.3, 0.25, 0.2, 0.25))
        if kind == 0:
            scale, shift = self.uniform(0.4, 2.5), self.on_face()
            at = ((self.grid - self.size / 2) / scale + shift) % self.size
            return sample(self.scene.other[None], at[None])[0] * self.uniform(0.5, 1.6)
        colour = torch.rand(3, 1, 1, generator=self.draw) ** 2 * self.uniform(0.05, 1.2)
        if self.uniform() < 0.4:
            colour = colour.mean().expand(3, 1, 1)
        graded = colour * (self.field(3) * 0.3 - 0.1).exp()
        if kind == 2:
            wave = torch.sin(self.grid @ self.direction() * self.uniform(0.2, 1.5))
            return graded * (1 + self.uniform(0.1, 0.8) * wave)
        return graded * (self.field(40) * self.uniform(0.05, 0.5)).exp() if kind == 3 else graded

    def skin_colour(self) -> Tensor:
        """(3, 1, 1) somebody's skin, mostly that of the face itself."""
        own = self.skin
        if self.uniform() < 0.3:
            a = self.uniform()
            own = torch.tensor([0.6, 0.36, 0.26]) ** (1 - a) * torch.tensor([0.07, 0.035, 0.022]) ** a * self.uniform(0.7, 1.3)
        return (own * (0.12 * self.normal(3)).exp() * math.exp(0.25 * float(self.normal(1))))[:, None, None]

    def shaded(self, colour: Tensor, depth: Tensor) -> Tensor:
        """A surface (3, S, S) of that colour with the relief `depth` (S, S), px, under some light."""
        slope = torch.stack([F.pad(depth.diff(dim=1), (0, 1)), F.pad(depth.diff(dim=0), (0, 0, 0, 1))])
        normal = F.normalize(torch.cat([-slope, torch.ones_like(slope[:1])]), dim=0)
        lamp = F.normalize(torch.cat([self.direction() * self.uniform(0.2, 1.2), torch.ones(1)]), dim=0)
        shade = 0.35 + 0.8 * (normal * lamp[:, None, None]).sum(0).clamp_min(0)
        return colour * shade * (self.field(24) * self.uniform(0.0, 0.12)).exp()

    def capsule(self, a: Tensor, b: Tensor) -> Tensor:
        """(S, S) distance to a segment, px."""
        along = b - a
        t = (((self.grid - a) @ along) / along.square().sum().clamp_min(1e-6)).clamp(0, 1)
        return (self.grid - a - t[..., None] * along).norm(dim=-1)

    def patch(self) -> tuple[Tensor, Tensor]:
        """A blob of any surface."""
        radius = self.uniform(5, 32)
        at = self.grid - self.on_face()
        across = self.direction()
        stretched = torch.stack([at @ across * self.uniform(0.5, 1), at @ torch.stack([-across[1], across[0]])], -1)
        distance = stretched.norm(dim=-1) - radius + self.field(int(self.uniform(3, 9))) * radius * self.uniform(0, 0.5)
        if self.uniform() < 0.2:
            distance = stretched.abs().amax(-1) - radius
        return self.cloth_colour(), self.cut(distance)

    def hand(self) -> tuple[Tensor, Tensor]:
        """Fingers side by side and the palm behind them."""
        width, count = self.uniform(4, 8.5), 1 + self.pick((0.15, 0.1, 0.2, 0.4, 0.15))
        tip, towards = self.on_face(), self.direction()
        across = torch.stack([-towards[1], towards[0]])
        depth, distance = torch.zeros_like(self.mask), torch.full_like(self.mask, 1e3)
        spread = self.uniform(0, 0.35)
        for k in range(count):
            place = k - (count - 1) / 2
            end = tip + across * place * 2 * width * self.uniform(0.92, 1.05) + towards * self.uniform(0, 1.3) * width
            knuckle = tip + across * place * 2 * width * (1 - spread) + towards * self.uniform(4, 6) * width
            bend = (end + knuckle) / 2 + across * self.uniform(-0.5, 0.5) * width
            thick = width * self.uniform(0.85, 1.1)
            near = torch.minimum(self.capsule(end, bend), self.capsule(bend, knuckle)) - thick
            bulge = (thick**2 - (near + thick).square()).clamp_min(0).sqrt()
            depth, distance = torch.maximum(depth, bulge), torch.minimum(distance, near)
        palm = tip + towards * (5 + 0.8 * count) * width
        near = self.capsule(palm, palm + towards * 60) - width * (0.9 * count + 0.6)
        depth = torch.maximum(depth, (width**2 - (near + width).clamp_min(0).square()).clamp_min(0).sqrt())
        alpha = self.cut(torch.minimum(distance, near))
        return self.shaded(self.skin_colour(), blur(depth[None, None], 1, 1)[0, 0]), alpha

    def stick(self) -> tuple[Tensor, Tensor]:
        """A stick, a pen, a cable, a cigarette; often with a ball at its end, as a microphone has."""
        width, start, towards = self.uniform(0.7, 5), self.on_face(), self.direction()
        if self.uniform() < 0.6:
            towards = F.normalize(towards * torch.tensor([1.0, 0.3]) + torch.tensor([0.0, 1.0]), dim=0)
        near = self.capsule(start, start + towards * self.uniform(30, 150)) - width
        depth = (width**2 - (near + width).square()).clamp_min(0).sqrt()
        colour = self.cloth_colour()
        if self.uniform() < 0.55:
            ball = width * self.uniform(1.2, 4)
            at = (self.grid - start).norm(dim=-1)
            depth = torch.maximum(depth, (ball**2 - at**2).clamp_min(0).sqrt())
            near = torch.minimum(near, at - ball)
            mesh = torch.sin(self.grid[..., 0] * self.uniform(1, 3)) * torch.sin(self.grid[..., 1] * self.uniform(1, 3))
            colour = torch.where(at < ball, colour.mean() * (1 + self.uniform(0, 0.6) * mesh), colour)
        return self.shaded(colour, depth), self.cut(near)

    def curve(self, wild: float) -> Tensor:
        """(24, 2) points of a curve that falls across the face, px."""
        start = self.on_face() + torch.tensor([self.uniform(-20, 20), self.uniform(-60, -15)])
        end = start + torch.tensor([self.uniform(-30, 30), self.uniform(25, 90)])
        bend = [(start + (end - start) * t) + wild * self.normal(2) for t in (0.35, 0.7)]
        t = torch.linspace(0, 1, 24)[:, None]
        return (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * bend[0] + 3 * t * t * (1 - t) * bend[1] + t**3 * end

    def along(self, curve: Tensor) -> Tensor:
        """(S, S) distance to a curve, px."""
        a, b = curve[:-1, None], curve[1:, None]
        points, d = self.grid.view(1, -1, 2), b - a
        t = (((points - a) * d).sum(-1) / d.square().sum(-1).clamp_min(1e-6)).clamp(0, 1)
        return (points - a - t[..., None] * d).norm(dim=-1).amin(0).view(self.size, self.size)

    def hair_colour(self) -> Tensor:
        colour = torch.tensor(_HAIR[self.pick((1,) * len(_HAIR))]) * (0.3 * self.normal(3)).exp().mean() * self.uniform(0.5, 1.8)
        return colour[:, None, None] * (self.field(20) * 0.3).exp()

    def strands(self) -> tuple[Tensor, Tensor]:
        """Single hairs and thin bunches of them."""
        first, alpha = self.curve(8), torch.zeros_like(self.mask)
        for _ in range(int(self.uniform(1, 9))):
            other = self.curve(8) if self.uniform() < 0.3 else first + 5 * self.normal(2) + 2 * self.normal(24, 1).cumsum(0) / 5
            alpha = torch.maximum(alpha, self.cut(self.along(other) - self.uniform(0.0, 1.2)))
        return self.hair_colour(), alpha * self.uniform(0.75, 1)

    def lock(self) -> tuple[Tensor, Tensor]:
        """A lock of hair that tapers."""
        curve = self.curve(10)
        width = self.uniform(2, 13)
        a = (self.grid.view(-1, 1, 2) - curve).square().sum(-1)
        nearest = a.amin(1).sqrt().view(self.size, self.size)
        t = a.argmin(1).view(self.size, self.size) / 23
        streaks = torch.sin(nearest * self.uniform(0.8, 2.5) + self.field(10))
        return self.hair_colour() * (1 + 0.35 * streaks), self.cut(nearest - width * (1.05 - t))

    def glasses(self) -> tuple[Tensor, Tensor]:
        """Rims, a bridge, bows; lenses that hide the eyes now and then."""
        position = self.scene.position
        across = self.uniform(0.2, 0.3)
        down, power, thick = across * self.uniform(0.6, 1), self.uniform(2, 5), self.uniform(0.008, 0.04)
        x, y = position[0], position[1] + self.uniform(0.0, 0.08)
        shown = self.scene.face > 0.02
        lens = (((x.abs() - 0.32) / across).abs() ** power + (y / down).abs() ** power) ** (1 / power) - 1
        scale = down
        rim = (lens.abs() * scale - thick) / 0.016
        bridge = torch.maximum((y - 0.05).abs() - thick, x.abs() - 0.32 + across) / 0.016
        bow = torch.maximum((y - 0.05).abs() - thick, 0.32 + across - x.abs()) / 0.016
        alpha = self.cut(torch.minimum(torch.minimum(rim, bridge), bow))
        colour = torch.rand(3, 1, 1, generator=self.draw) ** 2 * self.uniform(0.0, 0.5) * torch.ones_like(position)
        if self.uniform() < 0.45:
            inside = self.cut(lens * scale / 0.016)
            alpha = torch.maximum(alpha, inside * self.uniform(0.7, 1))
        return colour * (1 + self.uniform(0, 2) * self.field(8).clamp_min(0)), alpha * shown

    def cloth(self) -> tuple[Tensor, Tensor]:
        """A mask, a scarf, a hat: everything on one side of a line that bends."""
        position = self.scene.position
        height, bend = (self.uniform(-0.55, -0.2), self.uniform(-1.5, 0.5)) if self.uniform() < 0.7 else (self.uniform(0.3, 0.6), 0)
        edge = position[1] - height - bend * position[0].square() + 0.02 * self.field(6)
        shown = (self.scene.position.abs().sum(0) > 0).float()
        inside = self.cut(edge / 0.016 * (1 if height < 0 else -1)) * shown
        return self.shaded(self.cloth_colour(), 12 * self.field(8)), inside
