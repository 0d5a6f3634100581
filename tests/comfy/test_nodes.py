"""Promises of the graph, run by ComfyUI's own executor on a real photograph."""

from __future__ import annotations

import pytest
from comfy_in_process import ComfyError, fitted_photo, node
from PIL import Image, ImageChops

STATIONS = {"1": "LoadImage", "2": "DynamicFace_TrackFaces", "3": "DynamicFace_FitPrior"}


def graph(image: str, editor: dict, **more: dict) -> dict:
    """Photograph -> track -> fit -> editor -> composite -> preview."""
    return {
        **fitted_photo(image),
        "4": editor,
        "5": node("DynamicFace_Composite", prior=["4", 0]),
        "6": node("PreviewImage", images=["5", 0]),
        **more,
    }


def smile(amount: float) -> dict:
    return node("DynamicFace_EditExpression", prior=["3", 0], intensity=1.0, smile=amount)


def picture(comfy, outputs: dict, node_id: str) -> Image.Image:
    return Image.open(comfy.folders["temp"] / outputs[node_id]["images"][0]["filename"]).convert("RGB")


NEUTRAL = {
    "expression": node("DynamicFace_EditExpression", prior=["3", 0], intensity=1.0, smile=0.0, jawOpen=0.0),
    "pose": node("DynamicFace_EditPose", prior=["3", 0], yaw=0.0, pitch=0.0, roll=0.0),
    "identity": node("DynamicFace_EditIdentity", prior=["3", 0], exaggerate=0.0),
    "light": node("DynamicFace_EditLight", prior=["3", 0], strength=0.0, azimuth=45.0, elevation=30.0, warmth=0.0, exposure=0.0, turn=0.0),
    "compose": node("DynamicFace_ComposePrior", base=["3", 0], identity_weight=1.0),
}


@pytest.mark.parametrize("editor", NEUTRAL.values(), ids=NEUTRAL)
def test_neutral_dials_return_the_plate(comfy, input_photo, editor):
    outputs = comfy.run(graph(input_photo, editor))
    plate = Image.open(comfy.folders["input"] / input_photo).convert("RGB")
    assert ImageChops.difference(picture(comfy, outputs, "6"), plate).getbbox() is None


def test_a_dial_changes_the_face_and_only_the_face(comfy, input_photo):
    outputs = comfy.run(graph(input_photo, smile(0.8)))
    plate = Image.open(comfy.folders["input"] / input_photo).convert("RGB")
    left, _, right, bottom = ImageChops.difference(picture(comfy, outputs, "6"), plate).getbbox()
    assert 110 < left < right < 350 and bottom < 340  # the astronaut's head and the hair around it, of 512 x 512


def test_moving_a_dial_does_not_detect_or_fit_again(comfy, input_photo):
    comfy.run(graph(input_photo, smile(0.3)))
    comfy.run(graph(input_photo, smile(0.6)))
    assert not comfy.executed() & STATIONS.keys()
    assert {"4", "5", "6"} <= comfy.executed()


def test_progress_and_preview_are_shown(comfy, input_photo):
    comfy.run(graph(input_photo, smile(0.45)))
    states = [data["nodes"]["5"] for event, data in comfy.events if event == "progress_state" and "5" in data["nodes"]]
    assert any(state["value"] == state["max"] for state in states)


def test_stop_button(comfy, input_photo):
    """Pressed after the first window of frames of the composite, the shot stops there."""
    import comfy.model_management as mm

    shot = graph(input_photo, smile(0.55), **{"9": node("RepeatImageBatch", image=["1", 0], amount=20)})
    shot["2"]["inputs"]["images"] = shot["3"]["inputs"]["images"] = ["9", 0]
    seen = []

    def press_stop(event: str, data: dict) -> None:
        state = data["nodes"].get("5") if event == "progress_state" else None
        if state and 0 < state["value"] < state["max"]:
            seen.append(state["value"])
            mm.interrupt_current_processing(True)

    comfy.on_event = press_stop
    try:
        with pytest.raises(ComfyError, match="execution_interrupted"):
            comfy.run(shot)
    finally:
        comfy.on_event = None
        mm.interrupt_current_processing(False)
    assert seen and "6" not in comfy.executed()


def test_no_face_is_a_sentence(comfy):
    Image.new("RGB", (320, 240), (90, 120, 150)).save(comfy.folders["input"] / "wall.png")
    with pytest.raises(ComfyError, match="face") as failure:
        comfy.run(graph("wall.png", smile(0.5)))
    assert "Traceback" not in str(failure.value) and str(failure.value).strip().endswith(".")


