"""Performances and curves: they arrive on the right frame, in the right amount, and come back from files."""

from __future__ import annotations

import json

import pytest
import torch

from dynamicface.conventions import ARKIT_NAMES
from dynamicface.drive import Performance, apply_curves, drive_face, hold_still, performance_of, sample_performance
from dynamicface.edit import edit_expression, edit_pose
from dynamicface.errors import DynamicFaceError
from dynamicface.io.arkit import LIVE_LINK_NAMES, load_performance, save_performance
from dynamicface.io.curves import Curves, Key, load_curves, parse_curves, save_curves
from dynamicface.pipeline import render_composite
from dynamicface.prior.camera import (
    euler_from_rotation,
    quaternion_from_rotation,
    rotation_from_euler,
    rotation_from_vector,
)
from dynamicface.regions import REGIONS

JAW = ARKIT_NAMES.index("jawOpen")
SMILE = ARKIT_NAMES.index("mouthSmileLeft")


@pytest.fixture(scope="module")
def act() -> Performance:
    """Eight frames: the jaw opens by 0.1 a frame on a face that always smiles by 0.5; the eyes and the head turn."""
    expression = torch.zeros(8, 52)
    expression[:, JAW] = torch.arange(8) / 10
    expression[:, SMILE] = 0.5
    gaze = (torch.arange(8.0) / 40)[:, None, None] * torch.tensor([1.0, 0.5])
    return Performance(expression, gaze.expand(8, 2, 2), rotation_from_euler(torch.arange(8.0), torch.zeros(8), torch.zeros(8)), 24.0)


# --- driving ------------------------------------------------------------------------------------------------------------


def test_a_still_becomes_a_shot(fitted, act, head):
    shot = drive_face(fitted, act)
    assert len(shot) == 8 == len(shot.background.plate) == len(shot.background.prior)
    torch.testing.assert_close(shot.expression, act.expression)
    torch.testing.assert_close(shot.gaze, act.gaze)
    assert torch.equal(shot.rotation[3], fitted.rotation[0]), "the pose stays unless it is asked for"
    assert shot.background.plate.data_ptr() == fitted.background.plate.data_ptr(), "the plate is repeated, not copied"
    pictures, _ = render_composite(drive_face(fitted, sample_performance(act, torch.tensor([0.0, 7.0]))), head)
    assert len(pictures) == 2 and not torch.equal(pictures[0], pictures[1])


def test_nothing_is_driven_by_nothing(fitted, act):
    clip = hold_still(fitted, 8)
    assert drive_face(clip, act, amount=0.0) is clip
    assert drive_face(clip, act, regions=dict.fromkeys(REGIONS, 0.0)) is clip


def test_relative_adds_what_changes(fitted, act):
    resting = fitted.expression[0, JAW]
    shot = drive_face(fitted, act, relative=True, neutral=2)
    torch.testing.assert_close(shot.expression[2], fitted.expression[0])
    torch.testing.assert_close(shot.expression[5, JAW], resting + 0.3)
    torch.testing.assert_close(shot.expression[:, SMILE], fitted.expression[:, SMILE].expand(8)), "a constant smile is no change"
    torch.testing.assert_close(shot.gaze[5] - fitted.gaze[0], act.gaze[5] - act.gaze[2])


@pytest.mark.parametrize("relative", [False, True])
def test_the_pose_is_driven_by_its_own_amount(fitted, act, relative):
    turned = drive_face(fitted, act, relative=relative, pose=1.0)
    if relative:
        turn = fitted.rotation.mT @ turned.rotation
        torch.testing.assert_close(euler_from_rotation(turn)[:, 0], torch.arange(8.0), atol=1e-3, rtol=0)
    else:
        torch.testing.assert_close(turned.rotation, act.rotation, atol=1e-5, rtol=0)
    half = drive_face(fitted, act, relative=relative, pose=0.5)
    torch.testing.assert_close(half.rotation @ (fitted.rotation.mT @ half.rotation), turned.rotation, atol=1e-5, rtol=0)


def test_regions_scale_the_drive(fitted, act):
    quiet = fitted.replace(expression=torch.zeros_like(fitted.expression))
    shot = drive_face(quiet, act, regions={"jaw": 2.0, "mouth": 0.0, "eyes": 0.5})
    torch.testing.assert_close(shot.expression[7, JAW], torch.tensor(1.4))
    assert not shot.expression[:, SMILE].any()
    torch.testing.assert_close(shot.gaze[7], fitted.gaze[0] + 0.5 * (act.gaze[7] - fitted.gaze[0]))


