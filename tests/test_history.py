"""What got worse between two runs, beyond their noise; the table of targets; figures of repeats."""

from __future__ import annotations

import json

import pytest
import torch


def run_of(history, commit: str, quick: bool = False, machine: str = "one", **values: float):
    """A run whose figures a_ms is better lower, b_rank better higher; spread of 1 each."""
    figures = {
        key: {"value": v, "unit": "", "better": "lower" if key.startswith("a") else "higher", "data": "", "spread": 1.0}
        for key, v in values.items()
    }
    return history.Run("2026-01-01T00:00:00", commit, machine, quick, figures)


def test_worse_is_beyond_three_spreads_in_the_bad_direction(benchmarks):
    history = benchmarks("history")
    old, new = run_of(history, "aaa", a1=10, a2=10, a3=10, b1=10, b2=10), run_of(history, "bbb", a1=14, a2=12, a3=6, b1=6, b2=14)
    verdicts = {row[1]: row[0] for row in history.compare(old, new, [old, new]).rows}
    assert verdicts == {"a1": "WORSE", "a2": "", "a3": "better", "b1": "WORSE", "b2": "better"}
    assert [row[0] for row in history.compare(old, new, [old, new]).rows] == ["WORSE", "WORSE", "better", "better", ""]


def test_runs_of_one_commit_tell_the_noise(benchmarks):
    """Two runs of a commit that lie 10 apart make a later change of 12 noise; those of another kind say nothing."""
    history = benchmarks("history")
    runs = [run_of(history, "aaa", a=100), run_of(history, "aaa", a=110), run_of(history, "bbb", a=122)]
    assert history.noise("a", runs, runs[-1]) == pytest.approx(50**0.5)
    assert history.compare(runs[1], runs[2], runs).rows[0][0] == ""
    others = [run_of(history, "aaa", quick=True, a=100), run_of(history, "aaa", machine="two", a=110), *runs[1:]]
    assert history.noise("a", others, runs[-1]) == 0 and history.compare(runs[1], runs[2], others).rows[0][0] == "WORSE"


def test_history_is_written_and_compared(benchmarks, tmp_path, capsys, monkeypatch):
    history, common = benchmarks("history"), benchmarks("common")
    for commit, value in (("aaa", 5.0), ("bbb", 7.0), ("bbb", 9.0)):  # the second run is added twice, as it finds more
        monkeypatch.setattr(history, "_commit", lambda commit=commit: commit)
        figure = common.Figure.repeated("speed.track", [value, value + 0.1, value - 0.1], "ms", "lower", "3 repeats")
        reports = [common.Report("Speed", [common.Table("", (), [], figures=(figure,))]), common.Report("Swap", skipped="no data")]
        history.append(reports, "cpu", quick=False, when=f"2026, run {commit}", file=tmp_path / "history.jsonl")
    assert len(history.read(tmp_path / "history.jsonl")) == 2
    assert history.main(["--file", str(tmp_path / "history.jsonl")]) == 1
    assert "| WORSE | speed.track | 5 | 9 |" in capsys.readouterr().out
    assert history.main(["1", "0", "--file", str(tmp_path / "history.jsonl")]) == 0
    with pytest.raises(SystemExit):
        history.main(["7", "0", "--file", str(tmp_path / "history.jsonl")])
    assert "There is no run '7' in the history of 2." in capsys.readouterr().err


def test_targets_are_met_missed_or_not_measured(benchmarks):
    targets, common = benchmarks("targets"), benchmarks("common")
    figures = [common.Figure("swap.id_error", 0.0, "%", "lower", "40 pairs"), common.Figure("tvo.ssim_gain", 9.0, "%", "higher", "8 clips")]
    figures.append(common.Figure("yaw.all", float("nan"), "degrees", "lower", "no face"))
    missing = {"mixture": "no weights", "swap.id_error_wild": "too few pairs"}
    table = targets.table({f.key: (f, "python -m benchmarks.x") for f in figures}, missing)
    rows = {target.key: row for target, row in zip(targets.TARGETS, table.rows, strict=True)}
    assert rows["swap.id_error"][3:7] == (0.0, "%", "met", "40 pairs") and rows["tvo.ssim_gain"][5] == "not met"
    assert rows["mixture.speedup_5"][5] == "not measured: no weights" and rows["swap.id_error_wild"][5] == "not measured: too few pairs"
    assert rows["latency.4k"][5] == "not measured: this run did not ask for it" and rows["yaw.all"][5] == "not measured: no number came out"
    assert table.note.startswith("1 met, 1 not met, 0 no bound, ")


def test_a_measurement_that_is_missing_stops_no_other(benchmarks, tmp_path, monkeypatch, capsys):
    report = benchmarks("report")
    monkeypatch.setattr(report, "MEASUREMENTS", {"nowhere": "Nowhere", "fit": "Fit"})
    arguments = ["--quick", "--data", str(tmp_path / "none"), "--out", str(tmp_path)]
    assert report.main(arguments) == 0
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Benchmark\n\nMachine: ") and "Not measured: this version has no such measurement" in text
    assert "There is no folder london" in text and "## Targets" in text and "Nowhere" in capsys.readouterr().out


def test_a_measurement_that_breaks_is_told_and_fails_the_run(benchmarks, monkeypatch, tmp_path, capsys):
    report, history, common = benchmarks("report"), benchmarks("history"), benchmarks("common")

    def broken(pipe, options):
        raise KeyError("radius")

    def unprintable(pipe, options):
        return [common.Table("no rows", ("a",), None)]

    def slipped(pipe, options):  # a number that is not Python's own
        figure = common.Figure("swap.id_error", torch.tensor(1.5), "%", "lower", "one pair")
        return [common.Table("a table", ("a",), [(1,)], figures=(figure,))]

    monkeypatch.setattr(report, "MEASUREMENTS", {"fit": "Fit", "rig": "Rig", "swap": "Swap"})
    for name, measure in {"fit": broken, "rig": unprintable, "swap": slipped}.items():
        monkeypatch.setattr(benchmarks(name), "measure", measure)
    monkeypatch.setattr(history, "FILE", tmp_path / "history.jsonl")
    assert report.main(["--data", str(tmp_path), "--out", str(tmp_path), "--record"]) == 1
    assert "the measurement failed: KeyError: 'radius'" in capsys.readouterr().out
    assert [bool(entry["skipped"]) for entry in json.loads((tmp_path / "report.json").read_text())["reports"]] == [True, True, False]
    (run,) = history.read(tmp_path / "history.jsonl")
    assert run.figures["swap.id_error"]["value"] == 1.5
