"""The browser's preview and the library put the same vertices in the same place and the same light on them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dynamicface.conventions import ARKIT_NAMES
from dynamicface.dials import DIALS, MEASURES
from dynamicface.edit import edit_expression, edit_identity, edit_light, edit_pose
from dynamicface.preview import preview_file
from dynamicface.prior.camera import to_camera
from dynamicface.prior.geometry import offset_field

SCRIPT = Path(__file__).with_name("ui") / "deform.mjs"
METRES = 1e-4


def in_browser(path: Path, cases: list) -> list[dict]:
    """The cases run by the very modules the browser loads."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the preview's modules are run with Node.js, and there is no `node` on the path")
    (path.parent / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run([node, str(SCRIPT), str(path), str(path.parent / "cases.json")], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def in_library(prior, head, edits: list):
    for node, values in edits:
        if node == "DynamicFace_EditExpression":
            groups = ({k: v for k, v in values.items() if k in names} for names in (DIALS, ARKIT_NAMES))
            prior = edit_expression(prior, *groups, values.get("intensity", 1.0))
        elif node == "DynamicFace_EditIdentity":
            measures = {k: v for k, v in values.items() if k in MEASURES}
            prior = edit_identity(prior, head, measures, values.get("exaggerate", 0.0))
        else:
            prior = {"DynamicFace_EditPose": edit_pose, "DynamicFace_EditLight": edit_light}[node](prior, **values)
    return prior


def camera_vertices(prior, head):
    vertices = head.vertices(prior.identity.shape[None], prior.expression, prior.gaze) + offset_field(head) @ prior.offset
    return to_camera(vertices, prior.rotation, prior.translation)[0]


def every_edit() -> list:
    """Nothing; every dial both ways; every channel; every measure; pose; light; random mixtures of all of it."""
    expression, generator = "DynamicFace_EditExpression", torch.Generator().manual_seed(5)

    def some(names, low=-1.0, share=1.0):
        values = torch.rand(len(names), 2, generator=generator).tolist()
        return {name: low + (1 - low) * value for name, (value, chance) in zip(names, values, strict=True) if chance < share}

    cases = [[], [(expression, {"intensity": 0.0})], [(expression, {"intensity": 1.7})]]
    cases += [[(expression, {name: value})] for name in DIALS for value in (-1.0, 0.6)]
    cases += [[(expression, {name: 1.0})] for name in ARKIT_NAMES]
    cases += [[("DynamicFace_EditIdentity", {name: -0.8})] for name in ("exaggerate", *MEASURES)]
    cases += [[("DynamicFace_EditPose", {"yaw": 20.0, "pitch": -10.0, "roll": 5.0})]]
    light = {"azimuth": 70.0, "elevation": -20.0, "strength": 0.7, "warmth": 0.4, "exposure": -0.5, "turn": 65.0}
    cases += [[("DynamicFace_EditLight", light)], [("DynamicFace_EditLight", {"turn": -140.0})]]
    cases += [
        [
            ("DynamicFace_EditIdentity", some(MEASURES)),
            (expression, some(DIALS, share=0.5) | some(ARKIT_NAMES, -0.3, 0.3)),
            ("DynamicFace_EditPose", {"yaw": -12.0, "pitch": 8.0, "roll": 0.0}),
        ]
        for _ in range(12)
    ]
    return cases


def test_same_vertices_and_light(tmp_path, fitted, head):
    path = tmp_path / "preview.safetensors"
    path.write_bytes(preview_file(fitted, head, identity=True))
    cases = every_edit()
    shown = in_browser(path, cases)
    rest = camera_vertices(fitted, head)
    moved = 0
    for edits, result in zip(cases, shown, strict=True):
        prior = in_library(fitted, head, edits)
        expected = camera_vertices(prior, head)
        moved += int((expected - rest).norm(dim=-1).max() > 10 * METRES)
        error = (torch.tensor(result["camera"]) - expected).norm(dim=-1).max()
        assert error < METRES, f"{edits}: {float(error) * 1000:.3f} mm"
        torch.testing.assert_close(torch.tensor(result["illumination"]).view(9, 3), prior.illumination[0], atol=2e-4, rtol=1e-3)
    assert moved > 0.7 * len(cases), "the edits must move the face, or the comparison says nothing"


def test_any_frame_and_size(tmp_path, fitted, head):
    """A frame of a clip is that frame alone; the identity's dials are left out unless asked for; a file stays below 1.2 MB."""
    clip = fitted.replace(
        **{name: torch.cat([getattr(fitted, name)] * 2) for name in ("gaze", "rotation", "translation", "focal", "offset", "confidence")},
        expression=torch.cat([fitted.expression, 0.5 * fitted.expression]),
        illumination=torch.cat([fitted.illumination, 2 * fitted.illumination]),
        background=None,
    )
    path = tmp_path / "preview.safetensors"
    path.write_bytes(preview_file(clip, head, frame=-1))
    assert path.stat().st_size < 1.2e6
    with safe_open(str(path), "pt") as file:
        torch.testing.assert_close(file.get_tensor("expression"), 0.5 * fitted.expression[0])
        torch.testing.assert_close(file.get_tensor("illumination"), 2 * fitted.illumination[0])
        assert not any(name.startswith("identity_") for name in file.keys())  # noqa: SIM118 (the file is no mapping)
