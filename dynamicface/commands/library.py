"""python -m dynamicface library: one actor's expressions from one photo, a picture each, with a contact sheet and a list."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..io.documents import write_json
from ..io.pictures import write_image
from ..io.presets import choose_presets, load_preset, shipped_presets
from ..library import render_library
from .common import Desk, command, count, number

SCHEMA = "dynamicface.library.1"


def register(commands: argparse._SubParsersAction) -> None:
    """Add the parser."""
    parser = command(commands, "library", run, "render presets x intensities of a photo, with a contact sheet and a list of names")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--presets", default="all", metavar="NAMES", help="names and groups (emotion, eyes, viseme, own), or all (default)")
    parser.add_argument("--add", action="append", type=Path, default=[], metavar="JSON", help="a preset file of your own; may be repeated")
    parser.add_argument("--intensity", action="append", type=number, metavar="NUMBER", help="0..2; may be repeated (default 1)")
    parser.add_argument("--size", type=count(0, 4096), default=512, help="side of face crops in pixels; 0 = whole photos (default 512)")
    parser.add_argument("--zoom", type=number, default=1.0, help="how close the crops are (default 1: the whole head)")
    parser.add_argument("--ending", choices=("png", "jpg", "tif"), default="png", help="of the pictures (default png)")


def run(options: argparse.Namespace) -> dict:
    """Write DIR/name.ending for every expression, DIR/sheet.ending and DIR/library.json."""
    own = [load_preset(path) for path in options.add]
    chosen = choose_presets(options.presets, {**shipped_presets(), **{preset.name: preset for preset in own}})
    desk = Desk(options)
    _, _, prior = desk.fit([options.image], options.face)
    with desk.timed("render"):
        library = render_library(prior, desk.pipe.head, chosen, options.intensity or [1.0], size=options.size, zoom=options.zoom)
    files = [f"{name.replace(' ', '_')}.{options.ending}" for name in library.names]
    for file, picture in zip(files, library.pictures, strict=True):
        desk.wrote(options.out / file, lambda path, picture=picture: write_image(path, picture, options.bits))
    desk.wrote(options.out / f"sheet.{options.ending}", lambda path: write_image(path, library.sheet, options.bits))
    rows = [{"name": name, "file": file} for name, file in zip(library.names, files, strict=True)]
    desk.wrote(options.out / "library.json", lambda path: write_json(path, {"schema": SCHEMA, "expressions": rows}))
    return desk.figures | {"names": library.names}
