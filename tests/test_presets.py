"""Presets: what is saved is loaded, what is shipped is sound, what is applied arrives."""

from __future__ import annotations

import json

import pytest
import torch

from dynamicface.conventions import ARKIT_NAMES
from dynamicface.errors import DynamicFaceError
from dynamicface.io.documents import file_in
from dynamicface.io.presets import (
    FOLDER,
    GROUPS,
    Preset,
    apply_preset,
    blend_presets,
    choose_presets,
    load_preset,
    preset_of,
    save_preset,
    shipped_presets,
)
from dynamicface.regions import REGIONS


def channel(prior, name: str) -> float:
    return float(prior.expression[0, ARKIT_NAMES.index(name)])


def test_a_preset_comes_back(tmp_path):
    preset = Preset("my smile", {"mouthSmileLeft": 0.75, "jawOpen": 0.125}, (10.0, -5.0), "own", "Ann", "for scene 7")
    save_preset(preset, tmp_path / "deep" / "a.json")
    assert load_preset(tmp_path / "deep" / "a.json") == preset


def test_the_shipped_presets():
    presets = shipped_presets()
    assert len(presets) == 24 and {preset.group for preset in presets.values()} == set(GROUPS) - {"own"}
    assert {path.stem for path in FOLDER.glob("*.json")} == set(presets)
    for preset in presets.values():
        assert preset.note and preset.author, preset.name
        assert bool(preset.channels) == (preset.name != "neutral")
    assert presets["wink_left"].channels["eyeBlinkLeft"] == 1 and "eyeBlinkRight" not in presets["wink_left"].channels


def test_no_two_shipped_presets_are_alike():
    table = torch.tensor([[preset.channels.get(name, 0.0) for name in ARKIT_NAMES] for preset in shipped_presets().values()])
    distance = torch.cdist(table, table) + 9 * torch.eye(len(table))
    assert distance.min() > 0.3


def test_every_channel_is_in_one_region():
    assert sorted(name for names in REGIONS.values() for name in names) == sorted(ARKIT_NAMES)


def test_plain_channels_of_other_tools_are_read(tmp_path):
    (tmp_path / "theirs.json").write_text(json.dumps({"JawOpen": 0.5, "mouthSmileLeft": 1}))
    assert load_preset(tmp_path / "theirs.json") == Preset("theirs", {"jawOpen": 0.5, "mouthSmileLeft": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as JSON"),
        ("[1]", "its schema is 'list'"),
        ('{"schema": "dynamicface.preset.9", "channels": {}}', r"schema is 'dynamicface\.preset\.9', expected"),
        ('{"schema": "dynamicface.preset.1"}', "has no channels"),
        ('{"jawopen": 1}', "channels that ARKit does not have: jawopen"),
        ('{"jawOpen": 7}', r"jawOpen of .* is 7; expected a number from 0 to 1\.5"),
        ('{"jawOpen": NaN}', "jawOpen of .* is nan"),
        ('{"jawOpen": "wide"}', "jawOpen of .* is 'wide'"),
        ('{"schema": "dynamicface.preset.1", "channels": {}, "gaze": [1]}', r"expected \[yaw, pitch\]"),
    ],
)
def test_broken_presets_are_sentences(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DynamicFaceError, match=message):
        load_preset(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".hidden", "a\\b", "x" * 65, "a\x00b"])
def test_names_do_not_leave_the_folder(tmp_path, name):
    with pytest.raises(DynamicFaceError, match="cannot be a file name"):
        file_in(tmp_path, name, ".json")


def test_intensity_none_is_the_very_same_prior_and_one_is_the_preset(fitted):
    smile = shipped_presets()["smile"]
    assert apply_preset(fitted, smile, 0.0) is fitted
    done = apply_preset(fitted, smile)
    assert channel(done, "mouthSmileLeft") == pytest.approx(smile.channels["mouthSmileLeft"])
    assert channel(done, "browInnerUp") == 0 and torch.equal(done.gaze, fitted.gaze)
    look = [ARKIT_NAMES.index(name) for name in ARKIT_NAMES if name.startswith("eyeLook")]
    assert torch.equal(done.expression[:, look], fitted.expression[:, look])
    half = apply_preset(fitted, smile, 0.5)
    torch.testing.assert_close(half.expression, (fitted.expression + done.expression) / 2)


def test_regions_scale_and_keep(fitted):
    laugh = shipped_presets()["laugh"]
    done = apply_preset(fitted, laugh, regions={"mouth": 0.0, "jaw": 0.5})
    for name in REGIONS["mouth"]:
        assert channel(done, name) == pytest.approx(channel(fitted, name)), name
    assert channel(done, "jawOpen") == pytest.approx((laugh.channels["jawOpen"] + channel(fitted, "jawOpen")) / 2)
    assert channel(done, "cheekSquintLeft") == pytest.approx(laugh.channels["cheekSquintLeft"])
    with pytest.raises(DynamicFaceError, match="No region is called ears"):
        apply_preset(fitted, laugh, regions={"ears": 1.0})


def test_adding_keeps_what_was_filmed(fitted):
    talking = fitted.replace(expression=torch.full_like(fitted.expression, 0.1))
    done = apply_preset(talking, Preset("a", {"jawOpen": 0.3}, (10.0, 0.0)), add=True)
    assert channel(done, "jawOpen") == pytest.approx(0.4) and channel(done, "mouthFunnel") == pytest.approx(0.1)
    torch.testing.assert_close(torch.rad2deg(done.gaze - talking.gaze)[0], torch.tensor([[10.0, 0], [10, 0]]))


def test_blending_ends_at_both_presets(fitted):
    smile, kiss = (shipped_presets()[name] for name in ("smile", "kiss"))
    for weight, end in ((0.0, smile), (1.0, kiss)):
        blended = blend_presets(smile, kiss, weight).channels
        assert {name: value for name, value in blended.items() if value} == end.channels
    assert blend_presets(Preset("a", {}, (20.0, 0.0)), smile, 0.5).gaze == (10.0, 0.0)


def test_an_expression_is_kept_and_given_back(fitted, tmp_path):
    posed = apply_preset(fitted, Preset("look", {"jawOpen": 0.3}, (8.0, -4.0)))
    save_preset(preset_of(posed, "look", gaze=True), tmp_path / "look.json")
    again = apply_preset(fitted, load_preset(tmp_path / "look.json"))
    torch.testing.assert_close(again.expression, posed.expression, atol=5e-3, rtol=0)
    torch.testing.assert_close(again.gaze, posed.gaze, atol=2e-4, rtol=0)
    plain = preset_of(posed, "plain")
    assert plain.gaze is None and not any(name.startswith("eyeLook") for name in plain.channels)
    with pytest.raises(DynamicFaceError, match="There is no frame 1; this prior has 1"):
        preset_of(posed, "a", frame=1)


def test_presets_are_chosen_by_name_and_group():
    presets = shipped_presets()
    assert [preset.name for preset in choose_presets("kiss, smile", presets)] == ["kiss", "smile"]
    assert len(choose_presets("all", presets)) == 24 and len(choose_presets("viseme, viseme_aa", presets)) == 9
    with pytest.raises(DynamicFaceError, match="No preset or group is called 'smirk'"):
        choose_presets("smirk", presets)
    with pytest.raises(DynamicFaceError, match="No preset was named"):
        choose_presets(" , ", presets)
