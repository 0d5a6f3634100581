"""The list of unfit inputs: every one either works, as stated here, or ends in one sentence that says what to do."""

from __future__ import annotations

import logging
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicface import weights
from dynamicface.compose import compose_prior
from dynamicface.errors import DynamicFaceError, ImageError, NoFaceError, WeightsError
from dynamicface.io.priors import load_prior, save_prior
from dynamicface.prior.camera import euler_from_rotation
from dynamicface.prior.estimate import select_frames
from dynamicface.prior.head import HeadModel

GREY = torch.full((1, 240, 320, 3), 0.5)


def edited(pipeline, images: Tensor, **settings: float) -> Tensor:
    """Track, fit, edit, render."""
    return pipeline.render(pipeline.edit(pipeline.fit(images), **(settings or {"smile": 0.7})))[0]


# --- faces --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "where"), [(1, "the picture"), (3, "any of the 3 frames")])
def test_no_face(pipeline, frames, where):
    with pytest.raises(NoFaceError, match=rf"No face was found in {where} \(320 x 240 pixels\)\. Use a picture"):
        pipeline.fit(GREY.expand(frames, -1, -1, -1))


def test_a_frame_without_a_face_keeps_its_plate(pipeline, portrait, caplog):
    images = torch.cat([portrait, torch.full_like(portrait, 0.5), portrait])
    with caplog.at_level(logging.WARNING):
        picture = edited(pipeline, images)
    assert torch.equal(picture[1], images[1]) and (picture[0] != images[0]).any() and (picture[2] != images[2]).any()
    assert "No face in 1 of 3 frames: 1" in caplog.text


def test_two_faces_are_chosen_by_size_number_and_place(pipeline, portrait, caplog):
    """The portrait beside a smaller copy of itself."""
    small = F.interpolate(portrait.permute(0, 3, 1, 2), (358, 358), mode="area").permute(0, 2, 3, 1)
    both = torch.cat([F.pad(small, (0, 0, 0, 0, 0, 154)), portrait], 2)
    right, left = {"largest": {}, "first": {"index": 0}, "rightmost": {}}, {"leftmost": {}, "second": {"index": 1}}
    names = {"first": "index", "second": "index"}
    for choices, is_right in ((right, True), (left, False)):
        for choose, index in choices.items():
            box = pipeline.track(both, choose=names.get(choose, choose), **index).boxes[0]
            assert (float(box[0]) > 358) == is_right, choose
    assert float(pipeline.track(both, choose="index", index=7).boxes[0, 0]) < 358
    assert "no face number 7, counted by size from 0: 2 found; the smallest is used" in caplog.text
    with pytest.raises(DynamicFaceError, match="Unknown way to choose a face: 'oldest'; use one of largest, index"):
        pipeline.track(both, choose="oldest")


def test_a_profile_works_with_less_confidence(pipeline, photograph):
    image = photograph("three_quarter.jpg")
    prior = pipeline.fit(image)
    assert euler_from_rotation(prior.rotation)[0, 0].abs() > 20 and 0 < prior.confidence.item() <= 1
    picture, mask = pipeline.render(pipeline.edit(prior, smile=0.6))
    assert torch.isfinite(picture).all() and torch.equal(picture[mask == 0], image[mask == 0])


def test_a_hand_over_the_face_stays_with_an_occlusion_mask(pipeline, portrait):
    images, hand = portrait.clone(), torch.zeros(1, 512, 512)
    images[:, 140:180, 190:250] = torch.tensor([0.7, 0.5, 0.4])
    hand[:, 140:180, 190:250] = 1
    prior = pipeline.fit(images)
    picture, _ = pipeline.render(pipeline.edit(prior, laugh=1.0), occlusion=hand)
    assert torch.equal(picture[hand > 0], images[hand > 0]) and (picture != images).any()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 256, 256), "occlusion mask is 256 x 256 pixels, the plate is 512 x 512"),
        (torch.zeros(2, 512, 512), "occlusion mask has 2 frames, the plate has 1"),
        (torch.zeros(512, 512), r"occlusion mask is 512 pixels, the plate is 512 x 512"),
    ],
)
def test_an_occlusion_mask_of_another_shape(pipeline, fitted, mask, message):
    for use in (pipeline.render, pipeline.guides):
        with pytest.raises(ImageError, match=message):
            use(pipeline.edit(fitted, smile=0.5), occlusion=mask)


# --- pictures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(511, 509), (333, 512), (512, 301)])
def test_odd_sizes(pipeline, portrait, height, width):
    image = portrait[:, :height, 60 : 60 + width]
    assert edited(pipeline, image).shape == image.shape


def test_a_face_at_the_border(pipeline, portrait):
    image = portrait[:, 90:, 190:]
    picture = edited(pipeline, image, yaw=10.0)
    assert picture.shape == image.shape and torch.isfinite(picture).all()


