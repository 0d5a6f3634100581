from __future__ import annotations

import json
import shutil

import pytest
import torch

from dynamicface import weights
from dynamicface.errors import WeightsError
from dynamicface.weights import FOLDER, load_weights, registry

MEGABYTE = 2**20


@pytest.fixture
def copied(tmp_path):
    """A folder with a copy of one weight file."""
    shutil.copy(FOLDER / "face_detector_short.safetensors", tmp_path)
    return tmp_path


def test_every_file_has_a_row_and_every_row_a_file():
    on_disk = {path.name for path in FOLDER.glob("*.safetensors")}
    assert {row.file for row in registry().values()} == on_disk


def test_rows_say_where_the_weights_come_from_and_what_is_allowed():
    for row in registry().values():
        assert row.source and row.licence and row.converted, row.id
        assert row.commercial is True, f"{row.id} is shipped for the default path, which must be usable commercially"
        assert row.size == (FOLDER / row.file).stat().st_size


def test_the_perception_weights_stay_small():
    ids = ("face_detector_short", "face_detector_full", "face_landmarks", "face_identity", "person_matte")
    assert sum(registry()[id].size for id in ids) < 12 * MEGABYTE


def test_loaded_weights_are_float32_and_finite():
    tensors = load_weights("person_matte")
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values())


def test_unknown_id():
    with pytest.raises(WeightsError, match="no weight file called 'nose'"):
        load_weights("nose")


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"face_detector_short\.safetensors is missing; it should be [\d,]+ bytes\. Reinstall"):
        load_weights("face_detector_short", tmp_path)


def test_truncated_file(copied):
    file = copied / "face_detector_short.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"has [\d,]+ bytes instead of [\d,]+; it is truncated or altered"):
        load_weights("face_detector_short", copied)


def test_altered_file(copied):
    file = copied / "face_detector_short.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"was altered: its sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        load_weights("face_detector_short", copied)


def test_rows_of_other_tools_survive_a_conversion(tmp_path, monkeypatch):
    convert = pytest.importorskip("convert_perception")
    monkeypatch.setattr(convert, "FOLDER", tmp_path)
    row = registry()["person_matte"]
    (tmp_path / "registry.json").write_text(json.dumps([{"id": "head"}, {"id": "person_matte"}]))
    convert.register([row])
    rows = json.loads((tmp_path / "registry.json").read_text())
    assert [r["id"] for r in rows] == ["head", "person_matte"]
    assert weights.Row(**rows[1]) == row
