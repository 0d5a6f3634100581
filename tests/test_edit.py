"""Edits of one factor: neutral is the very same prior, signs are the page's, other factors stay, wrong names are sentences."""

from __future__ import annotations

import math

import pytest
import torch

from dynamicface.conventions import ARKIT_NAMES
from dynamicface.dials import DIALS, MEASURES
from dynamicface.edit import SETTINGS, apply_settings, edit_expression, edit_identity, edit_light, edit_pose
from dynamicface.errors import DynamicFaceError
from dynamicface.prior import light
from dynamicface.prior.camera import euler_from_rotation

FACTORS = {
    "expression": ("expression", "gaze"),
    "pose": ("rotation", "translation"),
    "light": ("illumination",),
    "identity": ("identity",),
}


def same(a, b, name: str) -> bool:
    return torch.equal(a.identity.shape, b.identity.shape) if name == "identity" else torch.equal(getattr(a, name), getattr(b, name))


def default(name: str) -> float:
    return 1.0 if name == "intensity" else 0.0


@pytest.mark.parametrize("edit", [edit_expression, edit_pose, edit_light])
def test_neutral_is_the_very_same_prior(fitted, edit):
    assert edit(fitted) is fitted


def test_every_dial_at_its_default_is_the_very_same_prior(fitted, head):
    dials = {name: default(name) for names in SETTINGS.values() for name in names}
    assert apply_settings(fitted, head, dials) is fitted
    assert edit_identity(fitted, head, dict.fromkeys(MEASURES, 0.0)) is fitted


@pytest.mark.parametrize("factor", FACTORS)
def test_a_dial_moves_its_own_factor_only(fitted, head, factor):
    for name in SETTINGS[factor]:
        if name in ("azimuth", "elevation"):  # they aim the key light, which is off
            assert apply_settings(fitted, head, {name: 0.5}) is fitted
            continue
        moved = apply_settings(fitted, head, {name: default(name) + 0.5})
        for other, fields in FACTORS.items():
            changed = [field for field in fields if not same(fitted, moved, field)]
            assert bool(changed) == (other == factor), (name, other, changed)


def test_a_dial_grows_evenly_and_releases_its_opposite(fitted):
    frown = edit_expression(fitted, {"smile": -1.0})
    corners = [ARKIT_NAMES.index("mouthSmileLeft"), ARKIT_NAMES.index("mouthSmileRight")]
    assert (fitted.expression[:, corners] > 0.1).all() and not frown.expression[:, corners].any(), "the filmed smile is released"
    values = torch.stack([edit_expression(fitted, {"smile": v}).expression[0, corners].sum() for v in torch.linspace(0, 1, 6).tolist()])
    torch.testing.assert_close(values.diff(), values.diff().mean().expand(5), atol=1e-5, rtol=0)


def test_intensity_scales_what_was_filmed(fitted):
    assert not edit_expression(fitted, intensity=0.0).expression.any()
    torch.testing.assert_close(edit_expression(fitted, intensity=0.5).expression, fitted.expression / 2)


@pytest.mark.parametrize("name", DIALS)
@pytest.mark.parametrize("value", [-3.0, 3.0])
def test_expression_stays_in_range_beyond_the_end_of_a_dial(fitted, name, value):
    expression = edit_expression(fitted, {name: value}).expression
    assert expression.min() >= 0 and expression.max() <= 1.5


def test_gaze_dials_turn_both_eyes_by_degrees(fitted):
    turned = torch.rad2deg(edit_expression(fitted, {"gaze_x": 1.0, "gaze_y": -0.5}).gaze - fitted.gaze)
    torch.testing.assert_close(turned, torch.tensor([25.0, -9.0]).expand(1, 2, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "axis"), [("yaw", 0), ("pitch", 1), ("roll", 2)])
