"""Albedo and light taken apart: how far a person's skin stays the same from one picture to another, by skin tone.

The other picture is the person smiling, or the same photograph under another lamp: darker, warmer, or from one side. Skin is the mean over
cheeks, forehead, nose and chin, of either half of the face; differences are CIEDE2000 (below about 2 hardly anybody sees them), of the
colours in the pictures and of the fitted albedo. Groups by individual typology angle (Chardon, Cretois and Hourseau 1991).
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from dynamicface import FacePipeline, FacePrior
from dynamicface.conventions import linear_to_srgb, srgb_to_linear
from dynamicface.images import linear_crops
from dynamicface.prior import texture
from dynamicface.prior.geometry import face_crop, pose_head

from .common import Figure, Options, SkippedError, Table, command, load, log

_TEXTURE = 128
_GROUPS = ((28.0, "light"), (10.0, "intermediate"), (-90.0, "brown and dark"))  # typology angle from which, degrees
_DARK, _WARM, _SIDE = 0.5, (1.3, 1.0, 0.7), (0.6, 1.4)


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    try:
        from skimage.color import deltaE_ciede2000, rgb2lab
    except ImportError as error:
        raise SkippedError("Colour differences need scikit-image: pip install scikit-image") from error

    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for neutral, smile in options.data.london(options.limit):
        log.info("albedo: %s", neutral.name)
        plate = load(neutral, options.device)
        prior = pipe.fit(plate, texture_size=_TEXTURE)
        colours = [rgb2lab(tone.numpy()) for tone in _tones(pipe, plate, prior)]
        lightness, _, yellow = colours[0].mean(0)
        group = _group(math.degrees(math.atan2(lightness - 50, yellow)))
        for name, other in _others(plate, prior, load(smile, options.device)).items():
            changed = [rgb2lab(tone.numpy()) for tone in _tones(pipe, other, pipe.fit(other, texture_size=_TEXTURE))]
            pair = tuple(float(deltaE_ciede2000(a, b).mean()) for a, b in zip(colours, changed, strict=True))
            for which in (group, "all"):
                found.setdefault((name, which), []).append(pair)
    order = [*(name for _, name in _GROUPS), "all"]
    cases = [(name, group) for name in dict.fromkeys(name for name, _ in found) for group in order if (name, group) in found]
    rows = [
        (name, group, len(found[name, group]), *(statistics.median(column) for column in zip(*found[name, group], strict=True)))
        for name, group in cases
    ]
    figures = tuple(
        Figure(f"albedo.{name.replace(' ', '_')}", albedo, "CIEDE2000", "lower", f"london, {people} people")
        for name, group, people, _, albedo in rows
        if group == "all"
    )
    note = (
        f"Medians. Darker: {_DARK:g} of the light; warmer: red, green and blue times {', '.join(map(str, _WARM))}; from one side: times "
        f"{_SIDE[0]:g} to {_SIDE[1]:g} across the face."
    )
    return [
        Table("Skin of one person in two pictures", ("other picture", "skin", "people", "in the pictures", "albedo"), rows, note, figures)
    ]


def _group(angle: float) -> str:
    return next(name for least, name in _GROUPS if angle > least)


def _others(plate: Tensor, prior: FacePrior, smile: Tensor) -> dict[str, Tensor]:
    """The pictures that the photograph (1, H, W, 3) is compared with."""

    def under(gain: Tensor | float) -> Tensor:
        return linear_to_srgb(srgb_to_linear(plate) * gain)

    crop = face_crop(prior, 1)
    across = (torch.arange(plate.shape[2]).to(plate) * crop.matrix[0, 0, 0] + crop.matrix[0, 0, 2]).clamp(0, 1)
    return {
        "smiling": smile,
        "darker": under(_DARK),
        "warmer": under(plate.new_tensor(_WARM)),
        "from one side": under((_SIDE[0] + (_SIDE[1] - _SIDE[0]) * across)[:, None]),
    }


def _tones(pipe: FacePipeline, plate: Tensor, prior: FacePrior) -> tuple[Tensor, Tensor]:
    """Mean sRGB (2, 3) of the skin on both halves of the face: in the picture, and of its albedo."""
    crop = face_crop(prior, 2 * _TEXTURE)
    radiance, weight = texture.extract(linear_crops(plate, crop.matrix, crop.size), pose_head(prior, pipe.head, crop), _TEXTURE)
    skin = weight * texture.skin_likelihood(radiance, weight, pipe.head) * texture.head_region(pipe.head, _TEXTURE)
    table = texture.atlas(pipe.head, _TEXTURE)
    left = table.scatter(table.gather((pipe.head.template[:, :1] > 0).to(skin)[None]))[0]
    halves = torch.stack([skin[0] * left, skin[0] * (1 - left)])  # (2, 1, U, U)

    def mean(values: Tensor) -> Tensor:
        return linear_to_srgb((values * halves).sum((-2, -1)) / halves.sum((-2, -1))).cpu()

    return mean(radiance), mean(prior.identity.albedo[None])


def main(argv: list[str] | None = None) -> None:
    command("Albedo", measure, argv)


if __name__ == "__main__":
    main()
