"""Identity, matte and landmarks as their callers use them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dynamicface.perception import Perception
from dynamicface.track import track_faces


@pytest.fixture(scope="module")
def landmarks(perception, portrait):
    return track_faces(portrait, perception).landmarks


def test_identity_is_a_unit_vector_that_survives_size_and_mirroring(perception, portrait, landmarks):
    vector = perception.identity.embed(portrait, landmarks)
    assert vector.shape == (1, 1024)
    torch.testing.assert_close(vector.norm(), torch.tensor(1.0))
    half = F.interpolate(portrait.permute(0, 3, 1, 2), scale_factor=0.5, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    assert (vector @ perception.identity.embed(half, landmarks / 2).T).item() > 0.9
    mirrored = track_faces(portrait.flip(2), perception)
    assert (vector[0] @ mirrored.embedding).item() > 0.9


def test_identity_can_serve_as_a_loss(perception, portrait, landmarks):
    images = portrait.clone().requires_grad_()
    target = F.normalize(torch.linspace(-1, 1, 1024), dim=0)
    (perception.identity.embed(images, landmarks) @ target).sum().backward()
    low, high = landmarks[0, :, :2].amin(0).int(), landmarks[0, :, :2].amax(0).int()
    inside = images.grad[0, low[1] : high[1], low[0] : high[0]]
    assert inside.abs().mean() > 0
    assert images.grad[0, 400:].abs().max() == 0, "pixels outside the crop carry no identity"


def test_matte_covers_the_person(perception, portrait):
    matte = perception.matte.matte(portrait)
    assert matte.shape == portrait.shape[:3]
    assert matte[0, 125, 226] > 0.95 and matte[0, 450, 226] > 0.95  # face, chest
    assert matte[0, 60, 70] < 0.05  # wall


def test_matte_of_a_clip_is_interpolated_but_not_across_cuts(perception, portrait):
    quiet, other = portrait, portrait.flip(2)
    clip = torch.cat([quiet, quiet, quiet, other, other, other])
    cuts = torch.tensor([False, False, False, True, False, False])
    torch.testing.assert_close(perception.matte.coarse(clip, cuts), perception.matte.coarse(clip), atol=1e-3, rtol=0)
    moving = torch.cat([quiet, other, other])
    between = perception.matte.coarse(moving, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(between[1], between[[0, 2]].mean(0))


def test_matte_of_a_batch_keeps_frames_apart(perception, portrait):
    batch = perception.matte.matte(torch.cat([portrait, portrait.flip(2)]))
    torch.testing.assert_close(batch[1].flip(1)[100:140, 200:260], batch[0][100:140, 200:260], atol=0.05, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.05), (torch.float16, 0.5)])
def test_cuda_agrees_with_cpu(perception, portrait, landmarks, dtype, tolerance):
    """Half precision is meant for GPUs; PyTorch's half precision convolutions on a CPU are neither fast nor reliable."""
    on_gpu = Perception.load("cuda")
    for net in (on_gpu.detector, on_gpu.landmarks, on_gpu.identity, on_gpu.matte):
        net.to(dtype)
    found = track_faces(portrait.cuda(), on_gpu)
    assert found.landmarks.is_cuda
    assert (found.landmarks.cpu() - landmarks)[..., :2].norm(dim=-1).mean() < tolerance
    assert (on_gpu.matte.matte(portrait.cuda()).cpu() - perception.matte.matte(portrait)).abs().mean() < 5e-3
