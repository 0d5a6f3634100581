"""The commands that write libraries, exports and provenance."""

from __future__ import annotations

import json

from PIL import Image

from dynamicface.io.arkit import load_performance
from dynamicface.io.pictures import read_image


def test_a_library_is_pictures_a_sheet_and_a_list(run, photo, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"jawOpen": 0.5}))
    arguments = ("library", photo, "--out", tmp_path / "lib", "--presets", "kiss, mine", "--add", tmp_path / "mine.json")
    code, out, _ = run(*arguments, "--intensity", 0.5, "--intensity", 1, "--size", 96, "--ending", "jpg", "--json")
    assert code == 0 and json.loads(out)["names"] == ["kiss 0.50", "kiss 1.00", "mine 0.50", "mine 1.00"]
    rows = json.loads((tmp_path / "lib" / "library.json").read_text())["expressions"]
    assert [row["file"] for row in rows] == ["kiss_0.50.jpg", "kiss_1.00.jpg", "mine_0.50.jpg", "mine_1.00.jpg"]
    assert all(read_image(tmp_path / "lib" / row["file"]).shape == (1, 96, 96, 3) for row in rows)
    assert (tmp_path / "lib" / "sheet.jpg").is_file()


def test_an_animated_face_from_a_photo_and_keyframes(run, photo, tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({"smile": [[0, 0], [9, 1]], "yaw": [[0, 0], [9, 12]]}))
    code, out, _ = run("export", photo, "--curves", tmp_path / "keys.json", "--out", tmp_path / "a.glb", "--json")
    figures = json.loads(out)
    assert code == 0 and figures["frames"] == 10 and (tmp_path / "a.glb").read_bytes()[:4] == b"glTF"
    assert figures["largest_error_mm"] < 0.1 <= figures["largest_error_without_correctives_mm"] < 10


def test_a_recording_goes_through(run, photo, tmp_path):
    run("export", photo, "--preset", "laugh", "--out", tmp_path / "laugh.csv")
    code, *_ = run("export", photo, "--drive", tmp_path / "laugh.csv", "--out", tmp_path / "again.json")
    first, second = load_performance(tmp_path / "laugh.csv"), load_performance(tmp_path / "again.json")
    assert code == 0 and (first.expression - second.expression).abs().max() < 1e-4


def test_a_closed_head_and_passes(run, photo, tmp_path):
    code, out, _ = run("export", photo, "--out", tmp_path / "a.stl", "--pupil-distance", 60, "--json")
    figures = json.loads(out)
    assert code == 0 and figures["pupil_distance_mm"] == 60 and 180 < figures["size_mm"][1] < 300
    code, *_ = run("export", photo, "--out", tmp_path / "passes", "--sequence", "png")
    assert code == 0 and len(list((tmp_path / "passes").glob("*/face.0000.png"))) == 5


def test_unknown_kinds_are_sentences(run, photo, tmp_path):
    code, _, err = run("export", photo, "--out", tmp_path / "a.fbx")
    assert code == 2 and "Cannot export to" in err and ".glb" in err
    code, _, err = run("export", photo, "--out", tmp_path / "a.glb", "--preset", "smirk")
    assert code == 2 and "No preset or group is called 'smirk'" in err


def test_an_edit_says_where_it_comes_from_unless_told_not_to(run, photo, tmp_path):
    code, out, _ = run("edit", photo, "--set", "smile=0.5", "--out", tmp_path / "a.png", "--consent", "hers", "--json")
    sidecar = tmp_path / "a.png.provenance.json"
    assert code == 0 and json.loads(out)["wrote"] == [str(tmp_path / "a.png"), str(sidecar)]
    record = json.loads(sidecar.read_text())
    assert (record["action"], record["consent"], record["settings"]) == ("edit", "hers", {"smile": 0.5})
    assert [source["name"] for source in record["sources"]] == ["portrait.png"]
    with Image.open(tmp_path / "a.png") as image:
        assert "compositeSynthetic" in image.info["XML:com.adobe.xmp"]
    run("edit", photo, "--set", "smile=0.5", "--out", tmp_path / "b.png", "--no-provenance")
    with Image.open(tmp_path / "b.png") as image:
        assert "XML:com.adobe.xmp" not in image.info
    run("edit", photo, "--set", "smile=0", "--out", tmp_path / "c.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.png.provenance.json", "b.png", "c.png"]
