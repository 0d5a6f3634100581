"""Every workflow that ships validates and runs, converted from the browser's format as the browser would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from photographs import missing_media, write_photographs
from PIL import Image
from ui_workflow import to_api

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def object_info(comfy) -> dict[str, dict]:
    """What the server answers on /object_info, for the node types the workflows use."""
    used = {node["type"] for path in WORKFLOWS for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]}
    info = {}
    for kind in used & comfy.nodes.keys():
        node = comfy.nodes[kind]
        if hasattr(node, "GET_NODE_INFO_V1"):
            info[kind] = node.GET_NODE_INFO_V1()
        else:
            inputs = node.INPUT_TYPES()
            info[kind] = {"input": inputs, "input_order": {section: list(fields) for section, fields in inputs.items()}}
    return info


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs(comfy, object_info, path):
    if missing_media():
        pytest.skip(
            f"the photographs {', '.join(missing_media())} are not in .cache/media: run `python dev.py setup` with a registry at hand"
        )
    write_photographs(comfy.folders["input"])
    prompt = to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
    outputs = comfy.run(prompt)
    saved = [image for node_id, output in outputs.items() if prompt[node_id]["class_type"] == "SaveImage" for image in output["images"]]
    assert saved
    for entry in saved:
        low, high = Image.open(comfy.folders["output"] / entry["subfolder"] / entry["filename"]).convert("L").getextrema()
        assert high - low > 100, "a blank picture"
    assert path.with_suffix(".jpg").is_file(), "the template browser shows the picture of the same name"


def test_positions_of_widget_values():
    """control_after_generate takes a second value; a link overrides a widget; notes disappear."""
    info = {
        "Sampler": {
            "input": {
                "required": {"model": ["MODEL"], "seed": ["INT", {"control_after_generate": True}], "steps": ["INT", {"default": 20}]},
                "optional": {"mode": [["a", "b"]], "mask": ["MASK"]},
            },
            "input_order": {"required": ["model", "seed", "steps"], "optional": ["mode", "mask"]},
        }
    }
    links = [[1, 7, 0, 3, 0, "MODEL"], [2, 8, 1, 3, 1, "INT"]]
    slots = [{"name": "model", "link": 1}, {"name": "steps", "link": 2}]
    workflow = {
        "links": links,
        "nodes": [
            {"id": 3, "type": "Sampler", "inputs": slots, "widgets_values": [42, "fixed", 20, "b"]},
            {"id": 4, "type": "MarkdownNote", "widgets_values": ["text"]},
        ],
    }
    assert to_api(workflow, info)["3"]["inputs"] == {"seed": 42, "steps": ["8", 1], "mode": "b", "model": ["7", 0]}
    workflow["nodes"][0]["widgets_values"] = [42, "fixed"]  # stored before the node had a mode
    assert to_api(workflow, info)["3"]["inputs"] == {"seed": 42, "steps": ["8", 1], "mode": "a", "model": ["7", 0]}
    workflow["nodes"][0]["mode"] = 4
    with pytest.raises(ValueError, match="bypassed"):
        to_api(workflow, info)
