"""Presets, libraries, curves, exports and provenance, run by ComfyUI's own executor on a real photograph."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import av
import pytest
from comfy_in_process import ComfyError, fitted_photo, node
from PIL import Image, ImageChops

from dynamicface.conventions import ARKIT_NAMES
from dynamicface.io.provenance import hash_graph


def graph(image: str, **more: dict) -> dict:
    """Photograph -> track -> fit as 1, 2, 3."""
    return {
        **fitted_photo(image),
        **more,
    }


def shown(prior: str) -> dict:
    """Composite and preview of a node's prior as 8 and 9."""
    return {"8": node("DynamicFace_Composite", prior=[prior, 0]), "9": node("PreviewImage", images=["8", 0])}


def pictures(comfy, outputs: dict) -> list[Image.Image]:
    return [Image.open(comfy.folders["temp"] / image["filename"]).convert("RGB") for image in outputs["9"]["images"]]


def preset(**changes) -> dict:
    inputs = {"prior": ["3", 0], "preset": "laugh", "intensity": 1.0, "second": "none", "blend": 0.0, "on_top": False}
    return node("DynamicFace_ExpressionPreset", **inputs | changes)


def written(comfy, pattern: str) -> list[Path]:
    return sorted(comfy.folders["output"].glob(pattern))


def test_a_preset_without_intensity_is_the_plate_and_with_it_another_face(comfy, input_photo):
    plate = Image.open(comfy.folders["input"] / input_photo).convert("RGB")
    (still,) = pictures(comfy, comfy.run(graph(input_photo, **{"4": preset(intensity=0.0)}, **shown("4"))))
    assert ImageChops.difference(still, plate).getbbox() is None
    (laugh,) = pictures(comfy, comfy.run(graph(input_photo, **{"4": preset()}, **shown("4"))))
    (kiss,) = pictures(comfy, comfy.run(graph(input_photo, **{"4": preset(second="kiss", blend=1.0)}, **shown("4"))))
    assert ImageChops.difference(laugh, plate).getbbox() and ImageChops.difference(laugh, kiss).getbbox()


def test_an_own_preset_is_saved_listed_and_used(comfy, input_photo):
    """The preset list is the folder's; what was saved gives the same picture as what it was saved from."""
    import folder_paths

    folder = Path(folder_paths.get_user_directory()) / "dynamicface" / "presets"
    saver = node("DynamicFace_SavePreset", prior=["4", 0], name="test smirk", frame=0, gaze=False, author="a test", note="")
    try:
        comfy.run(graph(input_photo, **{"4": preset(preset="contempt"), "5": saver}))
        assert json.loads((folder / "test smirk.json").read_text())["author"] == "a test"
        (saved,) = pictures(comfy, comfy.run(graph(input_photo, **{"4": preset(preset="own/test smirk")}, **shown("4"))))
        (original,) = pictures(comfy, comfy.run(graph(input_photo, **{"4": preset(preset="contempt")}, **shown("4"))))
        assert max(high for _, high in ImageChops.difference(saved, original).getextrema()) <= 12
    finally:
        (folder / "test smirk.json").unlink(missing_ok=True)
    with pytest.raises(ComfyError, match="cannot be a file name here"):
        saver = node("DynamicFace_SavePreset", prior=["4", 0], name="../../x", frame=0, gaze=False)
        comfy.run(graph(input_photo, **{"4": preset(), "5": saver}))


def test_a_library_of_one_actor(comfy, input_photo):
    library = node("DynamicFace_ExpressionLibrary", prior=["3", 0], presets="smile, kiss", intensities="0.5, 1", size=128)
    more = {"4": library, "5": node("PreviewAny", source=["4", 2]), "9": node("PreviewImage", images=["4", 0])}
    outputs = comfy.run(graph(input_photo, **more))
    found = pictures(comfy, outputs)
    assert json.loads(outputs["5"]["text"][0]) == ["smile 0.50", "smile 1.00", "kiss 0.50", "kiss 1.00"]
    assert len(found) == 4 and all(picture.size == (128, 128) for picture in found)
    assert all(ImageChops.difference(a, b).getbbox() for a, b in pairwise(found))
    with pytest.raises(ComfyError, match="No preset or group is called 'smirk'"):
        comfy.run(graph(input_photo, **more | {"4": node("DynamicFace_ExpressionLibrary", **library["inputs"] | {"presets": "smirk"})}))


def test_keyframes_make_a_shot_of_a_still(comfy, input_photo):
    keys = {"smile": [[0, 0], [3, 1]]}
    curves = node("DynamicFace_ExpressionCurves", prior=["3", 0], keyframes=json.dumps(keys), frames=0)
    frames = pictures(comfy, comfy.run(graph(input_photo, **{"4": curves}, **shown("4"))))
    plate = Image.open(comfy.folders["input"] / input_photo).convert("RGB")
    assert len(frames) == 4 and ImageChops.difference(frames[3], plate).getbbox()
    curves["inputs"]["keyframes"] = "{smile: 1}"
    with pytest.raises(ComfyError, match="The keyframes are not JSON"):
        comfy.run(graph(input_photo, **{"4": curves}, **shown("4")))


