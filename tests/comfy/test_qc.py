"""QC Report, Compare and Gate in ComfyUI's own executor."""

from __future__ import annotations

import json

import pytest
import torch
from comfy_in_process import ComfyError, node
from PIL import Image
from safetensors.torch import save_file

from dynamicface.metrics.lpips import FILE, Lpips


def report_of_a_smile(input_photo: str, **more: dict) -> dict:
    """Photograph -> smile -> QC Report, with the plate and the mask of the edit."""
    return {
        "1": node("LoadImage", image=input_photo),
        "2": node(
            "DynamicFace_Expression", images=["1", 0], intensity=1.0, yaw=0.0, pitch=0.0, roll=0.0, choose="largest", index=0, smile=0.8
        ),
        "3": node("DynamicFace_QCReport", images=["2", 0], plate=["1", 0], mask=["2", 1], count=3),
        **more,
    }


def gate(metric: str, threshold: float, **more) -> dict:
    return node("DynamicFace_Gate", images=["2", 0], quality=["3", 4], metric=metric, threshold=threshold, every_frame=True, **more)


def test_report_is_a_picture_and_json(comfy, input_photo):
    outputs = comfy.run(
        report_of_a_smile(input_photo, **{"4": node("PreviewAny", source=["3", 1]), "5": node("PreviewAny", source=["3", 3])})
    )
    picture = Image.open(comfy.folders["temp"] / outputs["3"]["images"][0]["filename"])
    assert picture.size[0] == 1120 and picture.size[1] > 300
    found = json.loads(outputs["4"]["text"][0])
    assert found["frames"] == 1 and found["metrics"]["outside"]["worst"] == 0
    assert found["metrics"]["expression"]["mean"] > 0.05 and found["metrics"]["identity"]["mean"] > 0.8
    assert outputs["5"]["text"] == ["0"]


def test_worst_frames_are_wired_back(comfy, input_photo):
    """ImageFromBatch runs once per frame that stands out; here one, the dark last of five."""
    prompt = {
        "1": node("LoadImage", image=input_photo),
        "2": node("RepeatImageBatch", image=["1", 0], amount=4),
        "3": node("ImageBlend", image1=["1", 0], image2=["1", 0], blend_factor=1.0, blend_mode="multiply"),
        "4": node("ImageBatch", image1=["2", 0], image2=["3", 0]),
        "5": node("RepeatImageBatch", image=["1", 0], amount=5),
        "6": node("DynamicFace_QCReport", images=["4", 0], plate=["5", 0], count=1),
        "7": node("ImageFromBatch", image=["4", 0], batch_index=["6", 2], length=1),
        "8": node("PreviewImage", images=["7", 0]),
    }
    shown = comfy.run(prompt)["8"]["images"]
    darkest = Image.open(comfy.folders["temp"] / shown[0]["filename"]).convert("L").resize((1, 1)).getpixel((0, 0))
    plain = Image.open(comfy.folders["input"] / input_photo).convert("L").resize((1, 1)).getpixel((0, 0))
    assert len(shown) == 1 and darkest < plain - 20


def test_gate_lets_a_good_result_pass(comfy, input_photo):
    outputs = comfy.run(report_of_a_smile(input_photo, **{"4": gate("outside", 0.0), "5": node("PreviewImage", images=["4", 0])}))
    assert len(outputs["5"]["images"]) == 1


def test_gate_stops_a_bad_one_with_the_reason(comfy, input_photo):
    comfy.run(report_of_a_smile(input_photo, **{"4": gate("expression", 0.01), "5": node("PreviewImage", images=["4", 0])}))
    blocked = [data["exception_message"] for event, data in comfy.events if event == "execution_error"]
    assert len(blocked) == 1 and "Gate: Expression change is 0." in blocked[0] and "it must be at most 0.01 RMS" in blocked[0]


def test_lpips_is_measured_where_its_file_is(comfy, input_photo, tmp_path, monkeypatch):
    """The network may not ship; stirred weights stand for it."""
    import folder_paths

    paths, endings = folder_paths.folder_names_and_paths["dynamicface"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "dynamicface", ([*paths, str(tmp_path)], endings))
    (tmp_path / "networks").mkdir()
    draw = torch.Generator().manual_seed(0)
    state = {name: 0.02 * torch.rand(value.shape, generator=draw) for name, value in Lpips().state_dict().items()}
    save_file(state, str(tmp_path / "networks" / FILE))
    report = {"4": node("PreviewAny", source=["3", 1]), "5": node("PreviewImage", images=["6", 0]), "6": gate("lpips", 100.0)}
    prompt = report_of_a_smile(input_photo, **report)
    prompt["2"]["inputs"]["smile"] = 0.6  # another run than the other tests'
    outputs = comfy.run(prompt)
    assert 0 < json.loads(outputs["4"]["text"][0])["metrics"]["lpips"]["mean"] < 100 and len(outputs["5"]["images"]) == 1


def test_gate_needs_what_was_measured(comfy, input_photo):
    with pytest.raises(ComfyError, match="'warp_error' was not measured"):
        comfy.run(report_of_a_smile(input_photo, **{"4": gate("warp_error", 0.01), "5": node("PreviewImage", images=["4", 0])}))


@pytest.mark.parametrize(("mode", "width"), [("wipe", 512), ("side by side", 1024), ("difference", 512)])
def test_comparisons_are_shown(comfy, input_photo, mode, width):
    prompt = {
        "1": node("LoadImage", image=input_photo),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("DynamicFace_Compare", images_a=["1", 0], images_b=["2", 0], mode=mode, position=0.5, gain=8.0),
    }
    shown = Image.open(comfy.folders["temp"] / comfy.run(prompt)["3"]["images"][0]["filename"])
    assert shown.size == (width, 512)


def test_sizes_that_differ_are_one_sentence(comfy, input_photo):
    prompt = {
        "1": node("LoadImage", image=input_photo),
        "2": node("ImageScale", image=["1", 0], upscale_method="bilinear", width=256, height=256, crop="disabled"),
        "3": node("DynamicFace_Compare", images_a=["1", 0], images_b=["2", 0], mode="wipe", position=0.5, gain=8.0),
    }
    with pytest.raises(ComfyError, match="The picture A is 1 frame of 512 x 512 with 3 channels, the picture B is 1 frame of 256 x 256"):
        comfy.run(prompt)
