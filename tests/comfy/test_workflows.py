"""Every workflow that ships validates and runs, converted from the browser's format as the browser would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from photographs import missing_media, write_photographs
from PIL import Image
from published import stirred
from safetensors.torch import save_file
from small_sd15 import small_kind, write_checkpoint
from ui_workflow import CHECKPOINTS, MUTED, choose_checkpoint, to_api, without

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
NEEDS_CHECKPOINT = [path for path in WORKFLOWS if any(kind in path.read_text(encoding="utf-8") for kind in CHECKPOINTS)]


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


@pytest.fixture
def photographs(comfy) -> None:
    """The pictures and the clip that the workflows name."""
    if missing_media():
        pytest.skip(
            f"the photographs {', '.join(missing_media())} are not in .cache/media: run `python dev.py setup` with a registry at hand"
        )
    write_photographs(comfy.folders["input"])


def stored(path: Path, awake: bool = False) -> dict:
    """A workflow as it ships; awake: with its muted nodes."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        node["mode"] = 0 if awake else node["mode"]
    return workflow


def check_pictures(comfy, prompt: dict, outputs: dict) -> None:
    """Something was saved, and no picture is blank."""
    saved = [image for node_id, output in outputs.items() if prompt[node_id]["class_type"] == "SaveImage" for image in output["images"]]
    assert saved
    for entry in saved:
        low, high = Image.open(comfy.folders["output"] / entry["subfolder"] / entry["filename"]).convert("L").getextrema()
        assert high - low > 100, "a blank picture"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_has_its_picture(path):
    assert path.with_suffix(".jpg").is_file(), "the template browser shows the picture of the same name"


@pytest.mark.parametrize("path", [path for path in WORKFLOWS if path not in NEEDS_CHECKPOINT], ids=lambda path: path.stem)
def test_workflow_runs(comfy, object_info, photographs, path):
    prompt = to_api(stored(path), object_info)
    check_pictures(comfy, prompt, comfy.run(prompt))


@pytest.fixture
def model_files(comfy, tmp_path, monkeypatch):
    """A folder of models with a small checkpoint and small adapters under the names that the workflows give."""
    import comfy.supported_models
    import folder_paths

    monkeypatch.setattr(comfy.supported_models, "models", [small_kind(), *comfy.supported_models.models])
    for folder in ("checkpoints", "dynamicface"):
        paths, endings = folder_paths.folder_names_and_paths[folder]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([*paths, str(tmp_path / folder)], endings))
    for folder in ("checkpoints", "dynamicface/sd15", "dynamicface/animatediff"):
        (tmp_path / folder).mkdir(parents=True)
    write_checkpoint(tmp_path / "checkpoints" / "v1-5-pruned-emaonly-fp16.safetensors")
    for seed, name in enumerate(("normal", "expression", "pose", "illumination", "background")):
        save_file(stirred("guider", seed=seed), str(tmp_path / "dynamicface" / "sd15" / f"guider_{name}.safetensors"))
    save_file(stirred("id2token", e=1024), str(tmp_path / "dynamicface" / "sd15" / "id2token.safetensors"))
    torch.save(stirred("motion", p=32), tmp_path / "dynamicface" / "animatediff" / "v3_sd15_mm.ckpt")
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.filename_list_cache.clear()


@pytest.mark.parametrize("awake", [False, True], ids=["with a checkpoint alone", "with all files"])
@pytest.mark.parametrize("path", NEEDS_CHECKPOINT, ids=lambda path: path.stem)
def test_workflow_runs_on_a_checkpoint(comfy, object_info, photographs, model_files, path, awake):
    """From Load Checkpoint to the saved picture. The small checkpoint's picture is noise: it is bounded by the mask."""
    prompt = to_api(stored(path, awake), object_info)
    for node in prompt.values():
        node["inputs"] |= {"KSampler": {"steps": 2}, "DynamicFace_RenderGuides": {"size": 128}}.get(node["class_type"], {})
    check_pictures(comfy, prompt, comfy.run(prompt))
    kinds = {prompt[number]["class_type"] for number in comfy.executed()}
    assert kinds >= {"KSampler", "DynamicFace_PasteBack"} and ("DynamicFace_LoadAdapter" in kinds) == awake


@pytest.mark.parametrize("path", NEEDS_CHECKPOINT, ids=lambda path: path.stem)
def test_what_needs_no_checkpoint_is_a_graph_of_its_own(comfy, object_info, photographs, path):
    """The part that the workflow's picture shows."""
    prompt = without(to_api(stored(path), object_info), CHECKPOINTS)
    assert comfy.validate(prompt) and not {"KSampler", *CHECKPOINTS} & {node["class_type"] for node in prompt.values()}


def test_a_checkpoint_is_chosen_or_missed():
    def server(*files):
        return {"CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [list(files)]}}}}

    prompt = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "named.safetensors"}}}
    assert choose_checkpoint({}, {}) == ""
    assert choose_checkpoint(prompt, server()) == "named.safetensors in models/checkpoints"
    assert choose_checkpoint(prompt, server("other", "named.safetensors")) == ""
    assert prompt["1"]["inputs"]["ckpt_name"] == "named.safetensors"
    assert choose_checkpoint(prompt, server("other", "another")) == "" and prompt["1"]["inputs"]["ckpt_name"] == "other"


def test_positions_of_widget_values():
    """control_after_generate takes a second value; a link overrides a widget; notes and muted nodes disappear."""
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
    muted = {"id": 7, "type": "Loader", "mode": MUTED}
    assert to_api(workflow | {"nodes": [*workflow["nodes"], muted]}, info)["3"]["inputs"].keys() == {"seed", "steps", "mode"}
    workflow["nodes"][0]["mode"] = 4
    with pytest.raises(ValueError, match="bypassed"):
        to_api(workflow, info)