def test_a_performance_goes_out_and_comes_back(comfy, input_photo):
    """Keyframes to a Live Link CSV; the CSV read again drives the same still to the same shot."""
    keys = json.dumps({"laugh": [[0, 0], [2, 1]], "yaw": [[0, 0], [2, 6]]})
    curves = node("DynamicFace_ExpressionCurves", prior=["3", 0], keyframes=keys, frames=0)
    export = node("DynamicFace_ExportARKit", prior=["4", 0], format="csv", fps=24.0, filename_prefix="face/act")
    direct = pictures(comfy, comfy.run(graph(input_photo, **{"4": curves, "5": export}, **shown("4"))))
    recording = comfy.folders["input"] / "act.csv"
    shutil.copy(written(comfy, "face/act*.csv")[-1], recording)
    drive = {"prior": ["3", 0], "mode": "absolute", "neutral_frame": 0, "amount": 1.0, "pose": 1.0, "delay": 0, "stretch": False}
    try:
        more = {
            "4": node("DynamicFace_ImportARKit", file="act.csv", fps=0.0),
            "5": node("DynamicFace_DriveFromPrior", driver=["4", 0], **drive),
        }
        again = pictures(comfy, comfy.run(graph(input_photo, **more, **shown("5"))))
    finally:
        recording.unlink()
    assert len(again) == len(direct) == 3
    for a, b in zip(direct, again, strict=True):
        difference = ImageChops.difference(a, b).convert("L")
        assert sum(level * count for level, count in enumerate(difference.histogram())) / (512 * 512) < 0.5


@pytest.mark.parametrize(
    ("format", "pattern", "start"),
    [
        ("glb", "face/mesh*.glb", b"glTF"),
        ("obj sequence", "face/mesh*/head.0000.obj", b"# DynamicFace, cm"),
        ("closed head stl", "face/mesh*.stl", b"DynamicFace, millimetres, interpupillary distance 63.00 mm"),
    ],
)
def test_exports_land_in_the_output_folder(comfy, input_photo, format, pattern, start):
    export = {"format": format, "fps": 24.0, "unit": "cm", "pupil_distance": 63.0, "filename_prefix": "face/mesh"}
    comfy.run(graph(input_photo, **{"4": node("DynamicFace_ExportFace", prior=["3", 0], **export)}))
    assert written(comfy, pattern)[-1].read_bytes().startswith(start)


def test_passes_as_images_and_files(comfy, input_photo):
    passes = node("DynamicFace_RenderPasses", prior=["3", 0], save="png", filename_prefix="face/passes")
    (normal,) = pictures(comfy, comfy.run(graph(input_photo, **{"4": passes, "9": node("PreviewImage", images=["4", 0])})))
    assert normal.size == (512, 512) and normal.getpixel((0, 0)) == (0, 0, 0) and normal.getbbox()
    assert len(written(comfy, "face/passes*/*/face.0000.png")) == 5


def test_provenance_names_the_photograph_and_the_graph(comfy, input_photo):
    saver = {"images": ["8", 0], "generated": False, "consent": "released by the test", "filename_prefix": "signed"}
    prompt = graph(input_photo, **{"4": preset(), "8": node("DynamicFace_Composite", prior=["4", 0])})
    prompt["5"] = node("DynamicFace_Provenance", record=True, **saver)
    comfy.run(prompt)
    (sidecar,) = written(comfy, "signed*.provenance.json")
    record = json.loads(sidecar.read_text())
    assert [source["name"] for source in record["sources"]] == [input_photo] and record["consent"] == "released by the test"
    assert record["graph_sha256"] == hash_graph(prompt) and record["digital_source_type"].endswith("/compositeSynthetic")
    (saved,) = written(comfy, "signed*.png")
    with Image.open(saved) as image:
        assert "DigitalSourceType" in image.info["XML:com.adobe.xmp"] and "prompt" in image.info
    prompt["5"] = node("DynamicFace_Provenance", record=False, **saver | {"filename_prefix": "plain"})
    comfy.run(prompt)
    (plain,) = written(comfy, "plain*")
    with Image.open(plain) as image, Image.open(saved) as first:
        assert "XML:com.adobe.xmp" not in image.info and ImageChops.difference(image, first).getbbox() is None


def test_a_clip_with_its_provenance(comfy, input_photo):
    """Frames and workflow as Save Video keeps them, the record in the file and beside it."""
    saver = {"video": ["9", 0], "generated": True, "consent": "released by the test"}
    prompt = graph(input_photo, **{"4": preset(), "8": node("DynamicFace_Composite", prior=["4", 0])})
    prompt["9"] = node("CreateVideo", images=["8", 0], fps=12.0)
    prompt["5"] = node("DynamicFace_ProvenanceVideo", record=True, filename_prefix="film", **saver)
    prompt["6"] = node("DynamicFace_ProvenanceVideo", record=False, filename_prefix="bare", **saver)
    comfy.run(prompt)
    (film,), (bare,), (sidecar,) = (written(comfy, pattern) for pattern in ("film*.mp4", "bare*.mp4", "film*.mp4.provenance.json"))
    record = json.loads(sidecar.read_text())
    assert record["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia") and record["graph_sha256"] == hash_graph(prompt)
    assert [source["name"] for source in record["sources"]] == [input_photo] and record["results"][0]["name"] == film.name
    assert b"DigitalSourceType" in film.read_bytes() and b"DigitalSourceType" not in bare.read_bytes()
    for path in (film, bare):
        with av.open(str(path)) as clip:
            assert "prompt" in clip.metadata and sum(1 for _ in clip.decode(video=0)) == 1


def test_the_curve_editor_of_newer_versions_moves_a_dial(comfy, fitted):
    """Core's curve input (0.15.1 and newer) offers interp_array; what it draws arrives over the whole shot."""

    class Curve:
        def interp_array(self, xs):
            return xs**2

    curves = comfy.nodes["DynamicFace_ExpressionCurves"]
    (shot,) = curves.execute(fitted, "{}", 5, curve=Curve(), curve_dial="jawOpen", curve_amount=0.8).args
    jaw = shot.expression[:, ARKIT_NAMES.index("jawOpen")] - fitted.expression[0, ARKIT_NAMES.index("jawOpen")]
    assert jaw.tolist() == pytest.approx([0.8 * (k / 4) ** 2 for k in range(5)], abs=1e-6)
