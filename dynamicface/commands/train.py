"""python -m dynamicface train: make shards from photographs (`--prepare`), or train the generator on them."""

from __future__ import annotations

import argparse
import logging
import math
import time
from dataclasses import replace
from pathlib import Path

from ..errors import DynamicFaceError
from ..pipeline import FacePipeline
from .common import count, device, number


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    text = "train the embedded generator, or prepare its training data"
    parser = commands.add_parser("train", help=text, description=f"{text[:1].upper()}{text[1:]}. How: docs/model_card.md.")
    parser.set_defaults(run=run)
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="make shards from the photographs of this folder, then stop")
    parser.add_argument("--shards", type=Path, required=True, metavar="DIR", help="training data: written by --prepare, else read")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run: state to resume from, weights, curves, sheets")
    parser.add_argument("--config", default="cpu", metavar="NAME", help="cpu (default), gpu, sd15, or a .json file")
    parser.add_argument("--base", type=Path, metavar="DIR", help="with --config sd15: the checkpoint's folder, in diffusers' layout")
    parser.add_argument("--minutes", type=number, default=math.inf, help="stop and save after so many (default: when the steps are done)")
    parser.add_argument("--share", type=_share, default=(0, 1), metavar="K/N", help="with --prepare: the K-th (from 0) of N equal parts")
    parser.add_argument("--seed", type=count(0, 999), default=0, help="with --prepare: another seed gives other views of the same people")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")


def run(options: argparse.Namespace) -> dict:
    """Figures of what was done."""
    started = time.perf_counter()
    logging.getLogger("dynamicface.training").setLevel(logging.INFO)
    figures, written = _prepare(options) if options.prepare else _train(options)
    return {"wrote": written, "seconds": {"train": round(time.perf_counter() - started, 1)}} | figures


def _prepare(options: argparse.Namespace) -> tuple[dict, list[str]]:
    from ..training.data import prepare, training_photos

    photos = training_photos(options.prepare)
    pipe = FacePipeline.load(device(options.device))
    written = [str(path) for path in prepare(pipe, photos, options.shards, options.seed, options.share)]
    return {"photographs": len(photos)}, written


def _train(options: argparse.Namespace) -> tuple[dict, list[str]]:
    from ..training.config import TrainConfig
    from ..training.loop import Trainer

    if options.out is None:
        raise DynamicFaceError("Training needs a folder for its results; give one with --out DIR.")
    config = TrainConfig.load(options.config)
    if options.base:
        config = replace(config, base=str(options.base))
    trainer = Trainer(config, options.shards, options.out, cpu=device(options.device).type == "cpu")
    row = trainer.run(options.minutes)
    return {"last_step": row}, [str(path) for path in trainer.written]


def _share(text: str) -> tuple[int, int]:
    part, sign, parts = text.partition("/")
    if not (sign and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 0 to N - 1, for example 0/2, but found {text!r}")
    return int(part), int(parts)