def test_pose_dials_are_degrees_of_the_head_about_its_neck(fitted, name, axis):
    level = fitted.replace(rotation=torch.eye(3)[None])
    moved = edit_pose(level, **{name: 12.0})
    angles = euler_from_rotation(moved.rotation)[0]
    assert abs(angles[axis] - 12) < 1e-3 and angles.abs().sum() < 12.01
    pivot = torch.tensor([0.0, -0.075, -0.075])
    torch.testing.assert_close(moved.rotation @ pivot + moved.translation, level.rotation @ pivot + level.translation)


def shading(prior, x: float) -> float:
    """Luminance of the light on a surface that looks to the viewer's right (x > 0) or left."""
    normal = torch.nn.functional.normalize(torch.tensor([[[x, 0.0, 0.6]]]), dim=-1)
    return float(light.luminance(light.shade(normal, prior.illumination)))


def test_the_key_lights_the_side_it_stands_on(fitted):
    right, left = (edit_light(fitted, azimuth=a, elevation=0.0, strength=1.0) for a in (70.0, -70.0))
    assert shading(right, 0.8) > 1.5 * shading(right, -0.8)
    assert shading(left, -0.8) > 1.5 * shading(left, 0.8)


def test_the_key_keeps_the_exposure_and_warmth_the_luminance(fitted):
    level = light.luminance(light.frontal_level(fitted.illumination))
    for dials in ({"azimuth": 0.0, "elevation": 0.0, "strength": 1.0}, {"warmth": 1.0}, {"warmth": -1.0}):
        lit = edit_light(fitted, **dials)
        assert abs(float(light.luminance(light.frontal_level(lit.illumination)) / level) - 1) < 0.25
    warm, cold = (edit_light(fitted, warmth=w).illumination[0, 0] for w in (1.0, -1.0))
    assert warm[0] > cold[0] and warm[2] < cold[2]
    torch.testing.assert_close(edit_light(fitted, exposure=1.0).illumination, 2 * fitted.illumination)


def test_turning_the_light_all_the_way_round_brings_it_back(fitted):
    torch.testing.assert_close(edit_light(fitted, turn=360.0).illumination, fitted.illumination, atol=1e-4, rtol=1e-3)


def measure(head, prior, name: str) -> float:
    points = head.landmarks(head.vertices(prior.identity.shape, torch.zeros(52)))
    a, b = torch.tensor(MEASURES[name]).T
    return float((points[a] - points[b]).norm(dim=-1).sum())


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_grows_by_twelve_percent_and_the_others_stay(fitted, head, name):
    moved = edit_identity(fitted, head, {name: 1.0})
    for other in MEASURES:
        growth = measure(head, moved, other) / measure(head, fitted, other) - 1
        assert abs(growth - (0.12 if other == name else 0.0)) < 0.035, (other, growth)


def test_exaggeration_runs_from_the_mean_head_to_double(fitted, head):
    assert not edit_identity(fitted, head, exaggerate=-1.0).identity.shape.any()
    torch.testing.assert_close(edit_identity(fitted, head, exaggerate=1.0).identity.shape, 2 * fitted.identity.shape)


def test_the_albedo_survives_an_edit_of_the_shape(fitted, head):
    assert edit_identity(fitted, head, {"jaw_width": 0.3}).identity.albedo is fitted.identity.albedo


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_dial_that_is_no_number_is_a_sentence(fitted, head, value):
    for name in ("smile", "jawOpen", "yaw", "exposure", "jaw_width"):
        with pytest.raises(DynamicFaceError, match=f"{name} is {value}; expected a number"):
            apply_settings(fitted, head, {name: value})


def test_an_unknown_dial_is_named_with_those_there_are(fitted, head):
    with pytest.raises(DynamicFaceError, match=r"No dial is called grin, smlie\. There are: smile, laugh, .*exaggerate"):
        apply_settings(fitted, head, {"smlie": 1.0, "grin": 0.2})
    with pytest.raises(DynamicFaceError, match=r"No expression dial is called jawOpen"):
        edit_expression(fitted, {"jawOpen": 1.0})
    with pytest.raises(DynamicFaceError, match=r"No ARKit channel is called smile"):
        edit_expression(fitted, channels={"smile": 1.0})
