"""Render-and-detect: landmarks of a head model found by the landmark net itself."""

import pytest
import torch

from dynamicface.conventions import LANDMARKS
from dynamicface.errors import NoFaceError
from dynamicface.perception.landmarks import LandmarkNet
from dynamicface.prior.embed import MESH, closest_on_mesh, embed_landmarks, render_landmarks
from dynamicface.prior.head import HeadModel
from dynamicface.weights import load_module


@pytest.fixture(scope="module")
def net() -> LandmarkNet:
    return load_module(LandmarkNet(), "face_landmarks")


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def test_a_few_renders_find_the_stored_landmarks_again(head, net):
    blank = head.replace(landmark_index=torch.zeros_like(head.landmark_index), landmark_sigma=torch.zeros(LANDMARKS))
    found = embed_landmarks(blank, net, views=8, seed=5)
    distance = (found.landmarks(head.template) - head.landmarks(head.template) + head.landmark_bias).norm(dim=-1)
    assert distance[:MESH].median() < 2e-3
    assert distance[[1, 33, 263, 61, 291]].max() < 5e-3  # nose, eye and mouth corners
    assert distance[MESH:].max() < 1e-5  # irises are placed by geometry


def test_a_head_that_looks_away_is_refused(head, net):
    turned = head.replace(
        template=head.template * torch.tensor([-1.0, 1.0, -1.0]),
        shape_basis=head.shape_basis * 0,
        expression_basis=head.expression_basis * 0,
        lids=(),
    )
    with pytest.raises(NoFaceError, match="upright"):
        embed_landmarks(turned, net, views=8)


def test_closest_point_on_a_mesh():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    points = torch.tensor([[0.2, 0.2, 0.5], [2.0, 2.0, 0.0], [0.5, -1.0, 0.0], [0.9, 0.8, -1.0]])
    face, weight = closest_on_mesh(points, vertices, faces)
    found = (vertices[faces[face]] * weight[..., None]).sum(1)
    assert torch.allclose(found, torch.tensor([[0.2, 0.2, 0], [1, 1, 0], [0.5, 0, 0], [0.9, 0.8, 0]]), atol=1e-6)
    assert face[0] == 0 and face[3] == 1


def test_landmark_picture(head):
    picture = render_landmarks(head, 256)
    assert picture.shape == (256, 256, 3) and (picture[..., 1] > 0.8).sum() > 400