def test_delay_and_stretch(fitted, act):
    clip = hold_still(fitted, 15)
    jaw = drive_face(clip, act, delay=3).expression[:, JAW]
    torch.testing.assert_close(jaw, (torch.arange(15.0) - 3).clamp(0, 7) / 10)
    jaw = drive_face(clip, act, stretch=True).expression[:, JAW]
    torch.testing.assert_close(jaw, torch.linspace(0, 0.7, 15))
    assert len(drive_face(hold_still(fitted, 3), act)) == 3


def test_impossible_drives_are_sentences(fitted, act):
    with pytest.raises(DynamicFaceError, match="no neutral frame 8; the performance has 8 frames"):
        drive_face(fitted, act, neutral=8)
    with pytest.raises(DynamicFaceError, match="The prior has 3 frames, but 8 are asked for"):
        hold_still(hold_still(fitted, 3), 8)


def test_rotations_are_interpolated_on_the_sphere():
    ends = rotation_from_euler(torch.tensor([-80.0, 80.0]), torch.tensor([10.0, 10.0]), torch.zeros(2))
    middle = sample_performance(Performance(torch.zeros(2, 52), torch.zeros(2, 2, 2), ends), torch.tensor([0.5])).rotation
    torch.testing.assert_close(middle @ middle.mT, torch.eye(3)[None], atol=1e-5, rtol=0)
    assert abs(euler_from_rotation(middle)[0, 0]) < 1


def test_quaternions_turn_as_their_rotations():
    vector = torch.tensor([[0.0, 0, 0], [0.3, -0.2, 0.9], [0, 2.8, 0], [1e-7, 0, 0]])
    x, y, z, w = quaternion_from_rotation(rotation_from_vector(vector)).unbind(-1)
    torch.testing.assert_close(x * x + y * y + z * z + w * w, torch.ones(4))
    angle = vector.norm(dim=-1)
    torch.testing.assert_close(torch.stack([x, y, z], -1).norm(dim=-1), (angle / 2).sin(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(w, (angle / 2).cos(), atol=1e-5, rtol=1e-4)


# --- curves -------------------------------------------------------------------------------------------------------------


def test_interpolation():
    curves = Curves({"smile": (Key(2, 0.0), Key(6, 1.0, "smooth"), Key(10, 0.0, "hold"), Key(12, 0.5))})
    values = curves.sample(torch.arange(15.0))["smile"]
    expected = [0, 0, 0, 0.25, 0.5, 0.75, 1, 1 - 5 / 32, 0.5, 5 / 32, 0, 0, 0.5, 0.5, 0.5]
    assert values.tolist() == pytest.approx(expected) and len(curves) == 13


def test_curves_come_back(tmp_path):
    curves = parse_curves({"yaw": [[8, 5], [0, -5, "smooth"]], "jawOpen": [[3, 0.5]]})
    assert curves.keys["yaw"] == (Key(0, -5, "smooth"), Key(8, 5))
    save_curves(curves, tmp_path / "a.json")
    assert load_curves(tmp_path / "a.json") == curves


def test_curves_move_every_frame_by_itself(fitted):
    ends = {"smile": (0, -1), "jawOpen": (0.4, 0), "yaw": (0, 20), "intensity": (1, 0)}
    shot = apply_curves(fitted, parse_curves({name: [[0, low], [4, high]] for name, (low, high) in ends.items()}))
    for frame in range(5):
        smile, jaw, yaw, intensity = (low + (high - low) * frame / 4 for low, high in ends.values())
        alone = edit_pose(edit_expression(fitted, {"smile": smile}, {"jawOpen": jaw}, intensity), yaw=yaw)
        torch.testing.assert_close(shot.expression[frame], alone.expression[0])
        torch.testing.assert_close(shot.rotation[frame], alone.rotation[0])
        torch.testing.assert_close(shot.translation[frame], alone.translation[0])


def test_curves_of_zeros_change_nothing(fitted):
    clip = hold_still(fitted, 4)
    assert apply_curves(clip, parse_curves({"smile": [[0, 0], [3, 0]], "intensity": [[0, 1]], "pitch": [[0, 0]]})) is clip
    assert len(apply_curves(fitted, parse_curves({}), frames=6)) == 6


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "its schema is 'list'"),
        ({"grimace": [[0, 1]]}, "moves what cannot be keyed: grimace"),
        ({"smile": []}, "The curve smile of the keyframes has no keys"),
        ({"smile": [[0]]}, r"A key of smile in the keyframes is \[0\]; expected \[frame, value\]"),
        ({"smile": [[0, 1, "bounce"]]}, r"expected .*linear \| smooth \| hold"),
        ({"smile": [[0, 9]]}, r"A value of smile in the keyframes is 9; expected a number from -1\.5 to 1\.5"),
        ({"smile": [[-1, 0]]}, "A frame of smile in the keyframes is -1"),
        ({"smile": [[1, 0], [1, 1]]}, "two keys at frame 1"),
        ({"schema": "dynamicface.curves.2", "curves": {}}, r"schema is 'dynamicface\.curves\.2', expected"),
    ],
)
def test_broken_curves_are_sentences(document, message):
    with pytest.raises(DynamicFaceError, match=message):
        parse_curves(document)