def test_a_face_as_small_as_a_stamp(pipeline, portrait):
    small = F.interpolate(portrait.permute(0, 3, 1, 2), (171, 171), mode="area").permute(0, 2, 3, 1)
    assert edited(pipeline, small).shape == small.shape


def test_grey_and_alpha(pipeline, portrait):
    grey, alpha = portrait.mean(-1, keepdim=True), torch.cat([portrait, torch.ones(1, 512, 512, 1)], -1)
    assert edited(pipeline, grey).shape == (1, 512, 512, 3)
    torch.testing.assert_close(edited(pipeline, alpha), edited(pipeline, portrait), atol=1e-3, rtol=0)


def test_half_and_double_precision(pipeline, portrait):
    for dtype in (torch.float16, torch.float64):
        assert edited(pipeline, portrait.to(dtype)).dtype == torch.float32


def test_a_view_that_is_not_contiguous(pipeline, portrait):
    turned = portrait.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    torch.testing.assert_close(edited(pipeline, turned), edited(pipeline, portrait), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 64, 64, 3), math.nan), "holds NaN or infinite pixels in frame 0; repair the plate"),
        (torch.cat([torch.zeros(1, 64, 64, 3), torch.full((1, 64, 64, 3), math.inf)]), "NaN or infinite pixels in frame 1"),
        (torch.zeros(0, 64, 64, 3), "holds no frames; connect at least one picture"),
        (torch.zeros(1, 0, 64, 3), "64 x 0 pixels; it needs at least one pixel"),
        (torch.zeros(1, 64, 64, 5), "has 5 channels; expected grey"),
        (torch.zeros(64, 64, 3), r"must be a batch of frames .* of shape \(64, 64, 3\)"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.uint8), "it holds torch.uint8; divide by 255 first"),
        ("portrait.png", "must be a batch of frames .* it is str"),
    ],
)
def test_images_that_are_none(pipeline, images, message):
    for use in (pipeline.track, pipeline.fit):
        with pytest.raises(ImageError, match=message):
            use(images)


# --- priors and dials ---------------------------------------------------------------------------------------------------


def test_frames_that_do_not_match(pipeline, fitted):
    three, five = (select_frames(fitted, torch.zeros(n, dtype=torch.long)) for n in (3, 5))
    with pytest.raises(DynamicFaceError, match="expression comes from a prior of 5 frames, the background has 3"):
        compose_prior(three, expression=five)


def test_images_of_another_track(pipeline, track):
    with pytest.raises(ImageError, match=r"are not the ones that were tracked .* connect the same images to both nodes"):
        pipeline.fit(GREY, track)


def test_a_prior_without_its_picture(pipeline, fitted, tmp_path):
    save_prior(fitted, tmp_path / "a.safetensors")
    loaded = load_prior(tmp_path / "a.safetensors")
    for use in (pipeline.render, pipeline.guides):
        with pytest.raises(DynamicFaceError, match="no picture behind it"):
            use(pipeline.edit(loaded, smile=0.5))
    picture, _ = pipeline.render(compose_prior(loaded, background=fitted))
    assert picture.shape == (1, 512, 512, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_dials_that_are_no_numbers(pipeline, fitted, value):
    with pytest.raises(DynamicFaceError, match=r"The dial smile is (nan|inf); expected a number between -1 and 1"):
        pipeline.edit(fitted, smile=value)


def test_dials_there_are_not(pipeline, fitted):
    with pytest.raises(DynamicFaceError, match=r"No dial is called smlie\. There are: smile"):
        pipeline.edit(fitted, smlie=1.0)


# --- weights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-100], "instead of .*; it is truncated or altered"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "was altered: its sha256 is"),
    ],
)
def test_truncated_and_altered_weights(tmp_path, damage, message):
    row = weights.registry()["face_landmarks"]
    shutil.copy(weights.FOLDER / row.file, tmp_path / row.file)
    (tmp_path / row.file).write_bytes(damage((tmp_path / row.file).read_bytes()))
    with pytest.raises(WeightsError, match=message):
        weights.load_weights("face_landmarks", tmp_path)


def test_missing_and_unknown_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"is missing; it should be .* bytes"):
        weights.load_weights("face_landmarks", tmp_path)
    with pytest.raises(WeightsError, match="no weight file called 'face_age'; the registry has"):
        weights.load_weights("face_age")


def test_a_wrong_head_model(tmp_path, fitted):
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    save_prior(fitted, tmp_path / "prior.safetensors")
    with pytest.raises(WeightsError, match=r"head model .*cut\.safetensors cannot be read"):
        HeadModel.load(tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"prior\.safetensors is not a head model of this version"):
        HeadModel.load(tmp_path / "prior.safetensors")
