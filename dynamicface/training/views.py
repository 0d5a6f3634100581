"""Other views of a photographed person: the photograph is the answer, the prior path's picture made from another view is the question.

- round trip  the photograph is edited (expression, pose, light) by the prior path; the result is taken as the plate and edited back to
              what was photographed. The prior path's faults happen twice over, the truth is known.
- swap        a stranger's face is put onto the photograph; the result is taken as the plate, and the person, as seen in a mirrored,
              edited and differently exposed copy of the photograph, is swapped back onto it. The truth is known again, and nothing
              of the plate's face is the person's.

Both as the product does it: guides of a composed prior over a plate, the plate's own fit slightly wrong.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..conventions import linear_to_srgb, srgb_to_linear
from ..dials import DIALS
from ..edit import apply_settings
from ..errors import NoFaceError
from ..guides import render_guides
from ..images import sample_crops, transform
from ..pipeline import FacePipeline, render_composite
from ..prior.camera import rotation_from_vector
from ..prior.geometry import face_crop
from ..types import FacePrior, Filmed, Identity

SIZE = 256
"""Side of a sample's pictures, px."""
MAP_SIZE = 128
"""Side at which the smooth maps are kept."""
ZOOM = 1.3
"""Of the face crop samples live in (`prior.geometry.face_crop`)."""
MAPS = ("normal", "pose", "expression", "illumination", "background")
KINDS = ("expression", "mixed", "swap")
_STRANGERS = 48  # people remembered to swap with

Sample = dict[str, Tensor]