def test_a_swap_says_which_picture_has_no_face(comfy, input_photo):
    Image.new("RGB", (320, 240), (90, 120, 150)).save(comfy.folders["input"] / "wall.png")
    settings = {"identity": 1.0, "skin_tone": 0.0, "detail": 1.0, "choose": "largest", "index": 0}
    prompt = {"1": node("LoadImage", image=input_photo), "2": node("LoadImage", image="wall.png")}
    prompt["3"] = node("DynamicFace_Swap", source=["2", 0], target=["1", 0], **settings)
    with pytest.raises(ComfyError, match="'source': No face was found"):
        comfy.run(prompt | {"4": node("PreviewImage", images=["3", 0])})


def test_reference_without_a_photo_says_what_to_connect(comfy, input_photo):
    prompt = graph(input_photo, smile(0.5))
    prompt["2"]["inputs"]["choose"] = "reference"
    with pytest.raises(ComfyError, match="no photo is connected to 'reference'"):
        comfy.run(prompt)


def test_several_faces_are_chosen_by_position_and_by_photo(comfy, media):
    """The same person is found from the left, and by a cut-out photo of them, in a group of five."""
    group = Image.open(media("multi_face.jpg")).convert("RGB")
    group.save(comfy.folders["input"] / "group.png")
    group.crop((410, 160, 550, 320)).save(comfy.folders["input"] / "third.png")

    def box(**choice) -> list[int]:
        prompt = {
            "1": node("LoadImage", image="group.png"),
            "2": node("DynamicFace_TrackFaces", images=["1", 0], **{"index": 0, "threshold": 0.5} | choice),
            "3": node("DynamicFace_FitPrior", images=["1", 0], track=["2", 0], shared_identity=True, texture_size=128),
            "4": smile(1.0),
            "5": node("DynamicFace_Composite", prior=["4", 0]),
            "6": node("PreviewImage", images=["5", 0]),
            "8": node("LoadImage", image="third.png"),
        }
        return ImageChops.difference(picture(comfy, comfy.run(prompt), "6"), group).getbbox()

    boxes = [box(choose="leftmost"), box(choose="rightmost"), box(choose="reference", reference=["8", 0])]
    centres = [(left + right) / 2 for left, _, right, _ in boxes]
    assert centres[0] < centres[2] < centres[1]
    assert 430 < centres[2] < 530


def test_one_mask_serves_a_whole_shot(comfy, input_photo):
    """A roto of one frame over the whole picture keeps every frame of a shot as filmed."""
    roto = {
        "7": node("SolidMask", value=1.0, width=512, height=512),
        "9": node("RepeatImageBatch", image=["1", 0], amount=3),
    }
    shot = graph(input_photo, smile(1.0), **roto)
    shot["2"]["inputs"]["images"] = shot["3"]["inputs"]["images"] = ["9", 0]
    shot["5"]["inputs"]["occlusion"] = ["7", 0]
    frames = comfy.run(shot)["6"]["images"]
    plate = Image.open(comfy.folders["input"] / input_photo).convert("RGB")
    assert len(frames) == 3
    for frame in frames:
        assert ImageChops.difference(Image.open(comfy.folders["temp"] / frame["filename"]).convert("RGB"), plate).getbbox() is None


def test_dial_beyond_its_range_is_refused(comfy, input_photo):
    with pytest.raises(ComfyError, match="bigger than max"):
        comfy.validate(graph(input_photo, smile(3.0)))


def test_core_face_landmarks_are_accepted_and_emitted(comfy, input_photo):
    """A track rebuilt from the core dictionary that we emit leads to the same picture, through either node."""
    direct = comfy.run(graph(input_photo, smile(0.5)))
    plain = graph(input_photo, smile(0.5))
    plain["3"]["inputs"]["track"] = ["2", 1]
    again = graph(input_photo, smile(0.5))
    again["7"] = again["2"]
    again["2"] = node("DynamicFace_TrackFaces", images=["1", 0], choose="largest", index=0, threshold=0.5, face_landmarks=["7", 1])
    for rebuilt in (again, plain):
        difference = ImageChops.difference(picture(comfy, direct, "6"), picture(comfy, comfy.run(rebuilt), "6"))
        assert max(high for _, high in difference.getextrema()) <= 2


def test_shortcut_equals_the_graph(comfy, input_photo):
    long_way = comfy.run(graph(input_photo, smile(0.7)))
    short = {
        "1": node("LoadImage", image=input_photo),
        "2": node(
            "DynamicFace_Expression", images=["1", 0], intensity=1.0, yaw=0.0, pitch=0.0, roll=0.0, choose="largest", index=0, smile=0.7
        ),
        "6": node("PreviewImage", images=["2", 0]),
    }
    assert ImageChops.difference(picture(comfy, comfy.run(short), "6"), picture(comfy, long_way, "6")).getbbox() is None
