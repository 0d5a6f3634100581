"""The face's texture: taken from photographs through the fit, completed where no photograph sees, and freed of light.

Texture space is `conventions.py`, *UV*; radiance and albedo are linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conventions import PARTS
from ..filters import dilate, fill_holes, masked_blur, sample
from ..landmark_sets import BROWS
from . import light
from .atlas import face_region
from .geometry import PosedHead
from .head import HeadModel
from .raster import rasterise

SKIN_PARTS = tuple(PARTS.index(p) for p in ("skin", "lips", "ears", "neck"))
_AXIS_Z = -0.085  # the cylinder's axis behind the eyes, metres
_SKIN_LIGHT = (0.78, 0.50, 0.36)  # linear albedo at the two ends of the range of human skin
_SKIN_DARK = (0.085, 0.042, 0.026)
_MINIMUM_FACING, _FULL_FACING = 0.2, 0.6
_LIGHT_SAMPLES = 3_000  # texels that decide the light
_DEPTH_TOLERANCE = 0.006
_MAX_HIGHLIGHT, _MAX_LIGHT, _SHADE = 1.5, 4.0, 0.25  # of the skin's own radiance: paled by a highlight; in its own colour, more and less


@dataclass(frozen=True)
class Atlas:
    """Which surface point each texel of a U x U texture shows."""

    texel: Tensor  # (P,) flat indices into U*U
    corner: Tensor  # (P, 3) vertex indices
    weight: Tensor  # (P, 3) barycentrics
    part: Tensor  # (P,) index into PARTS
    size: int

    def gather(self, attribute: Tensor) -> Tensor:
        """Vertex attribute (F, V, C) at the texels: (F, P, C)."""
        frames, vertices, channels = attribute.shape
        shared = attribute.transpose(0, 1).reshape(vertices, -1)  # one row per vertex for all frames
        values = F.embedding_bag(self.corner, shared, per_sample_weights=self.weight, mode="sum")
        return values.unflatten(1, (frames, channels)).transpose(0, 1)

    def scatter(self, values: Tensor) -> Tensor:
        """(F, P, C) -> (F, C, U, U), 0 where there is no surface."""
        out = values.new_zeros(len(values), self.size * self.size, values.shape[-1])
        return out.index_copy(1, self.texel, values).mT.unflatten(-1, (self.size, self.size))

    def skin(self) -> Tensor:
        """(P,) bool: the texel shows skin or lips."""
        return torch.isin(self.part, torch.tensor(SKIN_PARTS, device=self.part.device))


@lru_cache(maxsize=8)
def atlas(head: HeadModel, size: int) -> Atlas:
    """The head's texture atlas; where surfaces overlap (inside of the lips, nostrils) the outermost wins."""
    radius = torch.hypot(head.template[:, 0], head.template[:, 2] - _AXIS_Z)
    raster = rasterise(torch.cat([head.uv * size, 1 - radius[:, None]], -1)[None], head.faces, (size, size))
    face = raster.face.view(-1)[raster.pixel]
    return Atlas(raster.pixel, raster.corner, raster.weight, head.part[face], size)


