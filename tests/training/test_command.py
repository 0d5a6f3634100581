"""python -m dynamicface train."""

from __future__ import annotations

import json

import pytest

from dynamicface.cli import main


def test_a_run_by_the_command_line_goes_on_where_it_stopped(config, shards, tmp_path, capsys):
    pytest.importorskip("accelerate", reason="training needs accelerate")
    file, out = tmp_path / "tiny.json", tmp_path / "run"
    for steps in (1, 2):
        file.write_text(json.dumps(config.plain() | {"steps": steps}))
        assert main(["train", "--shards", str(shards), "--out", str(out), "--config", str(file), "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures["last_step"]["step"] == steps
        assert figures["wrote"] == [str(out / "weights.safetensors")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--shards", "s"], "--out"),
        (["--shards", "s", "--prepare", "nowhere"], "no photographs"),
        (["--shards", "s", "--prepare", "nowhere", "--share", "2/2"], "K/N"),
        (["--shards", "s", "--out", "o", "--config", "nothing"], "no training configuration"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(given, said, capsys):
    assert main(["train", *given]) == 2
    assert said in capsys.readouterr().err
