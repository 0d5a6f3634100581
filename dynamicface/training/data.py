"""Shards of training samples: written by many processes, read while they still grow.

A shard is one safetensors file of up to `PER_SHARD` samples (`views.ViewMaker`), every tensor with the samples first, pictures as bytes.
Files are memory-mapped: reading one sample costs its own bytes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import DynamicFaceError
from ..io.pictures import read_image
from ..pipeline import FacePipeline
from .augment import as_batch
from .views import Sample, ViewMaker

PER_SHARD = 64
HELD_OUT_EVERY = 9
_RESCAN = 50  # batches
log = logging.getLogger(__name__)


def training_photos(folder: Path) -> list[Path]:
    """The photographs of a folder that may train: in order of their names, every ninth (the first one included) is held out.

    Raises:
        DynamicFaceError: the folder holds no .jpg or .png.
    """
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not photos:
        raise DynamicFaceError(f"There are no photographs (.jpg, .png) in {folder}.")
    return [path for number, path in enumerate(photos) if number % HELD_OUT_EVERY]


def prepare(pipe: FacePipeline, photos: Sequence[Path], folder: Path, seed: int, share: tuple[int, int] = (0, 1)) -> Iterator[Path]:
    """Write shards of views of photographs in an order drawn by the seed, and say which; share (k, n): the k-th of n equal parts.

    Shards that exist already are made again under the same name with the same content.
    """
    photos = list(photos)
    random.Random(seed).shuffle(photos)
    part, parts = share
    maker, ready, number = ViewMaker(pipe, seed * parts + part), [], 0
    folder.mkdir(parents=True, exist_ok=True)
    for path in photos[part::parts]:
        ready += maker(read_image(path))
        while len(ready) >= PER_SHARD:
            yield write_shard(folder / f"{seed:03d}-{part}of{parts}-{number:04d}.safetensors", ready[:PER_SHARD])
            ready, number = ready[PER_SHARD:], number + 1
    if ready:
        yield write_shard(folder / f"{seed:03d}-{part}of{parts}-{number:04d}.safetensors", ready)


def write_shard(path: Path, samples: Sequence[Sample]) -> Path:
    """Stack samples into one file; it appears under its name only when it is whole."""
    unfinished = path.with_suffix(".part")
    save_file({name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}, unfinished)
    return unfinished.rename(path)


class Shards(torch.utils.data.Dataset):
    """Batches by number: the same seed and number give the same samples, cut and spoiled the same way, for a folder that stays the same.

    So a run resumes at any batch without a state of its own, and workers need no agreement. New shards of a growing folder are found
    every `_RESCAN` batches.
    """

    def __init__(self, folder: Path, batch: int, window: Callable[[int], int], seed: int = 0) -> None:
        """window: the side in px of the square cut out around the face, by the batch's number.

        Raises:
            DynamicFaceError: the folder holds no shard.
        """
        self.folder, self.batch, self.window, self.seed = Path(folder), batch, window, seed
        self.files: list[Path] = []
        self.counted = -_RESCAN
        self._scan(0)

    def __getitem__(self, number: int) -> Sample:
        """The batch of this number as :func:`augment.as_batch` makes it."""
        self._scan(number)
        draw = random.Random(f"{self.seed}/{number}")
        samples = [self._read(*self.places[draw.randrange(len(self.places))]) for _ in range(self.batch)]
        stacked = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        return as_batch(stacked, self.window(number), torch.Generator().manual_seed(draw.randrange(1 << 60)))

    def _scan(self, number: int) -> None:
        if number < self.counted + _RESCAN and self.files:
            return
        self.counted = number
        files = sorted(self.folder.glob("*.safetensors"))
        if files == self.files and files:
            return
        self.files, self.places = files, []
        for path in files:
            with safe_open(path, "pt") as shard:
                count = shard.get_slice("kind").get_shape()[0]
            self.places += [(path, row) for row in range(count)]
        if not self.places:
            raise DynamicFaceError(f"There are no training shards in {self.folder}. Make them with `python -m dynamicface train prepare`.")

    @staticmethod
    def _read(path: Path, row: int) -> Sample:
        with safe_open(path, "pt") as shard:
            return {name: shard.get_slice(name)[row : row + 1][0] for name in shard.keys()}  # noqa: SIM118
