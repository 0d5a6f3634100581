"""Faces put together from several people: what is taken from whom, and what fits together."""

from __future__ import annotations

import pytest
import torch

from dynamicface.compose import blend_identity, compose_prior
from dynamicface.composite import is_unchanged
from dynamicface.errors import DynamicFaceError
from dynamicface.landmark_sets import BROWS, EYES, LIPS_INNER, LIPS_OUTER
from dynamicface.prior.estimate import select_frames
from dynamicface.types import FacePrior, Identity

FACTORS = ("identity", "expression", "pose", "illumination", "background")
PER_FRAME = ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset", "confidence")


def clip(prior: FacePrior, frames: int) -> FacePrior:
    """The prior as a clip whose frames differ a little."""
    many = select_frames(prior, torch.zeros(frames, dtype=torch.long))
    wobble = torch.linspace(0, 1, frames)
    changes = {
        "expression": many.expression * (1 - 0.3 * wobble[:, None]),
        "offset": many.offset * (1 - 0.5 * wobble[:, None, None]),
        "translation": many.translation + 0.01 * wobble[:, None],
    }
    background = many.background
    filmed = background.prior.replace(**changes)
    return many.replace(**changes, background=type(background)(background.plate, filmed))


@pytest.fixture(scope="module")
def other(fitted) -> FacePrior:
    """Somebody else with another face, pose, light."""
    random = torch.Generator().manual_seed(0)
    who = fitted.identity
    return fitted.replace(
        identity=Identity(
            torch.randn(who.shape.shape, generator=random),
            who.albedo.flip(0),
            who.albedo_weight,
            torch.nn.functional.normalize(torch.randn(who.embedding.shape, generator=random), dim=0),
        ),
        expression=torch.rand(1, 52, generator=random),
        gaze=torch.full((1, 2, 2), 0.1),
        rotation=fitted.rotation.mT.contiguous(),
        illumination=fitted.illumination.flip(2),
        offset=fitted.offset.flip(1),
    )


@pytest.mark.parametrize("frames", [1, 5])
def test_everything_from_oneself_is_oneself(fitted, frames):
    base = clip(fitted, frames)
    composed = compose_prior(base, **dict.fromkeys(FACTORS, base))
    assert all(torch.equal(getattr(composed, name), getattr(base, name)) for name in PER_FRAME)
    assert composed.identity is base.identity and is_unchanged(composed)


def test_no_weight_changes_nothing(fitted, other):
    base = clip(fitted, 3)
    assert is_unchanged(compose_prior(base, identity=other, identity_weight=0.0))


@pytest.mark.parametrize(
    ("factor", "fields"),
    [("expression", ("expression", "gaze")), ("pose", ("rotation",)), ("illumination", ("illumination",))],
)
def test_a_factor_comes_from_whom_it_is_asked_of(fitted, other, factor, fields):
    composed = compose_prior(fitted, **{factor: other})
    assert all(torch.equal(getattr(composed, name), getattr(other, name)) for name in fields)
    kept = set(PER_FRAME) - set(fields) - {"offset"}
    assert all(torch.equal(getattr(composed, name), getattr(fitted, name)) for name in kept)
    assert composed.identity is fitted.identity and not is_unchanged(composed)


def test_identity_brings_shape_texture_and_embedding(fitted, other):
    composed = compose_prior(fitted, identity=other)
    assert composed.identity is other.identity
    assert all(torch.equal(getattr(composed, name), getattr(fitted, name)) for name in PER_FRAME if name != "offset")


def test_brows_and_lids_are_the_persons_and_lips_the_expressions(fitted, other):
    composed = compose_prior(fitted, identity=other)
    person, lips = [*BROWS[0], *BROWS[1], *EYES[0], *EYES[1]], [*LIPS_OUTER, *LIPS_INNER]
    assert torch.equal(composed.offset[:, person], other.offset[:, person])
    assert torch.equal(composed.offset[:, lips], fitted.offset[:, lips])
    assert not torch.equal(fitted.offset[:, person], other.offset[:, person])


def test_the_background_decides_place_plate_and_frames(fitted, other):
    stage = clip(fitted, 4)
    composed = compose_prior(other, background=stage)
    assert len(composed) == 4 and composed.background is stage.background and composed.image_size == stage.image_size
    assert torch.equal(composed.translation, stage.translation) and torch.equal(composed.focal, stage.focal)
    assert torch.equal(composed.expression, other.expression.expand(4, -1)) and composed.identity is other.identity


def test_a_still_lends_its_expression_to_a_clip(fitted, other):
    composed = compose_prior(clip(fitted, 3), expression=other)
    assert torch.equal(composed.expression, other.expression.expand(3, -1))


@pytest.mark.parametrize("factor", ["expression", "pose", "illumination"])
def test_clips_of_different_lengths_do_not_fit(fitted, factor):
    with pytest.raises(DynamicFaceError, match=r"a prior of 5 frames, the background has 3\. Use a still .* or a clip of 3 frames"):
        compose_prior(clip(fitted, 3), **{factor: clip(fitted, 5)})


def test_blends_run_from_one_to_the_other(fitted, other):
    a, b = fitted.identity, other.identity
    assert blend_identity(a, b, 0.0) is a and blend_identity(a, b, 1.0) is b
    middle = blend_identity(a, b, 0.25)
    torch.testing.assert_close(middle.shape, 0.75 * a.shape + 0.25 * b.shape)
    torch.testing.assert_close(middle.albedo, 0.75 * a.albedo + 0.25 * b.albedo)
    assert abs(middle.embedding.norm() - 1) < 1e-5
    assert middle.embedding @ a.embedding > middle.embedding @ b.embedding


def test_a_person_without_a_texture_can_be_blended(fitted, other):
    bare = Identity(other.identity.shape)
    middle = blend_identity(fitted.identity, bare, 0.5)
    assert middle.albedo is fitted.identity.albedo and middle.embedding is None
