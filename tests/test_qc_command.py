"""python -m dynamicface qc: pictures and folders in, a report out, one sentence where something does not fit."""

from __future__ import annotations

import json

import pytest
import torch

from dynamicface.io.pictures import read_image, write_image


@pytest.fixture(scope="module")
def shots(tmp_path_factory, portrait):
    """Folders result and plate of three frames, and a mask; frame 1 of the result is dark inside of the mask."""
    folder = tmp_path_factory.mktemp("shots")
    mask = torch.zeros(1, 320, 320)
    mask[:, 30:250, 80:250] = 1
    for t in range(3):
        plate = portrait[:, 10:330, 60 + t : 380 + t]
        write_image(folder / "plate" / f"{t:04}.png", plate)
        write_image(folder / "result" / f"{t:04}.png", torch.where(mask[..., None] > 0, 0.7 * plate, plate) if t == 1 else plate)
    write_image(folder / "mask.png", mask[..., None].expand(-1, -1, -1, 3))
    return folder


def test_a_folder_is_a_clip(run, shots, tmp_path):
    arguments = ("qc", "--result", shots / "result", "--plate", shots / "plate", "--mask", shots / "mask.png", "--out", tmp_path, "--json")
    code, out, err = run(*arguments)
    figures = json.loads(out)
    assert code == 0 and err == "" and figures["frames"] == 3 and 1 in figures["worst_frames"]
    assert figures["metrics"]["outside"]["worst"] == 0 and figures["metrics"]["light"]["worst_frame"] == 1
    assert figures["wrote"] == [str(tmp_path / "report.png"), str(tmp_path / "report.json")]
    assert len(json.loads((tmp_path / "report.json").read_text())["metrics"]["light"]["curve"]) == 3
    assert read_image(tmp_path / "report.png").shape[2] == 1120


def test_a_limit_that_is_missed_fails(run, shots, tmp_path):
    picture = shots / "plate" / "0000.png"
    arguments = ("qc", "--result", picture, "--plate", picture, "--require", "pose=1", "--out", tmp_path)
    code, out, _ = run(*arguments)
    assert code == 0 and "identity cosine" in out and "worst" in out and "report.png" in out
    code, _, err = run(*arguments, "--require", "identity=1.5")
    assert code == 2 and "Identity cosine is" in err and "it must be at least 1.5." in err and (tmp_path / "report.png").is_file()


def test_what_does_not_fit_is_one_sentence(run, shots, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        ("--plate", shots / "plate" / "0000.png"): "0000.png ends after 1 frames, the others go on",
        ("--plate", tmp_path / "empty"): "holds no pictures",
        ("--plate", tmp_path / "none.mp4"): "There is no file",
        ("--require", "beauty=1"): "expected NAME=NUMBER with one of presence, identity",
        ("--networks", tmp_path): "lpips_alex.safetensors",
    }
    for arguments, sentence in cases.items():
        code, _, err = run("qc", "--result", shots / "result", *arguments)
        assert code == 2 and sentence in err and err.count("\n") == 1, err
