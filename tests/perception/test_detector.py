from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicface.perception.detector import _merge, iou

EYE_DISTANCE = 44.0  # px between the pupils in the portrait


def shrink(images: Tensor, factor: float) -> Tensor:
    small = F.interpolate(images.permute(0, 3, 1, 2), scale_factor=factor, mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1)


def on_plate(picture: Tensor, height: int, width: int, *corners: tuple[int, int]) -> Tensor:
    """Grey plate (1, height, width, 3) with the picture at the given (row, column) corners."""
    plate = torch.full((1, height, width, 3), 0.4)
    for row, column in corners:
        plate[:, row : row + picture.shape[1], column : column + picture.shape[2]] = picture
    return plate


def test_portrait(perception, portrait):
    (faces,) = perception.detector.detect(portrait)
    assert len(faces) == 1
    assert faces.scores[0] > 0.9
    right_eye, left_eye, nose, mouth = faces.keypoints[0, :4]
    assert right_eye[0] < nose[0] < left_eye[0] and right_eye[1] < nose[1] < mouth[1]
    assert (left_eye - right_eye).norm() == pytest.approx(EYE_DISTANCE, rel=0.1)


@pytest.mark.parametrize("factor", [0.5, 0.35])
def test_small_face_in_a_full_hd_plate(perception, portrait, factor):
    """Faces of 53 and 37 px in 1920 x 1080."""
    small = shrink(portrait, factor)
    plate = on_plate(small, 1080, 1920, (600, 1500))
    (faces,) = perception.detector.detect(plate)
    (quick,) = perception.detector.detect(plate, small=False)
    assert len(faces) == 1
    assert len(quick) <= 1
    expected = torch.tensor([1500.0, 600.0]) + factor * torch.tensor([226.0, 125.0])
    centre = (faces.boxes[0, :2] + faces.boxes[0, 2:]) / 2
    assert (centre - expected).norm() < factor * 20


def test_several_faces_of_different_size(perception, portrait):
    plate = on_plate(portrait, 720, 1280, (0, 0))
    plate[:, 100:356, 700:956] = shrink(portrait, 0.5)
    plate[:, 400:656, 1000:1256] = shrink(portrait, 0.5).flip(2)
    (faces,) = perception.detector.detect(plate)
    assert len(faces) == 3
    assert (faces.scores.diff() <= 0).all()


@pytest.mark.parametrize("degrees", [-35, 35])
def test_tilted_head(perception, portrait, degrees):
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    turn = torch.tensor([[torch.cos(angle), -torch.sin(angle), -0.1], [torch.sin(angle), torch.cos(angle), -0.5]])
    grid = F.affine_grid(turn[None], [1, 3, 512, 512], align_corners=False)
    turned = F.grid_sample(portrait.permute(0, 3, 1, 2), grid, align_corners=False).permute(0, 2, 3, 1)
    (faces,) = perception.detector.detect(turned)
    assert len(faces) == 1
    eyes = faces.keypoints[0, 1] - faces.keypoints[0, 0]
    assert torch.rad2deg(torch.atan2(eyes[1], eyes[0])).item() == pytest.approx(9 - degrees, abs=12)


def test_frames_are_independent(perception, portrait):
    batch = torch.cat([portrait, torch.zeros_like(portrait), portrait.flip(2)])
    together = perception.detector.detect(batch)
    assert [len(faces) for faces in together] == [1, 0, 1]
    (alone,) = perception.detector.detect(portrait)
    torch.testing.assert_close(together[0].boxes, alone.boxes, atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (131, 77)])
def test_odd_sizes_without_a_face(perception, size):
    (faces,) = perception.detector.detect(torch.full((1, *size, 3), 0.5))
    assert (faces.boxes.shape, faces.keypoints.shape, faces.scores.shape) == ((0, 4), (0, 6, 2), (0,))


def test_highlights_beyond_one_do_not_matter(perception, portrait):
    plate = portrait.clone()
    plate[:, 400:, :100] = 60.0
    assert len(perception.detector.detect(plate)[0]) == 1


def test_most_faces_are_limited(perception, portrait):
    plate = torch.cat([portrait, portrait], 2)
    assert len(perception.detector.detect(plate, max_faces=1)[0]) == 1


def test_iou():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    b = torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 2.0, 2.0]])
    torch.testing.assert_close(iou(a, b), torch.tensor([[1 / 3, 0.0, 1.0]]))


def test_overlapping_detections_become_their_weighted_mean():
    box = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    points = torch.stack([box, box + 1, box + 50])
    merged = _merge(torch.tensor([0.6, 0.2, 0.9]), torch.cat([points, points.mean(1, keepdim=True).expand(-1, 6, -1)], 1), 5)
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.6]))
    torch.testing.assert_close(merged.boxes[1], torch.tensor([0.25, 0.25, 10.25, 10.25]))
