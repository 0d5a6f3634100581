"""The shipped generator with all guiders on: an expression dial moves the expression; pose, light and identity of the result stay."""

from __future__ import annotations

import pytest
import torch

from dynamicface.errors import WeightsError
from dynamicface.generator.face_generator import FaceGenerator
from dynamicface.metrics import cosine, factor_change, refit


@pytest.fixture(scope="module")
def generator() -> FaceGenerator:
    try:
        return FaceGenerator.load()
    except WeightsError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def seen(pipeline, fitted, generator):
    """seen(smile) -> what is found anew in the generated picture: its track and its fit."""

    def look(smile: float):
        part = pipeline.edit(fitted, smile=smile)
        composed, _ = pipeline.render(part)
        picture, _ = generator.render(part, pipeline.head, composed, source=fitted, steps=1)
        track = pipeline.track(picture)
        return track, refit(picture, track, pipeline.head, part)

    return look


@torch.inference_mode()
def test_a_smile_leaves_pose_light_and_identity(seen):
    (before, still), *moved = (seen(smile) for smile in (0.0, 0.5, 1.0))
    expression = []
    for track, fit in moved:
        change = factor_change(still, fit)
        assert float(change.pose) < 2.5  # degrees; the landmark net takes a part of every smile for a nod
        assert float(change.light) < 0.05
        assert float(cosine(before.embedding, track.embedding)) > 0.8  # whoever smiles fully looks that different to the net
        expression.append(float(change.expression))
    assert 0.04 < expression[0] < expression[1]
