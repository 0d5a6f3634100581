"""The attribute maps: each shows its own factor and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dynamicface.edit import edit_expression, edit_identity, edit_light, edit_pose
from dynamicface.guides import Guides, render_guides
from dynamicface.images import sample_crops
from dynamicface.prior.estimate import select_frames
from dynamicface.prior.geometry import face_crop

SIZE = 192
MAPS = ("normal", "pose", "expression", "illumination", "background", "composite")


@pytest.fixture(scope="module")
def guides(pipeline, fitted) -> Guides:
    return pipeline.guides(fitted, SIZE)


def changed(a: Guides, b: Guides) -> dict[str, float]:
    """Mean difference of each map."""
    return {name: float((getattr(a, name) - getattr(b, name)).abs().mean()) for name in MAPS}


def test_shapes_and_ranges(guides):
    for name in MAPS:
        picture = getattr(guides, name)
        assert picture.shape == (1, SIZE, SIZE, 3) and picture.dtype == torch.float32
        assert picture.min() >= 0 and picture.max() <= 1, name
    assert guides.mask.shape == (1, SIZE, SIZE) and guides.crop.size == SIZE
    assert guides.mask.min() >= 0 and guides.mask.max() <= 1 and 0.05 < guides.mask.mean() < 0.5


def test_normals_are_unit_vectors_that_face_the_camera(guides):
    shown = guides.normal.any(-1)
    normal = guides.normal[shown] * 2 - 1
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(len(normal)), atol=1e-3, rtol=0)
    assert (normal[:, 2] > -0.2).float().mean() > 0.99 and normal[:, 2].mean() > 0.5
    middle = torch.nonzero(shown[0])[:, 1].float().mean()
    side = torch.arange(SIZE).expand(SIZE, SIZE)[shown[0]] > middle
    assert normal[side, 0].mean() > 0.2 and normal[~side, 0].mean() < -0.2, "x grows towards the viewer's right"


def test_the_neutral_composite_is_the_plate(guides, portrait, fitted):
    crop = sample_crops(portrait, face_crop(fitted, SIZE).matrix, SIZE).permute(0, 2, 3, 1)
    assert torch.equal(guides.composite, crop)


def test_the_background_has_no_face(guides):
    assert not guides.background[guides.mask == 1].any()
    outside = guides.mask == 0
    assert torch.equal(guides.background[outside], guides.composite[outside])


def test_an_occluder_is_background(pipeline, fitted, guides):
    hand = torch.zeros(1, 512, 512)
    hand[:, :, :220] = 1
    held = pipeline.guides(fitted, SIZE, occlusion=hand)
    column = int(transformed_x(fitted, 220.0)) - 3
    assert held.mask[:, :, :column].max() < 1e-5 and torch.equal(held.mask[:, :, column + 8 :], guides.mask[:, :, column + 8 :])
    assert guides.mask[:, :, :column].any()


def transformed_x(prior, x: float) -> float:
    matrix = face_crop(prior, SIZE).matrix[0]
    return float(matrix[0, 0] * x + matrix[0, 2])


def test_the_pose_map_follows_the_pose_alone(pipeline, fitted, guides):
    head = pipeline.head
    other = edit_identity(edit_expression(fitted, {"smile": 0.8}), head, {"jaw_width": 0.8})
    assert torch.equal(pipeline.guides(edit_light(other, strength=1.0), SIZE).pose, guides.pose)
    turned = pipeline.guides(edit_pose(fitted, yaw=15), SIZE).pose
    assert (turned - guides.pose).abs().mean() > 5e-3
    assert guides.pose.any(-1).float().mean() > 0.2


def test_expression_shows_flat_shapes_on_black_and_no_contour(guides):
    colours = guides.expression.view(-1, 3).unique(dim=0)
    assert len(colours) <= 6 and (colours == 0).all(-1).any()
    drawn = guides.expression.any(-1)
    assert 0.005 < drawn.float().mean() < 0.08


def test_the_expression_map_follows_the_dials_not_the_light_or_the_lamp(pipeline, fitted, guides):
    opened = pipeline.guides(edit_expression(fitted, {"jaw_open": 1.0}), SIZE)
    lit = pipeline.guides(edit_light(fitted, strength=1.0), SIZE)
    assert changed(guides, opened)["expression"] > 2e-3
    assert torch.equal(lit.expression, guides.expression) and torch.equal(lit.normal, guides.normal)
    assert changed(guides, lit)["illumination"] > 5e-3


def test_the_iris_follows_the_gaze(pipeline, fitted):
    def iris_x(gaze: float) -> float:
        expression = pipeline.guides(edit_expression(fitted, {"gaze_x": gaze}), SIZE).expression[0]
        iris = (expression - torch.tensor([0.1, 0.3, 1.0])).abs().amax(-1) < 1e-3
        return float(torch.nonzero(iris)[:, 1].float().mean())

    assert iris_x(0.8) > iris_x(0.0) + 1 > iris_x(-0.8) + 2


def test_a_lamp_brightens_its_side_of_the_illumination_map(pipeline, fitted):
    def balance(azimuth: float) -> float:
        picture = pipeline.guides(edit_light(fitted, azimuth=azimuth, elevation=0.0, strength=1.0), SIZE).illumination[0].mean(-1)
        half = SIZE // 2
        return float(picture[:, half:].sum() / picture[:, :half].sum())

    assert balance(70.0) > 1.3 * balance(-70.0)


def test_the_illumination_map_is_blurred(guides):
    """Next to no detail: neighbouring pixels hardly differ inside the face."""
    inside = (-F.max_pool2d(-guides.mask[:, None], 9, 1, 4))[0, 0] > 0.99
    step = guides.illumination[0].diff(dim=1).abs().amax(-1)
    detail = guides.composite[0].diff(dim=1).abs().amax(-1)
    assert step[inside[:, 1:]].mean() < 0.4 * detail[inside[:, 1:]].mean()


def test_pose_and_shape_move_the_normals(pipeline, fitted, guides):
    turned = pipeline.guides(edit_pose(fitted, yaw=20.0), SIZE)
    wide = pipeline.guides(edit_identity(fitted, pipeline.head, {"jaw_width": 1.0}), SIZE)
    assert changed(guides, turned)["normal"] > 0.02 and changed(guides, wide)["normal"] > 1e-3
    assert torch.equal(turned.crop.matrix, guides.crop.matrix), "the crop follows the filmed face"


def test_zoom_shows_the_same_face_larger(pipeline, fitted, guides):
    close = pipeline.guides(fitted, SIZE, zoom=1.5)
    torch.testing.assert_close(close.crop.matrix[:, :, :2], guides.crop.matrix[:, :, :2] * 1.5)
    for name in ("normal", "pose", "expression"):
        share = getattr(close, name).any(-1).float().mean() / getattr(guides, name).any(-1).float().mean()
        assert 1.7 < share < 2.5, name


def test_frames_and_sizes(pipeline, fitted, guides):
    many = render_guides(select_frames(fitted, torch.zeros(3, dtype=torch.long)), pipeline.head, SIZE)
    for name in MAPS:
        assert torch.allclose(getattr(many, name)[2], getattr(guides, name)[0], atol=2e-3), name
    assert pipeline.guides(fitted, 65).normal.shape == (1, 65, 65, 3)
