"""The measurements are commands of the repository: without their data they say so and are no error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_without_pictures_a_measurement_is_skipped_with_its_reason(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "fit", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reason = f"There is no folder london in {tmp_path / 'nowhere'}. Pass the measurement pictures with --data DIR."
    assert f"Not measured: {reason}" in done.stdout
    (report,) = json.loads((tmp_path / "report.json").read_text())["reports"]
    assert report["name"] == "Fit" and report["tables"] == [] and report["skipped"] == reason
