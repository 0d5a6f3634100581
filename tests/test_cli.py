"""The command line in process: files are written, figures are JSON, and what a user can put right is one sentence and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicface import cli
from dynamicface.io.pictures import read_image, write_image
from dynamicface.io.priors import load_prior

ROOT = Path(__file__).resolve().parents[1]


def test_fit_saves_a_prior_and_draws_it(run, photo, tmp_path, fitted):
    code, out, err = run("fit", photo, "--out", tmp_path / "who.safetensors", "--overlay", tmp_path / "fit.png", "--json")
    assert code == 0 and err == ""
    figures = json.loads(out)
    assert figures["wrote"] == [str(tmp_path / "who.safetensors"), str(tmp_path / "fit.png")]
    frame = figures["frames"][0]
    assert frame["file"] == str(photo) and frame["reprojection_error"] < 0.015 and frame["confidence"] > 0.8
    assert abs(frame["yaw"]) < 10 and frame["expression"]["mouthSmileLeft"] > 0.1
    assert set(figures["seconds"]) == {"load", "read", "track", "fit"}
    prior = load_prior(tmp_path / "who.safetensors")
    torch.testing.assert_close(prior.expression, fitted.expression, atol=5e-3, rtol=0)
    assert (read_image(tmp_path / "fit.png") != read_image(photo)).any()


def test_photos_of_several_sizes_share_one_identity(run, photo, tmp_path, portrait):
    write_image(tmp_path / "small.jpg", portrait[:, 40:472, 30:482])
    code, out, _ = run(
        "fit", photo, tmp_path / "small.jpg", "--out", tmp_path / "who.safetensors", "--overlay", tmp_path / "o.png", "--json"
    )
    assert code == 0 and len(json.loads(out)["frames"]) == 2
    prior = load_prior(tmp_path / "who.safetensors")
    assert len(prior) == 2 and prior.identity.shape.dim() == 1 and prior.image_size == (512, 512)
    assert read_image(tmp_path / "o.png").shape == (1, 512, 1024, 3)


def test_edit_moves_dials(run, photo, tmp_path):
    code, out, _ = run("edit", photo, "--set", "smile=0.8", "--set", "yaw=10", "--out", tmp_path / "new" / "a.png", "--json")
    figures = json.loads(out)
    assert code == 0 and figures["settings"] == {"smile": 0.8, "yaw": 10.0}
    assert 0 < figures["changed_share"] <= figures["mask_share"] < 0.6
    assert (read_image(tmp_path / "new" / "a.png") != read_image(photo)).any()


def test_an_edit_of_nothing_writes_the_photo(run, photo, tmp_path):
    code, out, _ = run("edit", photo, "--set", "smile=0", "--out", tmp_path / "a.png")
    assert code == 0 and out.startswith(f"wrote {tmp_path / 'a.png'}\n")
    assert torch.equal(read_image(tmp_path / "a.png"), read_image(photo))


def test_an_occlusion_mask_is_a_picture(run, photo, tmp_path):
    mask = np.zeros((512, 512), np.uint8)
    mask[:, 220:] = 255
    Image.fromarray(mask).save(tmp_path / "hand.png")
    code, _, _ = run("edit", photo, "--set", "laugh=1", "--occlusion", tmp_path / "hand.png", "--out", tmp_path / "a.png")
    before, after = read_image(photo), read_image(tmp_path / "a.png")
    assert code == 0 and torch.equal(before[:, :, 220:], after[:, :, 220:]) and (before[:, :, :220] != after[:, :, :220]).any()


def test_swap_from_a_photo_and_from_a_saved_prior(run, photo, tmp_path, portrait):
    write_image(tmp_path / "other.png", portrait.flip(2) * torch.tensor([0.9, 0.8, 0.7]))
    assert run("fit", tmp_path / "other.png", "--out", tmp_path / "other.safetensors")[0] == 0
    results = []
    for source in ("other.png", "other.safetensors"):
        arguments = ("--source", tmp_path / source, "--target", photo, "--out", tmp_path / "a.png", "--skin-tone", "0.5", "--json")
        code, out, _ = run("swap", *arguments)
        figures = json.loads(out)
        assert code == 0 and set(figures["identity_cosine"]) == {"source_target", "source_result", "target_result"}
        results.append(read_image(tmp_path / "a.png"))
    assert (results[0] - results[1]).abs().max() < 0.03 and (results[0] - portrait).abs().mean() > 1e-3


def test_a_swap_of_no_weight_is_the_target(run, photo, tmp_path, portrait):
    write_image(tmp_path / "other.png", portrait.flip(2))
    code, _, _ = run("swap", "--source", tmp_path / "other.png", "--target", photo, "--weight", "0", "--out", tmp_path / "a.png")
    assert code == 0 and torch.equal(read_image(tmp_path / "a.png"), read_image(photo))


def test_guides_writes_every_map(run, photo, tmp_path):
    code, out, _ = run("guides", photo, "--out", tmp_path / "maps", "--size", "96", "--json")
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert code == 0 and names == {f"{n}.png" for n in ("normal", "pose", "expression", "illumination", "background", "composite", "mask")}
    assert all(read_image(tmp_path / "maps" / name).shape == (1, 96, 96, 3) for name in names)
    assert np.shape(json.loads(out)["plate_to_crop"]) == (2, 3)


def test_a_sheet_has_a_row_per_dial_and_the_photo_in_the_middle(run, photo, tmp_path):
    arguments = ("--dial", "smile", "--dial", "yaw", "--steps", "3", "--size", "96")
    code, out, _ = run("sheet", photo, "--out", tmp_path / "sheet.png", *arguments, "--json")
    changes = json.loads(out)["mean_change_from_the_middle"]
    assert code == 0 and list(changes) == ["smile", "yaw"]
    for row in changes.values():
        assert row[1] == 0 and row[0] > 1e-3 and row[2] > 1e-3
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape[2] == 3 * 96 and sheet.shape[1] > 2 * 96


def test_sixteen_bits_are_kept_on_request(run, photo, tmp_path):
    assert run("edit", photo, "--set", "exposure=0.3", "--bits", "16", "--out", tmp_path / "a.png")[0] == 0
    values = read_image(tmp_path / "a.png") * 255
    assert (values - values.round()).abs().max() > 0.1


BAD = {
    "no command": ((), "arguments are required: COMMAND"),
    "unknown command": (("morph",), "invalid choice: 'morph'"),
    "missing file": (("edit", "none.png", "--out", "a.png"), "There is no file none.png"),
    "no output": (("edit", "{photo}"), "arguments are required: --out"),
    "unknown dial": (("edit", "{photo}", "--set", "smlie=1", "--out", "a.png"), "'smlie' (did you mean smile?); there are smile, laugh"),
    "folder": (("edit", ".", "--out", "a.png"), ". is a folder; name one picture in it."),
    "clip": (("edit", "{clip}", "--out", "a.png"), "It is a clip: see `python -m dynamicface video`."),
    "prior's ending": (("fit", "{photo}", "--out", "a.png"), "A prior is saved as a .safetensors file; a.png has another ending."),
    "no number": (("edit", "{photo}", "--set", "smile=much", "--out", "a.png"), "expected a number, but found 'much'"),
    "not finite": (("edit", "{photo}", "--set", "smile=nan", "--out", "a.png"), "expected a number, but found 'nan'"),
    "no equals sign": (("edit", "{photo}", "--set", "smile", "--out", "a.png"), "expected DIAL=NUMBER, for example smile=0.8"),
    "unknown face": (("fit", "{photo}", "--out", "a.safetensors", "--face", "tallest"), "expected largest, leftmost, rightmost, centre or"),
    "weight": (("swap", "--source", "{photo}", "--target", "{photo}", "--out", "a.png", "--weight", "2"), "a number from 0 to 1"),
    "size": (("guides", "{photo}", "--out", "maps", "--size", "8"), "a whole number from 64 to 4096"),
    "light has no sheet": (("sheet", "{photo}", "--out", "a.png", "--dial", "azimuth"), "no dial is called 'azimuth'"),
    "unknown format": (("edit", "{photo}", "--out", "a.xyz"), "no picture format that can be written"),
    "device": (("edit", "{photo}", "--out", "a.png", "--device", "abacus"), "The device 'abacus' cannot be used here"),
    "no face": (("edit", "{blank}", "--out", "a.png"), "blank.png: No face was found in the picture (300 x 200 pixels)"),
    "no picture": (("edit", "{text}", "--out", "a.png"), "text.png is not a picture this library can read"),
    "no prior": (("swap", "--source", "{weights}", "--target", "{photo}", "--out", "a.png"), "cannot be read as a face prior"),
    "mask size": (
        ("edit", "{photo}", "--occlusion", "{blank}", "--out", "a.png"),
        "occlusion mask is 300 x 200 pixels, the plate is 512 x 512",
    ),
    "too many photos": (("fit", *["{photo}"] * 17, "--out", "a.safetensors"), "17 photos were given"),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(run, photo, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    names = {"blank": "blank.png", "text": "text.png", "weights": "who.safetensors", "clip": "a.mp4"}
    files = {"photo": photo} | {kind: tmp_path / name for kind, name in names.items()}
    write_image(files["blank"], torch.full((1, 200, 300, 3), 0.4))
    files["text"].write_text("no picture")
    files["weights"].write_bytes(b"cut")
    files["clip"].write_bytes(b"cut")
    code, out, err = run(*(a.format(**files) for a in arguments))
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and sentence in err
    assert not (tmp_path / "a.png").exists()


def test_help_names_the_commands(run, capsys):
    for arguments, words in ((("--help",), ("fit", "swap", "bench")), (("edit", "--help"), ("--set", "smile", "jaw_width"))):
        with pytest.raises(SystemExit) as done:
            cli.main(list(arguments))
        out = capsys.readouterr().out
        assert done.value.code == 0 and all(word in out for word in words)


def test_bench_needs_the_repository(run, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    monkeypatch.setattr(cli.bench, "BENCHMARKS", tmp_path / "benchmarks")
    code, _, err = run("bench")
    assert code == 2 and "not part of the installed library" in err and "python dev.py bench" in err


def test_bench_hands_its_arguments_over(run, monkeypatch, tmp_path):
    """The folder beside the library is found from anywhere, and nothing else of the repository gets onto the path."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "report.py").write_text("def main(arguments):\n    return len(arguments) if arguments == ['--json', 'swap'] else 1\n")
    monkeypatch.setattr(cli.bench, "BENCHMARKS", folder)
    before = list(sys.path)
    assert run("bench", "--json", "swap")[0] == 2 and sys.path == before
    del sys.modules["benchmarks"], sys.modules["benchmarks.report"]


def test_the_module_runs_as_a_program(tmp_path):
    """python -m dynamicface, in a process of its own."""
    command = [sys.executable, "-m", "dynamicface", "edit", str(tmp_path / "none.png"), "--out", str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert "There is no file" in done.stderr and "Traceback" not in done.stderr
