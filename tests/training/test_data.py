"""Photographs to shards and shards to batches."""

from __future__ import annotations

import pytest
import torch

from dynamicface.errors import DynamicFaceError
from dynamicface.guiders import GUIDERS
from dynamicface.io.pictures import write_image
from dynamicface.training.config import TrainConfig
from dynamicface.training.data import Shards, prepare, training_photos
from dynamicface.training.views import KINDS, SIZE, ViewMaker


def test_every_ninth_photograph_is_held_out(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:05d}.jpg").touch()
    assert [path.stem for path in training_photos(tmp_path)] == [f"{n:05d}" for n in range(20) if n % 9]
    with pytest.raises(DynamicFaceError, match="no photographs"):
        training_photos(tmp_path / "elsewhere")


def test_a_batch_is_the_same_every_time_and_another_for_another_number(shards):
    one, same = (Shards(shards, 4, lambda number: 64, seed=3) for _ in range(2))
    a, b, c = one[7], same[7], one[8]
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["composite"], c["composite"])
    assert a["target"].shape == (4, 3, 64, 64) and a["mask"].shape == (4, 1, 64, 64)
    assert all(a[name].shape == (4, 3, 64, 64) and a[name].min() >= 0 and a[name].max() <= 1 for name in GUIDERS)
    assert a["target"].min() < -0.1 and a["target"].abs().max() <= 1


def test_whole_pictures_when_the_window_is_wide(shards):
    assert Shards(shards, 2, lambda number: 1 << 30)[0]["target"].shape[-1] == SIZE


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(DynamicFaceError, match="no training shards"):
        Shards(tmp_path, 2, lambda number: 64)


@pytest.mark.parametrize("name", ["cpu", "gpu", "sd15"])
def test_shipped_configurations_load(name):
    assert TrainConfig.load(name).steps > 0


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(DynamicFaceError, match="colour"):
        TrainConfig.of({"colour": 1})
    with pytest.raises(DynamicFaceError, match="no training configuration 'nothing'"):
        TrainConfig.load("nothing")


def test_views_hold_the_photograph_as_the_answer(pipeline, portrait):
    maker = ViewMaker(pipeline, seed=1)
    assert {KINDS[sample["kind"]] for sample in maker(portrait)} == {"expression", "mixed"}  # nobody to swap with yet
    samples = maker(portrait)
    assert [KINDS[sample["kind"]] for sample in samples] == ["expression", "mixed", "swap"]
    for sample in samples:
        composite, target = (sample[name].float() / 255 for name in ("composite", "target"))
        inside = sample["mask"].float() / 255
        assert 0.1 < inside.mean() < 0.6
        wrong = ((composite - target).abs() * inside).sum() / (3 * inside.sum())
        assert 0.003 < wrong < 0.2  # spoiled, and still the same person in the same place
        assert torch.allclose(sample["embedding"].float().norm(), torch.ones(()), atol=1e-2)
    assert maker(torch.zeros(1, 64, 64, 3)) == []


def test_shards_of_photographs(pipeline, portrait, tmp_path):
    photo = tmp_path / "photos" / "a.png"
    write_image(photo, portrait)
    paths = list(prepare(pipeline, [photo], tmp_path / "shards", seed=0))
    assert [path.name for path in paths] == ["000-0of1-0000.safetensors"]
    assert Shards(tmp_path / "shards", 2, lambda number: 128)[0]["composite"].shape == (2, 3, 128, 128)