def extract(crops: Tensor, posed: PosedHead, size: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Read the texture from pictures.

    crops: (F, 3, H, W) linear radiance in the posed head's crops; mask (F, H, W) 1 where the picture shows the face itself.
    Returns radiance (F, 3, U, U) and weight (F, 1, U, U): 1 = seen squarely, 0 = hidden, turned away or outside the picture.
    """
    table = atlas(posed.head, size)
    points = table.gather(posed.screen)
    facing = table.gather(posed.facing[..., None])[..., 0]
    seen = sample(posed.depth, points[..., :2], mode="nearest")[:, 0]
    inside = (points[..., :2] > 0).all(-1) & (points[..., :2] < posed.size).all(-1)
    weight = ((facing - _MINIMUM_FACING) / (_FULL_FACING - _MINIMUM_FACING)).clamp(0, 1)
    weight = weight * (inside & (points[..., 2] < seen + _DEPTH_TOLERANCE))
    if mask is not None:
        weight = weight * sample(mask[:, None], points[..., :2])[:, 0]
    colour = sample(crops, points[..., :2])
    return table.scatter(colour.mT), table.scatter(weight[..., None])


def skin_likelihood(radiance: Tensor, weight: Tensor, head: HeadModel) -> Tensor:
    """(F, 1, U, U) 1 on skin, towards 0 where hair, a hat or a strap lies over the border of the face.

    Inside (lids, brows, cheeks, nose, mouth) nothing is judged; towards the hair line a texel is compared with that inner skin continued
    outwards, as it is or under a highlight: brighter, in its own colour or paled by the lamp's.
    radiance (F, 3, U, U) linear, weight (F, 1, U, U) as :func:`extract` returns them.
    """
    inner = inner_face(head, radiance.shape[-1])
    logs = radiance.clamp_min(2e-3).log()
    known = (weight * inner).clamp(0, 0.99)
    expected = fill_holes(masked_blur(logs, known, max(radiance.shape[-1] // 40, 1)), known)
    smooth = masked_blur(logs, weight.clamp_min(1e-3), max(radiance.shape[-1] // 170, 1))
    skin, seen = expected.exp(), smooth.exp()
    level = skin.mean(1, keepdim=True)
    region = head_region(head, radiance.shape[-1])  # beside the face a bright background begins
    change = seen.mean(1, keepdim=True) / level - 1
    shine = change.clamp_min(0).minimum(_MAX_HIGHLIGHT * region) * level
    lit = skin * (1 + change.minimum(_MAX_LIGHT * region).clamp_min(-_SHADE)), skin + shine
    distance = torch.stack([(smooth - like.log()).abs().mean(1, keepdim=True) for like in lit]).amin(0)
    likely = 1 / (1 + (distance / 0.33) ** 6)
    likely = -dilate(-likely, max(radiance.shape[-1] // 128, 1))
    return likely + (1 - likely) * inner


@lru_cache(maxsize=8)
def inner_face(head: HeadModel, size: int) -> Tensor:
    """(1, 1, U, U) 1 in the middle of the face, where hair hardly ever falls: from the brows to the chin."""
    region = head_region(head, size)[None]
    middle = ((masked_blur(region, torch.ones_like(region), size // 20) - 0.75) / 0.2).clamp(0, 1)
    brows = head.landmarks(head.template)[[*BROWS[0], *BROWS[1]]]
    near = torch.cdist(_positions(head, size)[0].flatten(1).T, brows).amin(1).view(1, 1, size, size)
    return torch.maximum(middle * below_brows(head, size), ((9e-3 - near) / 3e-3).clamp(0, 1))


@lru_cache(maxsize=8)
def below_brows(head: HeadModel, size: int) -> Tensor:
    """(1, 1, U, U) 1 below the brows, where beards grow, 0 where fringes and hats begin."""
    return ((0.022 - _positions(head, size)[:, 1:2]) / 6e-3).clamp(0, 1)


def _positions(head: HeadModel, size: int) -> Tensor:
    """(1, 3, U, U) of the mean head's surface, metres."""
    table = atlas(head, size)
    return table.scatter(table.gather(head.template[None]))


def complete(texture: Tensor, weight: Tensor, skin: Tensor) -> Tensor:
    """Fill unseen texels from the mirrored side where that was seen, else smoothly from the surroundings.

    texture (F, 3, U, U), weight (F, 1, U, U); skin (1, 1, U, U) bool keeps the mirror to the symmetric part of the atlas.
    """
    mirrored = weight.flip(-1) * skin * 0.999
    gap = (1 - weight / 0.3).clamp(0, 1)
    # The other side is lit differently: carry its detail on this side's low frequencies.
    radius = max(texture.shape[-1] // 32, 1)
    ground = fill_holes(texture, (weight * skin).clamp(0, 1))
    ground = masked_blur(ground, skin.to(texture.dtype).expand_as(weight), radius)
    other = texture.flip(-1)
    detail = other / masked_blur(other, mirrored.clamp_min(1e-5), radius).clamp_min(1e-3)
    candidate = ground * detail.clamp(0.25, 3)
    share = gap * (mirrored / 0.3).clamp(0, 1)
    known = 1 - gap + share
    return fill_holes(torch.lerp(texture, candidate, share / known.clamp_min(1e-4)), known)


def skin_tone(radiance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Split the mean skin radiance (.., 3) of texels (.., P, 3) with weights (.., P) into albedo and light colour.

    The albedo is the nearest point on the line between light and dark human skin in log RGB; what is left is the light.
    A photograph is assumed to be exposed so that skin lit by its mean light has its own brightness.
    """
    mean = (radiance * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True).clamp_min(1e-6)
    start, end = (mean.new_tensor(c).log() for c in (_SKIN_LIGHT, _SKIN_DARK))
    axis = end - start
    observed = mean.clamp_min(1e-4).log()
    place = ((observed - start) @ axis / (axis @ axis)).clamp(0, 1)
    albedo = (start + place[..., None] * axis).exp()
    return albedo, mean / albedo


def relative_albedo(head: HeadModel, size: int) -> Tensor:
    """The mean head's albedo over its mean skin colour, (3, U, U): what lips, brows and lids do to any skin."""
    table = atlas(head, size)
    mean = F.interpolate(head.albedo[None], (size, size), mode="bilinear", align_corners=False)[0]
    skin = mean.flatten(1)[:, table.texel[table.part == 0]].mean(1)
    return mean / skin[:, None, None]


def separate(radiance: Tensor, weight: Tensor, normal: Tensor, head: HeadModel) -> tuple[Tensor, Tensor, Tensor]:
    """Albedo and light of one person from F textures.

    radiance (F, 3, U, U), weight (F, 1, U, U), normal (F, V, 3) camera space.
    Returns albedo (3, U, U), its weight (1, U, U) and illumination (F, 9, 3).
    """
    size = radiance.shape[-1]
    table = atlas(head, size)
    skin = table.texel[table.skin()]
    samples = radiance.flatten(2)[:, :, skin].mT
    trust = weight.flatten(2)[:, 0, skin] * head_region(head, size).flatten()[skin]
    normals = F.normalize(table.gather(normal), dim=-1)
    tone, _ = skin_tone(samples, trust)
    guess = relative_albedo(head, size).flatten(1)[:, skin].mT * tone.mean(0)
    step = max(1, len(skin) // _LIGHT_SAMPLES)
    illumination = light.estimate(
        samples[:, ::step], guess[::step].expand(len(samples), -1, -1), normals[:, table.skin()][:, ::step], trust[:, ::step]
    )
    shading = broad_shading(normal, illumination, head, size)
    total = weight.sum(0).clamp_min(1e-4)
    albedo = (radiance / shading * weight).sum(0) / total
    return albedo.clamp(0, 1.5), weight.amax(0), illumination


def broad_shading(normal: Tensor, illumination: Tensor, head: HeadModel, size: int) -> Tensor:
    """Shading (F, 3, U, U) of vertices with normals (F, V, 3) under (F, 9, 3), smoothed: where a mesh's normals turn fast (sides of the
    nose) its detail is not the photograph's."""
    table = atlas(head, size)
    lit = light.shade(F.normalize(table.gather(normal), dim=-1), illumination)
    return masked_blur(table.scatter(lit), table.scatter(torch.ones_like(lit[..., :1])), max(size // 28, 1)).clamp_min(1e-3)


def light_under(radiance: Tensor, weight: Tensor, normal: Tensor, albedo: Tensor, head: HeadModel) -> Tensor:
    """Light (F, 9, 3) of F textures (F, 3, U, U) of a person whose albedo (3, A, A) is known; arguments as in :func:`separate`."""
    size = radiance.shape[-1]
    table = atlas(head, size)
    chosen = table.skin()
    skin = table.texel[chosen]
    trust = weight.flatten(2)[:, 0, skin] * head_region(head, size).flatten()[skin]
    known = F.interpolate(albedo[None], (size, size), mode="area").flatten(2)[:, :, skin].mT
    normals = F.normalize(table.gather(normal)[:, chosen], dim=-1)
    samples = radiance.flatten(2)[:, :, skin].mT
    step = max(1, len(skin) // _LIGHT_SAMPLES)
    some = (x[:, ::step] for x in (samples, known.expand(len(samples), -1, -1), normals, trust))
    return light.estimate(*some)


def finish_albedo(albedo: Tensor, weight: Tensor, head: HeadModel) -> Tensor:
    """A whole albedo texture (3, U, U) from a partly seen one: mirrored and continued on the skin, the mean head's elsewhere.

    Texels that are neither skin nor eyes (teeth, tongue, inner mouth) always come from the head model.
    """
    size = albedo.shape[-1]
    table = atlas(head, size)
    skin = torch.zeros(size * size, dtype=torch.bool, device=albedo.device)
    skin[table.texel[table.skin()]] = True
    skin = skin.view(1, 1, size, size)
    region = head_region(head, size)[None]
    trusted = weight[None] * skin
    filled = complete(albedo[None], trusted, skin)
    mean = F.interpolate(head.albedo[None], (size, size), mode="bilinear", align_corners=False)
    tone = (filled * region * skin).sum((-2, -1)) / (region * skin).sum().clamp_min(1e-6)
    own = relative_albedo(head, size)[None] * tone[..., None, None]
    outer = torch.where(skin, torch.maximum(region, (trusted > 0.3).to(region.dtype)), 0.0)
    outer = masked_blur(outer, torch.ones_like(outer), max(size // 64, 1)) * skin
    whole = torch.where(skin, filled * outer + own * (1 - outer), mean)
    eyes = torch.isin(table.part, torch.tensor([PARTS.index("eye_left"), PARTS.index("eye_right")], device=albedo.device))
    eye_texel = torch.zeros_like(skin.view(-1))
    eye_texel[table.texel[eyes]] = True
    seen = -dilate(-weight[None], size // 100)  # the rim of what shows is lid and lash
    eye_weight = (masked_blur(seen, torch.ones_like(seen), 1) * eye_texel.view(1, 1, size, size) / 0.3).clamp(0, 1)
    return (whole * (1 - eye_weight) + albedo[None] * eye_weight)[0].clamp(0, 1.2)


@lru_cache(maxsize=4)
def whole_face(head: HeadModel) -> Tensor:
    """(V,) soft weight of the face's skin as far as the jaw; `head.face_region` keeps its distance to the ears, well into the cheeks."""
    skin = torch.zeros(len(head.template), dtype=torch.bool, device=head.template.device)
    for part, member in (("skin", True), ("lips", True), ("ears", False)):
        skin[head.faces[head.part == PARTS.index(part)].unique()] = member
    return face_region(head.template, head.landmarks(head.template), skin.to(head.template.dtype))


@lru_cache(maxsize=8)
def head_region(head: HeadModel, size: int) -> Tensor:
    """(1, U, U) soft weight of the face itself in texture space."""
    table = atlas(head, size)
    return table.scatter(table.gather(head.face_region[None, :, None]))[0]
