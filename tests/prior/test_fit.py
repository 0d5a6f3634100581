"""The fit finds the shape, expression, pose and gaze that made the landmarks, and keeps to what is plausible where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dynamicface.conventions import ARKIT_NAMES
from dynamicface.prior.camera import euler_from_rotation, rotation_from_euler, to_screen
from dynamicface.prior.fit import MESH, FitSettings, fit_landmarks
from dynamicface.prior.gaze import LOOK_NAMES, look_of_gaze

CENTRE = torch.tensor([320.0, 240.0])
EXACT = FitSettings(landmark_sigma_scale=0.1, expression_sigma=0.4, iterations=20)  # the landmarks are the model's own: believe them
MOVED = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "eyeBlinkLeft", "browDownLeft")


@dataclass(frozen=True)
class Truth:
    """Three people in four frames each, and the landmarks they give."""

    shape: Tensor
    expression: Tensor
    rotation: Tensor
    translation: Tensor
    gaze: Tensor
    focal: Tensor
    landmarks: Tensor


@pytest.fixture(scope="module")
def truth(head) -> Truth:
    random = torch.Generator().manual_seed(0)
    people, frames = 3, 4

    def uniform(*size: int) -> Tensor:
        return torch.rand(people, frames, *size, generator=random)

    shape = 0.7 * torch.randn(people, len(head.shape_basis), generator=random)
    expression = torch.zeros(people, frames, len(ARKIT_NAMES))
    for name in MOVED:
        expression[..., ARKIT_NAMES.index(name)] = 0.7 * uniform()
    rotation = rotation_from_euler(*((uniform() - 0.5) * degrees for degrees in (60, 30, 30)))
    translation = torch.tensor([0.05, -0.03, -0.9]) + 0.1 * (uniform(3) - 0.5)
    gaze = 0.6 * (uniform(2, 2) - 0.5)
    expression[..., [ARKIT_NAMES.index(name) for name in LOOK_NAMES]] = look_of_gaze(gaze)
    focal = torch.full((people, frames), 1200.0)
    vertices = head.vertices(shape[:, None].expand(-1, frames, -1), expression, gaze)
    camera = head.landmarks(vertices) @ rotation.mT + translation[..., None, :]
    landmarks = to_screen(camera.flatten(0, 1), focal.flatten(), CENTRE)[..., :2].unflatten(0, (people, frames))
    return Truth(shape, expression, rotation, translation, gaze, focal, landmarks)


@pytest.fixture(scope="module")
def found(truth, head):
    return fit_landmarks(truth.landmarks, head, truth.focal, CENTRE, settings=EXACT)


def shape_error(head, a: Tensor, b: Tensor) -> Tensor:
    """(G,) mean distance in millimetres between two identities' faces at rest."""
    rest = torch.zeros(len(ARKIT_NAMES))
    apart = (head.vertices(a, rest) - head.vertices(b, rest))[:, head.face_region > 0.5]
    return 1e3 * apart.norm(dim=-1).mean(1)


def test_exact_landmarks_give_back_what_made_them(truth, found, head):
    assert found.error.max() < 1e-3
    assert (euler_from_rotation(found.rotation) - euler_from_rotation(truth.rotation)).abs().max() < 0.25
    assert (found.translation - truth.translation).abs().max() < 3e-3
    wrong = (found.expression - truth.expression).abs()
    assert wrong.mean() < 0.012 and wrong.max() < 0.25, "worst at the lids, which the head moves by more than its linear bases"
    lower_face = [ARKIT_NAMES.index(name) for name in MOVED if name.startswith(("jaw", "mouth"))]
    assert wrong[..., lower_face].max() < 0.05
    assert torch.rad2deg((found.gaze - truth.gaze).abs()).mean() < 1.5
    error, deviation = shape_error(head, found.shape, truth.shape), shape_error(head, truth.shape, torch.zeros_like(truth.shape))
    assert (error < 0.12).all() and (error < 0.1 * deviation).all()


def test_frames_of_one_person_share_and_sharpen_the_identity(truth, found, head):
    assert found.shape.shape == truth.shape.shape
    single = fit_landmarks(truth.landmarks[:, :1], head, truth.focal[:, :1], CENTRE, settings=EXACT)
    assert (shape_error(head, found.shape, truth.shape) < 0.6 * shape_error(head, single.shape, truth.shape)).all()


