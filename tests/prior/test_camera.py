"""Rotations, Euler angles and the pinhole camera follow `conventions.py`."""

import math

import torch

from dynamicface.prior.camera import crop_screen, euler_from_rotation, rotation_from_euler, rotation_from_vector, to_camera, to_screen


def test_euler_round_trip():
    torch.manual_seed(0)
    angles = (torch.rand(100, 3) - 0.5) * torch.tensor([160.0, 160.0, 300.0])
    back = euler_from_rotation(rotation_from_euler(*angles.unbind(-1)))
    torch.testing.assert_close(back, angles, atol=1e-3, rtol=0)


def test_signs_of_the_angles():
    forward = torch.tensor([0.0, 0.0, 1.0])
    assert (rotation_from_euler(30, 0, 0) @ forward)[0] > 0.4  # yaw: to the viewer's right
    assert (rotation_from_euler(0, 30, 0) @ forward)[1] > 0.4  # pitch: up
    assert (rotation_from_euler(0, 0, 30) @ torch.tensor([0.0, 1.0, 0.0]))[0] > 0.4  # roll: the crown to the viewer's right


def test_rotation_vectors_are_rotations_also_near_zero():
    vectors = torch.tensor([[0.0, 0.0, 0.0], [1e-6, 0, 0], [0.3, -0.2, 0.5], [0, math.pi, 0]], requires_grad=True)
    rotation = rotation_from_vector(vectors)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5, rtol=0)
    rotation.sum().backward()
    assert torch.isfinite(vectors.grad).all()


def test_projection_and_crop():
    points = torch.tensor([[[0.1, 0.2, 0.0]]])
    camera = to_camera(points, torch.eye(3)[None], torch.tensor([[0.0, 0.0, -2.0]]))
    screen = to_screen(camera, torch.tensor([1000.0]), torch.tensor([320.0, 240.0]))
    torch.testing.assert_close(screen, torch.tensor([[[370.0, 140.0, 2.0]]]))
    crop = crop_screen(screen, torch.tensor([[[0.5, 0, -10], [0, 0.5, -20]]]))
    torch.testing.assert_close(crop, torch.tensor([[[175.0, 50.0, 2.0]]]))
