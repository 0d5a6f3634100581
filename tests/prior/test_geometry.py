"""A prior in front of its camera: where it lands in the crop and in the plate."""

from __future__ import annotations

import pytest
import torch

from dynamicface.conventions import PARTS
from dynamicface.images import transform
from dynamicface.prior.camera import image_centre, rotation_from_euler, to_camera, to_screen
from dynamicface.prior.geometry import CROP_CENTRE, CROP_METRES, face_crop, natural_crop_size, pose_head
from dynamicface.types import FaceCrop, FacePrior, Identity


@pytest.fixture(scope="module")
def prior(head) -> FacePrior:
    """Three poses of the mean head beside the middle of an HD plate."""
    illumination = torch.zeros(3, 9, 3)
    illumination[:, 0] = 1 / 0.282095
    return FacePrior(
        identity=Identity(torch.zeros(len(head.shape_basis))),
        expression=torch.zeros(3, 52),
        gaze=torch.zeros(3, 2, 2),
        rotation=rotation_from_euler(torch.tensor([0.0, 25.0, -10.0]), torch.tensor([0.0, 0.0, 12.0]), torch.tensor([0.0, 5.0, 0.0])),
        translation=torch.tensor([[0.0, 0.0, -1.0], [0.1, 0.05, -1.2], [-0.2, 0.0, -0.8]]),
        focal=torch.tensor([1500.0, 1500.0, 1200.0]),
        illumination=illumination,
        offset=torch.zeros(3, 478, 3),
        confidence=torch.ones(3),
        image_size=(1080, 1920),
    )


def test_the_crop_is_centred_on_the_head_and_as_wide_as_promised(prior):
    crop = face_crop(prior, 200)
    edge = prior.translation.new_tensor([[-0.5, 0, 0], [0.5, 0, 0], [0, 0, 0]]) * CROP_METRES
    middle = to_camera(torch.tensor(CROP_CENTRE).expand(3, 1, 3), prior.rotation, prior.translation)
    screen = to_screen(middle + edge, prior.focal, image_centre(prior.image_size, edge))[..., :2]
    expected = torch.tensor([[0.0, 100.0], [200.0, 100.0], [100.0, 100.0]]).expand(3, -1, -1)
    torch.testing.assert_close(transform(screen, crop.matrix), expected, atol=2e-3, rtol=0)


def test_the_natural_crop_has_about_the_plates_pixels(prior):
    close = prior.replace(translation=prior.translation * 0.7)
    assert natural_crop_size(prior) % 64 == 0 and natural_crop_size(close) > natural_crop_size(prior)
    scale = face_crop(prior, natural_crop_size(prior)).matrix[:, 0, 0]
    assert 0.8 < scale.median() < 1.25


def test_the_crop_sees_what_the_plate_sees(prior, head):
    crop = face_crop(prior, 128)
    whole = FaceCrop(torch.eye(2, 3).expand(3, 2, 3), 128)
    in_crop, in_plate = pose_head(prior, head, crop).screen, pose_head(prior, head, whole).screen
    torch.testing.assert_close(in_crop[..., :2], transform(in_plate[..., :2], crop.matrix), atol=1e-2, rtol=0)
    assert torch.equal(in_crop[..., 2], in_plate[..., 2])


def test_parts_depth_and_normals_of_the_frontal_head(prior, head):
    posed = pose_head(prior, head, face_crop(prior, 128))
    assert (posed.part[0, :3] == -1).all() and (posed.depth[0, 0, :3] == 9).all()
    seen = {PARTS[k] for k in posed.part[0].unique().tolist() if k >= 0}
    assert {"skin", "lips", "eye_left", "eye_right"} <= seen
    nose = posed.depth[0].amin()
    assert 0.85 < nose < 1.0, "the nose is nearer than the eyes, which are a metre away"
    torch.testing.assert_close(posed.normal.norm(dim=-1), torch.ones(posed.normal.shape[:2]), atol=1e-4, rtol=0)
    left, right = ((posed.part[0] == PARTS.index(name)).nonzero()[:, 1].float().mean() for name in ("eye_left", "eye_right"))
    assert left > right, "the character's left eye is on the viewer's right"


def test_yaw_turns_the_face_towards_the_viewers_right(prior, head):
    points = head.landmarks(pose_head(prior, head, face_crop(prior, 128)).screen)[..., 0]
    nose_beside_eyes = points[:, 1] - (points[:, 33] + points[:, 263]) / 2
    assert abs(nose_beside_eyes[0]) < 1 and nose_beside_eyes[1] > 5 and nose_beside_eyes[2] < -2


def test_offsets_move_the_skin_but_neither_eyeballs_nor_teeth(prior, head):
    offset = torch.zeros_like(prior.offset)
    offset[:, :468, 0] = 4e-3
    crop = face_crop(prior, 128)
    moved = pose_head(prior.replace(offset=offset), head, crop).camera - pose_head(prior, head, crop).camera
    points = (moved[0, head.landmark_index[:468]] * head.landmark_weight[:468, :, None]).sum(1)[:, 0]
    assert points.median() > 2.5e-3
    rigid = head.faces[torch.isin(head.part, torch.tensor([PARTS.index("eye_left"), PARTS.index("teeth")]))].unique()
    assert moved[:, rigid].abs().max() < 1e-7
