"""Clips in the graph: VIDEO in, VIDEO out, through the same Edit nodes as a photo, run by ComfyUI's own executor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from comfy_in_process import ComfyError, node
from PIL import Image

av = pytest.importorskip("av")

FRAMES = 18


@pytest.fixture(scope="module")
def clip(comfy, media) -> str:
    """A portrait that moves a little, in ComfyUI's input folder."""
    portrait = np.asarray(Image.open(media("astronaut.png")).convert("RGB"))
    path = comfy.folders["input"] / "panning.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for i in range(FRAMES):
            window = np.ascontiguousarray(portrait[20:276, 90 + i : 346 + i])
            target.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        target.mux(stream.encode(None))
    return path.name


def graph(clip: str, smile: float, **more: dict) -> dict:
    return {
        "1": node("LoadVideo", file=clip),
        "2": node("DynamicFace_FitClip", video=["1", 0], choose="largest", index=0, smoothing=0.5),
        "3": node("DynamicFace_EditExpression", prior=["2", 0], intensity=1.0, smile=smile),
        "4": node("DynamicFace_CompositeClip", prior=["3", 0], skin_tone=0.0, container=".mp4", codec="as filmed"),
        "5": node("SaveVideo", video=["4", 0], filename_prefix="result", format="auto", codec="auto"),
        **more,
    }


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as source:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]).astype(int)


def saved(comfy) -> np.ndarray:
    newest = max(comfy.folders["output"].glob("result*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    return decoded(newest)


def test_a_clip_goes_through_the_graph(comfy, clip):
    comfy.run(graph(clip, 0.9))
    before, after = decoded(comfy.folders["input"] / clip), saved(comfy)
    assert before.shape == after.shape == (FRAMES, 256, 256, 3)
    change = np.abs(after - before).max(-1)
    assert change[:, 60:160].max() > 60 and change[:, :, -20:].mean() < 3
    comfy.run(graph(clip, 0.4))
    assert not comfy.executed() & {"1", "2"}, "a dial does not fit again"


def test_neutral_dials_copy_the_file(comfy, clip):
    comfy.run(graph(clip, 0.0))
    assert np.array_equal(saved(comfy), decoded(comfy.folders["input"] / clip))


def test_the_stop_button_stops_a_clip(comfy, clip):
    import comfy.model_management as mm

    def press_stop(event: str, data: dict) -> None:
        state = data["nodes"].get("4") if event == "progress_state" else None
        if state and 0 < state["value"] < state["max"]:
            mm.interrupt_current_processing(True)

    comfy.on_event = press_stop
    try:
        with pytest.raises(ComfyError, match="execution_interrupted"):
            comfy.run(graph(clip, 0.7))
    finally:
        comfy.on_event = None
        mm.interrupt_current_processing(False)
    assert "5" not in comfy.executed()


def test_looks_and_time_nodes_work_on_a_clip(comfy, clip):
    more = {
        "6": node("DynamicFace_SmoothPrior", prior=["2", 0], smoothing=0.3),
        "7": node("DynamicFace_HoldBadFrames", prior=["6", 0], threshold=0.3, hold=12, fade=6),
        "8": node("DynamicFace_InspectPrior", prior=["7", 0], threshold=0.3, frame=2, count=3),
        "9": node("PreviewImage", images=["8", 0]),
        "10": node("PreviewImage", images=["8", 1]),
        "11": node("PreviewAny", source=["8", 2]),
    }
    outputs = comfy.run({key: value for key, value in graph(clip, 0.0, **more).items() if key not in "345"})
    assert len(outputs["9"]["images"]) == 3 and len(outputs["10"]["images"]) == 1
    assert list(outputs["11"]["text"]) == ["No frame below a confidence of 0.3."]


def test_frame_nodes_refuse_a_clip_in_words(comfy, clip):
    prompt = {key: value for key, value in graph(clip, 0.5).items() if key not in "45"}
    prompt |= {"6": node("DynamicFace_Composite", prior=["3", 0]), "7": node("PreviewImage", images=["6", 0])}
    with pytest.raises(ComfyError, match=f"a clip of {FRAMES} frames on disk"):
        comfy.run(prompt)
