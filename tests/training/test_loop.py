"""The loop: it learns, it resumes to the bit, it keeps to its time, and its weights load."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from dynamicface.errors import WeightsError
from dynamicface.generator.files import load_generator
from dynamicface.training.loop import Trainer

pytest.importorskip("accelerate", reason="training needs accelerate")


def test_a_run_that_was_interrupted_ends_like_one_that_was_not(config, shards, tmp_path):
    whole = Trainer(config, shards, tmp_path / "whole", cpu=True)
    whole.run()
    first = Trainer(config, shards, tmp_path / "parts", cpu=True)
    for batch in first._loader():
        first._train_step(batch, first.step / config.steps)
        first.step += 1
        if first.step == 3:
            break
    first.save()
    second = Trainer(config, shards, tmp_path / "parts", cpu=True)
    assert second.step == 3
    second.run()
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name


def test_one_batch_is_learnt_by_heart(config, shards, tmp_path):
    trainer = Trainer(replace(config, learning_rate=2e-3, one_step=1.0, drop=0.0), shards, tmp_path, cpu=True)
    batch = trainer._placed(trainer.batches[0])
    losses = []
    for _ in range(40):
        losses.append(trainer._train_step(batch, 0.0)["loss"])
        trainer.step += 1
    assert losses[-1] < 0.5 * losses[0]


def test_a_compact_state_is_smaller_and_goes_on_from_the_average(config, shards, tmp_path):
    sizes = {}
    for compact in (False, True):
        out = tmp_path / str(compact)
        trainer = Trainer(replace(config, steps=2, compact=compact), shards, out, cpu=True)
        trainer.run()
        sizes[compact] = sum(path.stat().st_size for path in (out / "state").glob("*.safetensors"))
    assert sizes[True] < 0.45 * sizes[False]
    again = Trainer(replace(config, compact=True), shards, tmp_path / "True", cpu=True)
    assert again.step == 2
    for name, value in again.net.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name])


def test_the_discriminator_takes_part_once_it_is_its_turn(config, shards, tmp_path):
    losses = replace(config.losses, adversarial=0.1, matching=0.5, landmarks=0.1)
    trainer = Trainer(replace(config, steps=4, judge_from=0.5, losses=losses), shards, tmp_path, cpu=True)
    before = {name: value.clone() for name, value in trainer.judge.state_dict().items()}
    row = trainer.run()
    assert row["judge"] > 0 and "adversarial" in row and row["landmarks"] > 0
    assert any(not torch.equal(value, before[name]) for name, value in trainer.judge.state_dict().items())
    again = Trainer(replace(config, steps=5, judge_from=0.5, losses=losses), shards, tmp_path, cpu=True)
    for name, value in trainer.judge.state_dict().items():
        assert torch.equal(value, again.judge.state_dict()[name]), name


def test_a_run_leaves_weights_curves_and_a_sheet(config, shards, tmp_path):
    trainer = Trainer(config, shards, tmp_path, cpu=True)
    trainer.run()
    generator = load_generator(tmp_path / "weights.safetensors")
    for name, value in trainer.average.state_dict().items():
        assert torch.equal(value.half().float(), generator.state_dict()[name])
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows and float(rows[0]["loss"]) > 0
    assert list((tmp_path / "sheets").glob("*.png"))


def test_a_run_stops_when_its_time_is_up(config, shards, tmp_path):
    trainer = Trainer(replace(config, steps=10_000), shards, tmp_path, cpu=True)
    trainer.run(minutes=0.02)
    assert 0 < trainer.step < 1000


def test_a_state_of_another_network_is_refused(config, shards, tmp_path):
    Trainer(replace(config, steps=1), shards, tmp_path, cpu=True).run()
    with pytest.raises(WeightsError, match=r"Start anew|another network"):
        Trainer(replace(config, network=config.network | {"depths": [2, 2]}), shards, tmp_path, cpu=True)
