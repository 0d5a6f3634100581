"""Each ported network against its original runtime, on a real face.

The expected values were recorded by tools/golden_perception.py: LiteRT for the detectors, TensorFlow.js for landmarks and
identity, MediaPipe 0.10.21 for the matte and for the landmark pipeline as a whole.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_perception import GOLDEN, STRIDE, pictures
from torch import Tensor

from dynamicface.perception import landmarks as landmark_module
from dynamicface.perception.landmarks import LEFT_EYE, LIPS, RIGHT_EYE
from dynamicface.track import track_faces

pytest.importorskip("skimage", reason="needs scikit-image's photograph")


def golden(runtime: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{runtime}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def inputs(network: str) -> Tensor:
    """(N, 3, side, side) in 0..1."""
    return torch.from_numpy(pictures(network).astype(np.float32) / 255).permute(0, 3, 1, 2)


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("network", ["short", "full"])
@torch.inference_mode()
def test_detectors_equal_litert(perception, network):
    """Largest error: 1e-4 of a logit, 7e-5 px of the input."""
    expected = golden("litert")
    logits, offsets = getattr(perception.detector, network)(inputs(network))
    assert worst(logits[:, ::STRIDE], expected[f"{network}_logits"].squeeze(-1)) < 5e-4
    assert worst(offsets[:, ::STRIDE], expected[f"{network}_offsets"]) < 5e-4
    assert logits.sigmoid().amax(1).min() > 0.6, "the network does not see the face, so the comparison shows little"


@torch.inference_mode()
def test_landmarks_equal_tensorflow_js_where_its_sampling_is_followed(perception, monkeypatch):
    """Largest error: 5e-5 px of the 192 px crop, with the windows sampled at cell corners as in the converted graph."""
    monkeypatch.setattr(landmark_module, "CENTRE", 0.0)
    expected = golden("tfjs")
    points, presence = perception.landmarks(inputs("landmarks"))
    mesh = expected["mesh"].reshape(-1, 468, 3)
    xy = mesh[..., :2].clone()
    for region, index in (("lips", LIPS), ("right_eye", RIGHT_EYE), ("left_eye", LEFT_EYE)):
        xy[:, list(index)] = expected[region].reshape(len(xy), -1, 2)
    assert worst(points[:, :468, :2], xy) < 1e-3
    assert worst(points[:, :468, 2], mesh[..., 2]) < 1e-3
    assert worst(points[:, 468:473, :2], expected["right_iris"].reshape(-1, 5, 2)) < 1e-3
    assert worst(points[:, 473:, :2], expected["left_iris"].reshape(-1, 5, 2)) < 1e-3
    assert worst(presence, expected["flag"].flatten().sigmoid()) < 1e-5
    assert worst(perception.landmarks.mesh_only(inputs("landmarks")), mesh) < 1e-3


@torch.inference_mode()
def test_identity_equals_tensorflow_js(perception):
    """Largest error: 0.007 of features up to 2 (batch norm was folded before rounding to fp16); the cosine is above 0.99999."""
    expected = golden("tfjs")["identity"]
    features = perception.identity(inputs("identity"))
    assert (1 - torch.cosine_similarity(features, expected)).max() < 1e-5
    assert worst(features, expected) < 0.02


@torch.inference_mode()
def test_matte_equals_mediapipe(perception):
    """Largest error: 4e-5 of 0..1."""
    expected = golden("mediapipe")["matte"]
    matte = perception.matte(inputs("matte"))[:, 4::8, 4::8]
    assert worst(matte, expected) < 5e-4
    assert 0.2 < expected.mean() < 0.9


def test_landmark_pipeline_agrees_with_mediapipe(perception):
    """Mean error: 0.8 % of the distance between the outer eye corners, lips 0.5 %, irises 0.4 %.

    MediaPipe cuts its crop along other lines and without anti-aliasing: equality is not wanted.
    """
    expected = golden("mediapipe")["landmarks"]
    frames = torch.from_numpy(pictures("pipeline")[:2].astype(np.float32) / 255)
    found = torch.cat([track_faces(frame[None], perception).landmarks for frame in frames])
    eyes = (expected[:, 33, :2] - expected[:, 263, :2]).norm(dim=-1, keepdim=True)
    error = (found - expected)[..., :2].norm(dim=-1) / eyes
    assert error[:, :468].mean() < 0.012
    assert error[:, list(LIPS)].mean() < 0.008
    assert error[:, 468:].mean() < 0.008
    depth = torch.corrcoef(torch.stack([found[..., 2].flatten(), expected[..., 2].flatten()]))[0, 1]
    assert depth > 0.99, "z must grow away from the viewer in px, like MediaPipe's"