def test_people_of_a_batch_do_not_influence_each_other(truth, found, head):
    alone = fit_landmarks(truth.landmarks[1:2], head, truth.focal[1:2], CENTRE, settings=EXACT)
    torch.testing.assert_close(alone.shape[0], found.shape[1], atol=0.02, rtol=0)
    torch.testing.assert_close(alone.rotation[0], found.rotation[1], atol=1e-3, rtol=0)


def test_a_given_identity_is_kept(truth, head):
    fit = fit_landmarks(truth.landmarks, head, truth.focal, CENTRE, shape=truth.shape, settings=EXACT)
    assert torch.equal(fit.shape, truth.shape) and fit.error.max() < 1e-3


def test_the_size_of_the_picture_does_not_matter(truth, head):
    small, large = (fit_landmarks(k * truth.landmarks[:1], head, k * truth.focal[:1], k * CENTRE) for k in (1, 4))
    torch.testing.assert_close(large.translation, small.translation, atol=1e-4, rtol=0)
    torch.testing.assert_close(large.expression, small.expression, atol=1e-2, rtol=0)


def test_outliers_hardly_move_the_head(truth, head):
    broken = truth.landmarks[:1].clone()
    broken[:, :, 50:80] += torch.tensor([60.0, -40.0])
    clean, robust = (fit_landmarks(points, head, truth.focal[:1], CENTRE) for points in (truth.landmarks[:1], broken))
    assert (euler_from_rotation(robust.rotation) - euler_from_rotation(clean.rotation)).abs().max() < 2.0
    assert (robust.translation - clean.translation).abs().max() < 0.02


def test_points_without_weight_are_not_believed(truth, head):
    broken, weight = truth.landmarks.clone(), torch.ones(3, 4, 478)
    broken[:, :, 100:200] += 500.0  # far enough to turn a first pose that listens to them by 70 degrees
    weight[:, :, 100:200] = 0
    fit = fit_landmarks(broken, head, truth.focal, CENTRE, weight=weight)
    assert (euler_from_rotation(fit.rotation) - euler_from_rotation(truth.rotation)).abs().max() < 1.5


def test_expression_stays_within_its_limits_on_nonsense(truth, head):
    noise = torch.randn(1, 4, 478, 2, generator=torch.Generator().manual_seed(1))
    fit = fit_landmarks(truth.landmarks[:1] + 8 * noise, head, truth.focal[:1], CENTRE)
    assert fit.expression.min() >= 0 and fit.expression.max() <= FitSettings.expression_limit
    assert fit.shape.abs().max() < 4 and torch.isfinite(fit.projected).all()


def test_the_fit_settles(truth, head):
    """More iterations change nothing, though many coefficients lie on their bounds."""
    noise = torch.randn(1, 4, 478, 2, generator=torch.Generator().manual_seed(2))
    points = truth.landmarks[:1] + 2 * noise
    for shape in (None, truth.shape[:1]):
        done, more, odd = (
            fit_landmarks(points, head, truth.focal[:1], CENTRE, shape=shape, settings=FitSettings(expression_sigma=0.4, iterations=n))
            for n in (FitSettings.iterations, 20, 21)
        )
        for other in (more, odd):
            torch.testing.assert_close(done.expression, other.expression, atol=2e-3, rtol=0)
            torch.testing.assert_close(done.shape, other.shape, atol=2e-2, rtol=0)


def test_a_real_portrait_is_met_within_a_percent(track, head):
    """468 points, mean distance over the distance of the outer eye corners."""
    focal = torch.full((1, 1), 900.0)
    fit = fit_landmarks(track.landmarks[None, ..., :2], head, focal, torch.tensor([256.0, 256.0]))
    assert fit.error.item() < 0.013
    assert fit.projected.shape == (1, 1, 478, 2) and MESH == 468


def test_the_lids_go_with_the_eyes(track, head):
    centre = torch.tensor([track.image_size[1] / 2, track.image_size[0] / 2])
    fit = fit_landmarks(track.landmarks[None, ..., :2], head, torch.full((1, 1), 900.0), centre)
    look = fit.expression[..., [ARKIT_NAMES.index(name) for name in LOOK_NAMES]]
    torch.testing.assert_close(look, look_of_gaze(fit.gaze), atol=0.1, rtol=0)
