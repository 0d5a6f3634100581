"""Write locales/{en,zh}: names and tooltips of every node, as ComfyUI's frontend looks them up.

English is what the nodes say of themselves on /object_info. Other languages are that, looked up in a translation memory,
tools/locales/<language>.json: input and output names by name, all other texts by the English sentence ("{}" stands for an input's name),
so that a changed sentence is noticed and one that several nodes share is translated once. What is missing there stays English and is
printed:

    python tools/build_locales.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from comfy_server import ROOT, ComfyServer

LOCALES, MEMORIES = ROOT / "locales", ROOT / "tools" / "locales"
PREFIX = "DynamicFace_"


def english(object_info: dict[str, dict]) -> dict[str, dict]:
    """nodeDefs of our nodes from the server's description of them."""
    return {node: _node(info) for node, info in sorted(object_info.items()) if node.startswith(PREFIX)}


def _node(info: dict) -> dict:
    fields = {name: spec for section in ("required", "optional") for name, spec in info["input"].get(section, {}).items()}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {name: {"name": name, "tooltip": spec[1]["tooltip"]} for name, spec in fields.items()},
        "outputs": {str(index): {"name": name, "tooltip": tooltip} for index, (name, tooltip) in enumerate(outputs)},
    }


def translated(nodes: dict[str, dict], memory: dict[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """The same nodeDefs in a memory's language, and the texts it lacks."""
    missing = set()

    def name_of(name: str) -> str:
        return memory["names"].get(name) or missing.add(name) or name

    def text_of(text: str, name: str = "") -> str:
        known = memory["texts"].get(text) or memory["texts"].get(text.replace(name, "{}") if name else text, "").replace("{}", name)
        return known or missing.add(text) or text

    def labelled(entries: dict[str, dict]) -> dict[str, dict]:
        return {
            key: {"name": name_of(entry["name"]), "tooltip": text_of(entry["tooltip"], entry["name"])} for key, entry in entries.items()
        }

    out = {
        node: {
            "display_name": text_of(entry["display_name"]),
            "description": text_of(entry["description"]),
            "inputs": labelled(entry["inputs"]),
            "outputs": labelled(entry["outputs"]),
        }
        for node, entry in nodes.items()
    }
    return out, sorted(missing)


def categories(object_info: dict[str, dict], memory: dict[str, dict] | None = None) -> dict[str, dict]:
    """main.json: the parts of our categories' paths."""
    parts = {part for node, info in object_info.items() if node.startswith(PREFIX) for part in info["category"].split("/")}
    return {"nodeCategories": {part: (memory or {}).get("categories", {}).get(part, part) for part in sorted(parts)}}


def escaped(value: dict | str) -> dict | str:
    """What the frontend's message format would read as syntax, as literals."""
    if isinstance(value, dict):
        return {key: escaped(entry) for key, entry in value.items()}
    return re.sub(r"[{}@|$]", lambda match: "{'" + match[0] + "'}", value)


def files(object_info: dict[str, dict]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(path below locales/ -> content, language -> untranslated texts)."""
    nodes = english(object_info)
    contents = {"en/nodeDefs.json": nodes, "en/main.json": categories(object_info)}
    missing = {}
    for path in sorted(MEMORIES.glob("*.json")):
        memory = json.loads(path.read_text(encoding="utf-8"))
        contents[f"{path.stem}/nodeDefs.json"], missing[path.stem] = translated(nodes, memory)
        contents[f"{path.stem}/main.json"] = categories(object_info, memory)
    return {name: json.dumps(escaped(content), ensure_ascii=False, indent=1) + "\n" for name, content in contents.items()}, missing


def main() -> None:
    with ComfyServer() as server:
        contents, missing = files(server.get("/object_info"))
    for name, content in contents.items():
        path: Path = LOCALES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)
    for language, texts in missing.items():
        for text in texts:
            print(f"{language} lacks: {text}")


if __name__ == "__main__":
    main()
