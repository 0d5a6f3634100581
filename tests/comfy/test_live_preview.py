"""What the Edit nodes leave for the browser's live preview: a file in ComfyUI's temp folder that /view serves."""

from __future__ import annotations

from comfy_in_process import fitted_photo, node
from safetensors import safe_open


def test_edit_nodes_leave_their_face(comfy, input_photo):
    prompt = {
        **fitted_photo(input_photo, 256),
        "4": node("DynamicFace_EditExpression", prior=["3", 0], intensity=1.0, smile=0.5),
        "5": node("DynamicFace_EditPose", prior=["4", 0], yaw=5.0, pitch=0.0, roll=0.0),
        "6": node("DynamicFace_EditIdentity", prior=["5", 0], exaggerate=0.2),
        "7": node("DynamicFace_EditLight", prior=["6", 0], strength=0.5, azimuth=45.0, elevation=30.0, warmth=0.0, exposure=0.0, turn=0.0),
        "8": node("DynamicFace_RenderPrior", prior=["7", 0], size=64),
    }
    outputs = comfy.run(prompt)
    files = {}
    for editor in "4567":
        (entry,) = outputs[editor]["dynamicface_preview"]
        assert entry["type"] == "temp" and entry["subfolder"] == ""
        files[editor] = comfy.folders["temp"] / entry["filename"]
    faces = {editor: dict(_tensors(path)) for editor, path in files.items()}
    assert [editor for editor, face in faces.items() if "identity_step" in face] == ["6"]
    smiles = {editor: float(face["expression"].max()) for editor, face in faces.items()}
    assert smiles["5"] > smiles["4"], "each node shows the face before its own edit"
    assert (faces["6"]["rotation"] - faces["5"]["rotation"]).abs().max() > 0.01

    prompt["4"]["inputs"]["smile"] = 0.8  # another dial on the same face: the same file
    assert comfy.run(prompt)["4"]["dynamicface_preview"][0]["filename"] == files["4"].name
    assert "3" not in comfy.executed()
    outputs = comfy.run(prompt)  # nothing has changed and nothing runs; a page that was reloaded still gets its faces
    assert not comfy.executed() & set("1234567")
    assert all(outputs[editor]["dynamicface_preview"] for editor in "4567")


def _tensors(path):
    with safe_open(str(path), "pt") as file:
        yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 (the file is no mapping)
