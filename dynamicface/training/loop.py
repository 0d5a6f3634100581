"""The training loop, on accelerate: one CPU process or many GPUs, bf16, running average, resumable at any step, curves and sheets.

A run lives in a folder: `state/` to resume from, `curves.csv`, `sheets/*.png` and the weights of the running average.
"""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from ..errors import DynamicFaceError
from ..io.pictures import write_image
from ..sheet import contact_sheet
from .adversary import PatchDiscriminator, deceive_loss, judge_loss
from .config import TrainConfig
from .data import Shards
from .embedded import EmbeddedTask
from .sd15 import AdapterTask
from .state import optimizer_tensors, read_state, restore_module, restore_optimizer, write_state

_SHEET_ROWS = 8
_SHEET_BATCH = (1 << 31) - 1  # a batch number no run reaches
_LOG_STEPS = 10
_TERMS = ("pixels", "low", "contour", "bands", "features", "identity", "landmarks", "adversarial", "matching", "judge", "denoising")
TASKS = {"embedded": EmbeddedTask, "sd15": AdapterTask}
log = logging.getLogger(__name__)


class Trainer:
    """One run. `run` trains until the steps, or the minutes, are used up; a second Trainer on the same folder goes on from there."""

    def __init__(self, config: TrainConfig, shards: Path, out: Path, *, cpu: bool = False) -> None:
        """cpu: stay off a GPU.

        Raises:
            DynamicFaceError: accelerate is not installed, or there are no shards.
        """
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise DynamicFaceError("Training needs the package accelerate; install it with `pip install accelerate`.") from error
        self.config, self.out = config, Path(out)
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=cpu)
        torch.manual_seed(config.seed)
        self.batches = Shards(shards, config.batch, config.window_at, config.seed)
        task = TASKS[config.model](config, self.device)
        self.average = copy.deepcopy(task.net).requires_grad_(False).eval()
        trained = task.net.parameters()
        optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99))
        self.task, self.optimizer = self.accelerator.prepare(task, optimizer)
        self.judge, self.judge_optimizer = None, None
        if config.judge_from < 1:
            judge = PatchDiscriminator().to(self.device, memory_format=torch.channels_last)
            optimizer = torch.optim.AdamW(judge.parameters(), lr=config.judge_rate, betas=(0.5, 0.99))
            self.judge, self.judge_optimizer = self.accelerator.prepare(judge, optimizer)
        self.step, self.seconds = 0, 0.0
        self.written: list[Path] = []
        self._resume()

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def net(self) -> nn.Module:
        """The network in training."""
        return self.accelerator.unwrap_model(self.task).net

    def run(self, minutes: float = math.inf) -> dict[str, float]:
        """Train on; returns the last curve's row. minutes: of this call."""
        started, before = time.monotonic(), self.seconds
        saved = drawn = started
        row: dict[str, float] = {}
        for batch in self._loader():
            now = time.monotonic()
            used = (now - started) / 60 / minutes
            self.seconds = before + now - started
            if used >= 1:
                break
            row = self._train_step(batch, max(self.step / self.config.steps, used))
            self.step += 1
            if self.step % _LOG_STEPS == 0 or self.step == 1:
                self._log(row)
            now = time.monotonic()
            if now - drawn > self.config.sheet_minutes * 60:
                self.draw_sheet()
                drawn = now
            if now - saved > self.config.save_minutes * 60:
                self.save()
                saved = now
        self.save()
        self.draw_sheet()
        return row

    def _loader(self) -> Iterator[dict[str, Tensor]]:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        numbers = range(self.step * world + rank, self.config.steps * world, world)
        loader = DataLoader(self.batches, batch_size=None, sampler=numbers, num_workers=self.config.workers)
        for batch in loader:
            yield self._placed(batch)

    def _placed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: x.to(self.device, memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)
            for name, x in batch.items()
        }

    def _train_step(self, batch: dict[str, Tensor], progress: float) -> dict[str, float]:
        config = self.config
        rate = config.learning_rate * min((self.step + 1) / config.warmup, 1.0) * min((1 - progress) / max(config.decay, 1e-6), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        judging = self.judge is not None and progress >= config.judge_from
        with self._attention(), self.accelerator.autocast():
            terms, found = self.task(batch, self._seed())
            if judging:
                pair = found, batch["target"], batch["expression"]
                verdict, matching = deceive_loss(self.judge, *pair)
                terms |= {"adversarial": config.losses.adversarial * verdict, "matching": config.losses.matching * matching}
        loss = sum(terms.values())
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.net.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if judging:
            with self.accelerator.autocast():
                terms["judge"] = judge_loss(self.judge, *pair)
            self.judge_optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(terms["judge"])
            self.judge_optimizer.step()
        self._follow()
        figures = {"loss": loss, **terms, "gradient": norm}
        return {"step": self.step + 1, "rate": rate} | {name: float(value.detach()) for name, value in figures.items()}

    def _attention(self) -> AbstractContextManager:
        """The fused attention of torch's CPU backend is slower backwards than plain matrix products: at these sizes up to four times."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def _seed(self) -> int:
        """Of the noise of this step on this process."""
        return (self.config.seed * 1_000_003 + self.step) * self.accelerator.num_processes + self.accelerator.process_index

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average; it forgets faster at the beginning."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - keep)

    def _log(self, row: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "curves.csv"
        names = ["step", "seconds", "rate", "loss", "gradient", *_TERMS]
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in (row | {"seconds": self.seconds}).items()})
        log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    # What is kept

    def save(self) -> None:
        """Write the state and the running average."""
        if not self.accelerator.is_main_process:
            return
        half = self.config.compact
        tensors = {} if half else {f"net.{name}": value for name, value in self.net.state_dict().items()}
        kept = {f"average.{name}": value.half() if half else value for name, value in self.average.state_dict().items()}
        moments = optimizer_tensors(self.optimizer.optimizer, "moment.")
        if self.judge is not None:
            tensors |= {f"judge.{name}": value for name, value in self.accelerator.unwrap_model(self.judge).state_dict().items()}
            moments |= optimizer_tensors(self.judge_optimizer.optimizer, "judge_moment.")
        if half:
            moments = {name: value.bfloat16() if value.dim() else value for name, value in moments.items()}
        facts = {"step": self.step, "seconds": self.seconds, "config": self.config.plain()}
        write_state(self.out / "state", tensors | kept | moments, facts)
        self.written = self.accelerator.unwrap_model(self.task).export(self.average, self.out, {"steps": str(self.step)})

    def _resume(self) -> None:
        found = read_state(self.out / "state")
        if found is None:
            return
        tensors, facts = found
        restore_module(self.average, tensors, "average.")
        restore_module(self.net, tensors, "net." if any(name.startswith("net.") for name in tensors) else "average.")
        restore_optimizer(self.optimizer.optimizer, tensors, "moment.")
        if self.judge is not None and any(name.startswith("judge.") for name in tensors):
            restore_module(self.accelerator.unwrap_model(self.judge), tensors, "judge.")
            restore_optimizer(self.judge_optimizer.optimizer, tensors, "judge_moment.")
        self.step, self.seconds = facts["step"], facts["seconds"]
        log.info("going on from step %d", self.step)

    @torch.no_grad()
    def draw_sheet(self) -> None:
        """A sheet of some samples by the running average."""
        if not self.accelerator.is_main_process:
            return
        batch = {name: x[:_SHEET_ROWS] for name, x in self._placed(self.batches[_SHEET_BATCH]).items()}
        with self.accelerator.autocast():
            columns = self.accelerator.unwrap_model(self.task).sheet(self.average, batch)
        rows = [[x[k].permute(1, 2, 0).float() / 2 + 0.5 for x in columns.values()] for k in range(len(batch["target"]))]
        write_image(self.out / "sheets" / f"step{self.step:07d}.png", contact_sheet(rows, [list(columns)] * len(rows)))
