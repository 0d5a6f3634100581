"""Things in front of faces, drawn: what the occlusion net learns from, with the exact mask; and what it must leave alone.

Drawn are patches cut out of other pictures, flat and shaded blobs, bare skin, hands (fingers, a thumb and a palm in skin colours), sticks,
straps and microphones, cups and boxes, strands, locks and fringes of hair, glasses and cloth. Left alone, and drawn too: shadows with hard
and soft edges, coloured light, make-up.
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
    for _ in range(artist.pick((0.2, 0.57, 0.19, 0.04))):
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
        shapes = (self.patch, self.hand, self.stick, self.thing, self.strands, self.lock, self.fringe, self.glasses, self.cloth)
        colour, alpha = shapes[self.pick((0.19, 0.26, 0.13, 0.06, 0.11, 0.05, 0.04, 0.11, 0.05))]()
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
        """(3, S, S) some surface: out of the other picture, graded, striped, noisy, or flat, to pure white and black."""
        kind = self.pick((0.3, 0.2, 0.15, 0.2, 0.15))
        if kind == 0:
            scale, shift = self.uniform(0.4, 2.5), self.on_face()
            at = ((self.grid - self.size / 2) / scale + shift) % self.size
            return sample(self.scene.other[None], at[None])[0] * self.uniform(0.5, 1.6)
        colour = torch.rand(3, 1, 1, generator=self.draw) ** 2 * self.uniform(0.05, 1.2)
        if self.uniform() < 0.4:
            colour = colour.mean().expand(3, 1, 1)
        if kind == 4:
            return (colour * self.uniform(0.2, 1.6)).clamp(0, 1).expand(3, self.size, self.size)
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
        """A blob of any surface, or of bare skin: an arm, a shoulder, another head."""
        radius = self.uniform(5, 32)
        at = self.grid - self.on_face()
        across = self.direction()
        stretched = torch.stack([at @ across * self.uniform(0.5, 1), at @ torch.stack([-across[1], across[0]])], -1)
        distance = stretched.norm(dim=-1) - radius + self.field(int(self.uniform(3, 9))) * radius * self.uniform(0, 0.5)
        if self.uniform() < 0.2:
            distance = stretched.abs().amax(-1) - radius
        alpha = self.cut(distance)
        if self.uniform() < 0.25:
            return self.shaded(self.skin_colour(), self.rounded(distance, radius * self.uniform(0.2, 0.8))), alpha
        return self.cloth_colour(), alpha

    def rounded(self, distance: Tensor, radius: float) -> Tensor:
        """(S, S) height, px, of a body that rises round from its outline (distance 0) and is flat from `radius` inwards."""
        return (radius**2 - (distance + radius).clamp_min(0).square()).clamp_min(0).sqrt()

    def hand(self) -> tuple[Tensor, Tensor]:
        """Fingers side by side or spread, often a thumb, and the palm and the arm behind them; dark where one touches the next."""
        width, count = self.uniform(2.8, 7), 1 + self.pick((0.12, 0.12, 0.2, 0.46, 0.1))
        tip, towards = self.on_face(), self.direction()
        across = torch.stack([-towards[1], towards[0]])
        length, spread, gap = self.uniform(2, 6.5), self.uniform(-0.35, 0.35), self.uniform(1.9, 2.6)
        palm = tip + towards * length * width
        fingers = []
        for k in range(count):
            place = (k - (count - 1) / 2) * gap * width
            end = tip + across * place * (1 + spread) + towards * self.uniform(0, 1.3) * width
            knuckle = palm + across * place * 0.9
            bend = (end + knuckle) / 2 + across * self.uniform(-0.5, 0.5) * width
            fingers.append(torch.minimum(self.capsule(end, bend), self.capsule(bend, knuckle)) - width * self.uniform(0.85, 1.1))
        if self.uniform() < 0.6:
            side = across if self.uniform() < 0.5 else -across
            root = palm + towards * self.uniform(1, 3) * width
            point = root + side * width * self.uniform(2.5, 5.5) - towards * width * self.uniform(-1, 4)
            fingers.append(self.capsule(root, point) - width * self.uniform(0.9, 1.2))
        broad = width * (0.5 * gap * count + 0.3)
        wrist = palm + towards * (broad + self.uniform(0, 4) * width)
        back, arm = self.capsule(palm + towards * 0.6 * broad, wrist) - broad, self.capsule(wrist, wrist + towards * 90) - 0.75 * broad
        near = torch.stack([*fingers, torch.minimum(back, arm)])
        depth = torch.stack([self.rounded(distance, width) for distance in near]).amax(0)
        crease = torch.exp(-((near[:-1] / self.uniform(0.5, 1.2)) ** 2)).amax(0) * self.uniform(0, 0.5)
        colour = self.shaded(self.skin_colour(), blur(depth[None, None], 1, 1)[0, 0]) * (1 - crease)
        return colour, self.cut(near.amin(0))

    def stick(self) -> tuple[Tensor, Tensor]:
        """A stick, a strap, a pen, a cable, a cigarette; often with a ball at its end, as a microphone has."""
        width, start, towards = self.uniform(0.7, 5), self.on_face(), self.direction()
        if self.uniform() < 0.6:
            towards = F.normalize(towards * torch.tensor([1.0, 0.3]) + torch.tensor([0.0, 1.0]), dim=0)
        first = start if self.uniform() < 0.75 else start - towards * 150  # a strap comes in on one side and goes out on the other
        near = self.capsule(first, start + towards * self.uniform(30, 150)) - width
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

    def thing(self) -> tuple[Tensor, Tensor]:
        """A cup, a telephone, a ball, a box: rounded and shaded like a cylinder, with a highlight and now and then a stripe."""
        at, axis = self.grid - self.on_face(), self.direction()
        x, y = at @ axis, at @ torch.stack([-axis[1], axis[0]])
        half, tall, power = self.uniform(5, 26), self.uniform(5, 32), self.uniform(1.8, 8)
        inside = ((x / half).abs() ** power + (y / tall).abs() ** power) ** (1 / power) - 1
        slant = (x / half).clamp(-1, 1) * self.uniform(0, 1)
        colour = self.cloth_colour() * (1 - 0.5 * self.uniform() * slant.square()) * (1 + 0.5 * self.uniform(-1, 1) * slant)
        shine = torch.exp(-(((slant - self.uniform(-0.6, 0.6)) / self.uniform(0.03, 0.2)) ** 2))
        if self.uniform() < 0.3:
            band = ((y - self.uniform(-0.7, 0.7) * tall).abs() < self.uniform(0.05, 0.4) * tall).float()
            colour = torch.lerp(colour, torch.rand(3, 1, 1, generator=self.draw).expand_as(colour), band)
        return colour + shine * self.uniform(0, 0.4), self.cut(inside * min(half, tall))

    def along(self) -> tuple[Tensor, Tensor]:
        """How far along a curve that falls across the face each pixel lies, 0..1, and how far beside it, px: (S, S) each."""
        start = self.on_face() + torch.tensor([self.uniform(-20, 20), self.uniform(-60, -15)])
        end = start + torch.tensor([self.uniform(-30, 30), self.uniform(25, 100)])
        bend = [(start + (end - start) * t) + 8 * self.normal(2) for t in (0.35, 0.7)]
        t = torch.linspace(0, 1, 13)[:, None]
        curve = (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * bend[0] + 3 * t * t * (1 - t) * bend[1] + t**3 * end
        d = curve.diff(dim=0)
        offset = self.grid.view(-1, 1, 2) - curve[:-1]
        share = (offset * d).sum(-1) / d.square().sum(-1).clamp_min(1e-6)
        share = share.clamp(0, 1)
        aside = offset - share[..., None] * d
        distance, which = aside.square().sum(-1).min(1)
        picked = which[:, None]
        cross = (offset[..., 0] * d[:, 1] - offset[..., 1] * d[:, 0]).gather(1, picked)[:, 0]
        beside = distance.sqrt() * cross.sign()
        way = (which + share.gather(1, picked)[:, 0]) / len(d)
        return way.view(self.size, self.size), beside.view(self.size, self.size)

    def hair_colour(self) -> Tensor:
        colour = torch.tensor(_HAIR[self.pick((1,) * len(_HAIR))]) * (0.3 * self.normal(3)).exp().mean() * self.uniform(0.5, 1.8)
        return colour[:, None, None] * (self.field(20) * 0.3).exp()

    def strands(self) -> tuple[Tensor, Tensor]:
        """Single hairs and bunches of them, near each other or wide apart."""
        way, beside = self.along()
        alpha, light = torch.zeros_like(way), torch.ones_like(way)
        wide, wild = self.uniform(0, 9), self.uniform(0, 6)
        for _ in range(1 + int(self.uniform(0, 1) ** 2 * 24)):
            shift, slope, bow = (self.normal(3) * torch.tensor([wide, wide, wild])).tolist()
            strand = self.cut((beside - shift - slope * (way - 0.5) - 4 * bow * way * (1 - way)).abs() - self.uniform(0.0, 1.3))
            strand = strand * ((way > 0.001) & (way < 0.999))
            alpha, light = torch.maximum(alpha, strand), torch.lerp(light, light.new_tensor(self.uniform(0.6, 1.5)), strand)
        return self.hair_colour() * light, alpha * self.uniform(0.75, 1)

    def lock(self) -> tuple[Tensor, Tensor]:
        """A lock of hair that tapers."""
        way, beside = self.along()
        streaks = torch.sin(beside * self.uniform(0.8, 2.5) + self.field(10))
        return self.hair_colour() * (1 + 0.35 * streaks), self.cut(beside.abs() - self.uniform(2, 13) * (1.05 - way))

    def fringe(self) -> tuple[Tensor, Tensor]:
        """Hair that hangs over the forehead and ends in points."""
        x, y = self.scene.position[0] + 0.05 * self.field(4), self.scene.position[1]
        teeth = torch.sin(x * self.uniform(5, 40) + self.uniform(0, 6)).abs() ** self.uniform(0.5, 2)
        level = self.uniform(0.05, 0.6) + self.uniform(0.05, 0.5) * teeth + self.uniform(-0.5, 0.5) * x + 0.04 * self.field(16)
        streaks = torch.sin(x * self.uniform(40, 150) + self.field(8))
        shown = (self.scene.position.abs().sum(0) > 0).float()
        return self.hair_colour() * (1 + 0.35 * streaks), self.cut((level - y) / 0.016) * shown

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
        if self.uniform() < 0.5:
            colour = colour.mean() * torch.ones_like(position)
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
