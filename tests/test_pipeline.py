"""The simple API, end to end on a photograph."""

from __future__ import annotations

import pytest
import torch

from dynamicface import FacePrior, HeadModel, Perception
from dynamicface.conventions import linear_to_srgb
from dynamicface.errors import DynamicFaceError, ImageError
from dynamicface.types import Identity


def test_loaded_parts_are_frozen(pipeline):
    assert isinstance(pipeline.perception, Perception) and isinstance(pipeline.head, HeadModel)
    assert not any(p.requires_grad for p in pipeline.perception.landmarks.parameters())


def test_a_fit_is_complete(fitted, portrait):
    assert isinstance(fitted, FacePrior) and len(fitted) == 1
    assert fitted.image_size == (512, 512) and torch.equal(fitted.background.plate, portrait)
    assert fitted.filmed is fitted.background.prior and fitted.filmed.background is None
    assert 0.8 < fitted.confidence.item() <= 1
    assert 0.4 < -fitted.translation[0, 2] < 20 and fitted.rotation.det().item() == pytest.approx(1, abs=1e-4)
    assert fitted.identity.embedding.norm().item() == pytest.approx(1, abs=1e-4)


def test_the_same_photo_gives_the_same_fit(pipeline, fitted, portrait):
    again = pipeline.fit(portrait)
    for name in ("expression", "rotation", "translation", "illumination", "gaze"):
        torch.testing.assert_close(getattr(again, name), getattr(fitted, name), atol=1e-4, rtol=1e-4)


def test_a_shifted_photo_gives_the_same_face(pipeline, fitted, portrait):
    """13 px to the right and 6 down: the pose changes by the camera's angle only."""
    moved = pipeline.fit(portrait.roll((6, 13), (1, 2)), texture_size=0)
    angle = torch.acos(((fitted.rotation[0] * moved.rotation[0]).sum() - 1).clamp(-2, 2) / 2).rad2deg()
    assert angle < 2.5
    assert (moved.expression - fitted.expression).abs().mean() < 0.04


def test_two_lines_make_a_smile(pipeline, portrait):
    prior = pipeline.fit(portrait)
    picture, mask = pipeline.render(pipeline.edit(prior, smile=0.8, yaw=10))
    assert picture.shape == portrait.shape and mask.shape == (1, 512, 512)
    assert (picture != portrait).any()


def test_a_swap_takes_pictures_or_priors(pipeline, fitted, portrait):
    from_pictures, _ = pipeline.swap(portrait.flip(2), portrait)
    from_priors, _ = pipeline.swap(pipeline.fit(portrait.flip(2)), fitted)
    torch.testing.assert_close(from_pictures, from_priors, atol=1e-3, rtol=0)


def test_a_swap_with_oneself_and_a_swap_of_no_weight_are_exact(pipeline, fitted, portrait):
    stranger = fitted.replace(identity=Identity(-fitted.identity.shape, fitted.identity.albedo.flip(0)))
    assert torch.equal(pipeline.swap(fitted, fitted)[0], portrait)
    assert torch.equal(pipeline.swap(stranger, fitted, weight=0.0)[0], portrait)
    full, half = (pipeline.swap(stranger, fitted, weight=w)[0] for w in (1.0, 0.5))
    assert (full - portrait).abs().mean() > (half - portrait).abs().mean() > 0


def test_the_tone_of_a_swap_goes_from_the_plates_to_the_sources(pipeline, fitted, portrait):
    pale = fitted.replace(
        identity=Identity(fitted.identity.shape * 1.01, fitted.identity.albedo * torch.tensor([0.5, 0.5, 0.9]).view(3, 1, 1))
    )
    pictures = [pipeline.swap(pale, fitted, skin_tone=tone)[0] for tone in (0.0, 1.0)]
    face = slice(110, 150), slice(200, 245)
    redness = [float((p[0, face[0], face[1], 0] / p[0, face[0], face[1], 2]).mean()) for p in (portrait, *pictures)]
    assert abs(redness[1] / redness[0] - 1) < 0.15 and redness[2] < 0.85 * redness[0]


def test_progress_is_reported_and_may_interrupt(pipeline, fitted):
    from dynamicface.pipeline import render_composite
    from dynamicface.prior.estimate import select_frames

    clip = pipeline.edit(select_frames(fitted, torch.zeros(9, dtype=torch.long)), smile=0.5)
    steps = []

    def stop(done: int, total: int) -> None:
        steps.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_composite(clip, pipeline.head, size=128, progress=stop)
    assert steps == [(4, 9)]


def test_options_reach_the_fit(pipeline, portrait, track):
    bare = pipeline.fit(portrait, track, texture_size=0)
    assert bare.identity.albedo is None
    small = pipeline.fit(portrait, track, texture_size=128, focal=torch.tensor([700.0]))
    assert small.identity.albedo.shape == (3, 128, 128) and small.focal.tolist() == [700.0]
    assert linear_to_srgb(small.identity.albedo).isfinite().all()


def test_an_untextured_fit_can_be_edited_and_swapped_into(pipeline, fitted, portrait, track):
    bare = pipeline.fit(portrait, track, texture_size=0)
    for prior in (pipeline.edit(bare, laugh=0.8), pipeline.edit(bare, yaw=10)):
        picture, _ = pipeline.render(prior)
        assert torch.isfinite(picture).all() and (picture != portrait).any()
    picture, _ = pipeline.swap(fitted, bare)
    assert torch.isfinite(picture).all()


def test_images_that_were_not_tracked_are_refused(pipeline, track):
    with pytest.raises(ImageError, match=r"1 frames of 300 x 200\) are not the ones that were tracked \(1 frames of 512 x 512"):
        pipeline.fit(torch.rand(1, 200, 300, 3), track)
    with pytest.raises(ImageError, match="2 frames of 512 x 512"):
        pipeline.fit(torch.rand(2, 512, 512, 3), track)


def test_an_unknown_setting_is_a_sentence(pipeline, fitted):
    with pytest.raises(DynamicFaceError, match="No dial is called smirk"):
        pipeline.edit(fitted, smirk=1.0)