class ViewMaker:
    """Samples from photographs; remembers the people of the last ones as strangers. One seed, one order of photographs, one result."""

    def __init__(self, pipe: FacePipeline, seed: int = 0) -> None:
        self.pipe, self.draw = pipe, random.Random(seed)
        self.noise = torch.Generator().manual_seed(seed)
        self.strangers: list[FacePrior] = []

    @torch.inference_mode()
    def __call__(self, photo: Tensor) -> list[Sample]:
        """Samples of one photograph (1, H, W, 3); none where no face is found in it."""
        try:
            track = self.pipe.track(photo)
            prior = self.pipe.fit(photo, track)
        except NoFaceError:
            return []
        landmarks = track.landmarks[..., :2]
        views = list(self._views(prior))
        self.strangers = [*self.strangers[-_STRANGERS + 1 :], prior]
        return [self._sample(photo, landmarks, *view) for view in views]

    def _views(self, prior: FacePrior) -> Iterator[tuple[str, FacePrior, FacePrior]]:
        """Kind, composed prior, and the prior of the picture the person is known from."""
        for kind in ("expression", "mixed"):
            back = self._round_trip(prior, kind)
            yield kind, back, back.filmed.replace(background=replace(back.background, prior=back.filmed))
        source = self._seen_elsewhere(prior)
        for stranger in self.draw.sample(self.strangers, min(2, len(self.strangers))) if source is not None else []:
            yield "swap", self._swap_back(prior, source, stranger), source

    def _round_trip(self, prior: FacePrior, kind: str) -> FacePrior:
        settings = self._expression(prior) if kind == "expression" else self._turn() | self._lamp()
        if kind == "mixed" and self.draw.random() < 0.5:
            settings |= self._expression(prior)
        edited = self._edited(prior, settings)
        plate = render_composite(edited, self.pipe.head)[0].clamp(0, 1)
        return prior.replace(background=Filmed(plate, self._misfitted(edited), prior.background.matte))

    def _swap_back(self, prior: FacePrior, source: FacePrior, stranger: FacePrior) -> FacePrior:
        theirs = torch.lerp(prior.offset, stranger.offset, 0.5)
        swapped = prior.replace(identity=stranger.identity, offset=theirs)
        plate = render_composite(swapped, self.pipe.head)[0].clamp(0, 1)
        face = Identity(prior.identity.shape, source.identity.albedo, source.identity.albedo_weight, source.identity.embedding)
        return prior.replace(identity=face, background=Filmed(plate, self._misfitted(swapped), prior.background.matte))

    def _seen_elsewhere(self, prior: FacePrior) -> FacePrior | None:
        """The person mirrored, edited and in another exposure, fitted like any photograph."""
        settings = (self._expression(prior) if self.draw.random() < 0.6 else {}) | (self._turn() if self.draw.random() < 0.4 else {})
        picture = render_composite(self._edited(prior, settings | self._lamp()), self.pipe.head)[0]
        gain = picture.new_tensor([math.exp(self.draw.gauss(0, 0.12)) for _ in range(3)]) * math.exp(self.draw.gauss(0, 0.2))
        picture = linear_to_srgb(srgb_to_linear(picture) * gain).clamp(0, 1).flip(2)
        try:
            return self.pipe.fit(picture)
        except NoFaceError:
            return None

    def _edited(self, prior: FacePrior, settings: dict[str, float]) -> FacePrior:
        """A prior after an edit; {"stranger": 1} stands for the expression of somebody seen before."""
        settings = dict(settings)
        if settings.pop("stranger", 0) and self.strangers:
            other = self.draw.choice(self.strangers)
            prior = prior.replace(expression=other.expression, gaze=other.gaze)
        return apply_settings(prior, self.pipe.head, settings)

    def _expression(self, prior: FacePrior) -> dict[str, float]:
        chance = self.draw.random()
        if chance < 0.3:
            return {"intensity": self.draw.uniform(0.0, 0.3)}
        if chance < 0.65:
            return {"stranger": 1.0}
        names = self.draw.sample([name for name in DIALS if not name.startswith("blink")], self.draw.choice((1, 1, 2, 3)))
        return {name: self.draw.uniform(-1, 1) for name in names} | {"intensity": self.draw.choice((0.3, 1.0))}

    def _turn(self) -> dict[str, float]:
        return {"yaw": self.draw.uniform(-15, 15), "pitch": self.draw.uniform(-9, 9), "roll": self.draw.uniform(-5, 5)}

    def _lamp(self) -> dict[str, float]:
        light = {"warmth": self.draw.gauss(0, 0.2), "exposure": self.draw.gauss(0, 0.2), "turn_light": self.draw.uniform(-60, 60)}
        if self.draw.random() < 0.5:
            light |= {"light": self.draw.uniform(0, 0.6), "azimuth": self.draw.uniform(-80, 80), "elevation": self.draw.uniform(-10, 60)}
        return light

    def _misfitted(self, prior: FacePrior) -> FacePrior:
        """A prior as a fit that missed by about what fits miss: half a degree, half a millimetre, a little expression and shape."""

        def near(value: Tensor, scale: float) -> Tensor:
            return value + scale * torch.randn(value.shape, generator=self.noise)

        who = prior.identity
        return prior.replace(
            identity=Identity(near(who.shape, 0.08), who.albedo, who.albedo_weight, who.embedding),
            expression=near(prior.expression, 0.03).clamp(0, 1.5) * (prior.expression > 0.01),
            rotation=prior.rotation @ rotation_from_vector(near(torch.zeros(1, 3), 0.008)),
            translation=near(prior.translation, 4e-4),
            background=None,
        )

    def _sample(self, photo: Tensor, landmarks: Tensor, kind: str, composed: FacePrior, known: FacePrior) -> Sample:
        guides = render_guides(composed, self.pipe.head, SIZE, zoom=ZOOM)
        crop = guides.crop.matrix
        reference = sample_crops(known.background.plate, face_crop(known.filmed, SIZE, ZOOM).matrix, SIZE)
        maps = {name: getattr(guides, name).permute(0, 3, 1, 2) for name in MAPS}
        small = {name: torch.nn.functional.interpolate(x, (MAP_SIZE, MAP_SIZE), mode="area") for name, x in maps.items()}
        pictures = {
            "target": sample_crops(photo, crop, SIZE),
            "composite": guides.composite.permute(0, 3, 1, 2),
            "reference": reference,
            "mask": guides.mask[:, None],
            **small,
            "expression": maps["expression"],
        }
        return {name: (x.clamp(0, 1) * 255).round().byte()[0] for name, x in pictures.items()} | {
            "embedding": known.identity.embedding.half(),
            "shape": composed.identity.shape.half(),
            "yaw": guides.yaw[0].float(),
            "landmarks": transform(landmarks, crop)[0].half(),
            "kind": torch.tensor(KINDS.index(kind), dtype=torch.uint8),
        }