# --- ARKit --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def performance() -> Performance:
    """Fifty random frames at 24 a second."""
    g = torch.Generator().manual_seed(3)
    angles = (torch.rand(3, 50, generator=g) - 0.5) * torch.tensor([[120.0], [60.0], [60.0]])
    gaze = (torch.rand(50, 2, 2, generator=g) - 0.5) * 0.8
    return Performance(torch.rand(50, 52, generator=g), gaze, rotation_from_euler(*angles), 24.0)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "new/folder/A.CSV"])
def test_a_performance_comes_back(tmp_path, performance, name):
    save_performance(performance, tmp_path / name)
    back = load_performance(tmp_path / name)
    for field in ("expression", "gaze", "rotation"):
        torch.testing.assert_close(getattr(back, field), getattr(performance, field), atol=2e-5, rtol=0)
    assert back.fps == 24


def test_the_csv_has_the_apps_layout(tmp_path, performance):
    save_performance(performance, tmp_path / "a.csv")
    header, first, *rest = (tmp_path / "a.csv").read_text().splitlines()
    columns = header.split(",")
    assert columns[:3] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft"] and columns[-1] == "RightEyeRoll" and len(columns) == 63
    assert sorted(LIVE_LINK_NAMES) == sorted(ARKIT_NAMES)
    assert first.startswith("00:00:00:00.000,61,") and rest[24].startswith("00:00:01:01.000,61,")


def test_recordings_with_lost_frames_and_without_angles(tmp_path):
    header = ",".join(["Timecode", "BlendshapeCount", *LIVE_LINK_NAMES])
    row = ",".join("1" if name in ("jawOpen", "eyeLookOutLeft", "eyeLookInRight") else "0" for name in LIVE_LINK_NAMES)
    (tmp_path / "a.csv").write_text(f"\ufeff{header}\n11:22:33:58.100,52,{row}\n11:22:33:59.100,0\n11:22:34:00.100,52,{row}\n")
    back = load_performance(tmp_path / "a.csv")
    assert back.fps == 60 and back.expression[:, JAW].tolist() == [1, 1, 1]
    torch.testing.assert_close(torch.rad2deg(back.gaze[0]), torch.tensor([[30.0, 0], [30, 0]])), "both eyes look to the viewer's right"
    assert torch.equal(back.rotation[0], torch.eye(3))


def test_audio2face_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"exportFps": 60, "facsNames": ["JawOpen", "other"], "weightMat": [[0.25, 9], [0.5, 9]]}))
    back = load_performance(tmp_path / "a.json")
    assert back.fps == 60 and back.expression[:, JAW].tolist() == [0.25, 0.5] and back.expression.count_nonzero() == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "neither .csv"),
        ("a.csv", "", "no Live Link Face recording: it lacks the columns eyeBlinkLeft"),
        ("a.csv", ",".join(LIVE_LINK_NAMES), "holds no frames"),
        ("a.csv", ",".join(LIVE_LINK_NAMES) + "\n" + ",".join(["x"] * 52), "line 2: eyeBlinkLeft is 'x'"),
        ("a.json", "{}", "its schema is None"),
        ("a.json", '{"schema": "dynamicface.arkit.1", "names": ["jawOpen"], "frames": []}', "no frames"),
        ("a.json", '{"schema": "dynamicface.arkit.1", "names": ["chin"], "frames": [[1]]}', "no channel of ARKit"),
        ("a.json", '{"schema": "dynamicface.arkit.1", "names": ["jawOpen"], "frames": [[1, 2]]}', "must be 1 rows of 1 numbers"),
    ],
)
def test_broken_recordings_are_sentences(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DynamicFaceError, match=message):
        load_performance(tmp_path / name)


def test_a_face_drives_itself_through_a_file(fitted, act, tmp_path):
    """Prior to CSV and back onto the same face: the same shot."""
    shot = drive_face(fitted, act, pose=1.0)
    save_performance(performance_of(shot), tmp_path / "a.csv")
    again = drive_face(fitted, load_performance(tmp_path / "a.csv"), pose=1.0)
    for field in ("expression", "gaze", "rotation", "translation"):
        torch.testing.assert_close(getattr(again, field), getattr(shot, field), atol=2e-5, rtol=0)
