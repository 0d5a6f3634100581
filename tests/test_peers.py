"""The methods we compare with do their job: a face onto itself stays, no motion moves nothing, exact points give the exact pose."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from dynamicface import FaceTrack
from dynamicface.images import sample_crops
from dynamicface.metrics import rotation_degrees
from dynamicface.prior.camera import rotation_from_euler, to_camera, to_screen
from dynamicface.prior.fit import landmark_bases

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def peers():
    for package in ("skimage", "scipy"):
        pytest.importorskip(package, reason="the benchmarks' tools are not installed")
    if "benchmarks" not in sys.modules:
        spec = importlib.util.spec_from_file_location("benchmarks", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)])
        sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["benchmarks"])
    return importlib.import_module("benchmarks.peers")


@pytest.mark.parametrize("method", ["swap_affine", "swap_piecewise"])
def test_a_face_onto_itself_stays(peers, portrait, track, method):
    picture, matrix = getattr(peers, method)(portrait, track, portrait, track)
    crop = sample_crops(portrait, matrix, peers.SIZE)[0].permute(1, 2, 0)
    assert (picture - crop).abs().mean() < 0.01


def test_no_motion_moves_nothing(peers, portrait, track):
    picture, matrix = peers.flow_expression(portrait, track, portrait, track, portrait, track)
    crop = sample_crops(portrait, matrix, peers.SIZE)[0].permute(1, 2, 0)
    assert (picture - crop).abs().mean() < 0.01


def test_exact_points_give_the_exact_pose(peers, head):
    turned = rotation_from_euler(25.0, -10.0, 8.0)
    points = to_camera(landmark_bases(head)[0][None], turned[None], torch.tensor([[0.02, 0.01, -0.9]]))
    screen = to_screen(points, torch.tensor([1200.0]), torch.tensor([320.0, 240.0]))
    track = FaceTrack((480, 640), torch.zeros(1, 4), screen, torch.ones(1))
    assert float(rotation_degrees(peers.pose_pnp(track, head, 1200.0), turned)) < 0.05
