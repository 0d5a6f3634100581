"""The pack in genuine ComfyUI: it loads, its public surface is the frozen one, its schemas keep the rules."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SURFACE = Path(__file__).with_name("public_surface.json")


@pytest.fixture(scope="session")
def ours(comfy) -> dict[str, type]:
    return {name: node for name, node in comfy.nodes.items() if name.startswith("DynamicFace_")}


def _surface(node: type) -> dict:
    """What a stored workflow depends on: input order, names, types, ranges and defaults; output order, names and types."""
    info = node.GET_NODE_INFO_V1()
    inputs = {}
    for kind in ("required", "optional"):
        for name, (io_type, *options) in info["input"].get(kind, {}).items():
            kept = {key: value for key, value in (options[0] if options else {}).items() if key in ("default", "min", "max", "options")}
            inputs[name] = {"kind": kind, "type": io_type, **kept}
    order = [name for kind in ("required", "optional") for name in info["input_order"].get(kind, [])]
    return {
        "inputs": [{"name": name, **inputs[name]} for name in order],
        "outputs": [{"name": name, "type": kind} for name, kind in zip(info["output_name"], info["output"], strict=True)],
    }


def test_loads_without_failure(comfy):
    assert "(IMPORT FAILED)" not in comfy.boot_log  # in brackets: a custom node; without: core nodes that want torchaudio


def test_public_surface_is_frozen(ours):
    """Append-only: a stored workflow must keep working. Extending the surface means extending the file in the same commit."""
    found = json.loads(json.dumps({name: _surface(node) for name, node in sorted(ours.items())}))
    assert found == json.loads(SURFACE.read_text()), f"new surface:\n{json.dumps(found, indent=1)}"


def test_artist_facing_text(ours):
    """Every node says what it is for, every input what it does."""
    for name, node in ours.items():
        schema = node.GET_SCHEMA()
        assert schema.category.split("/")[0] == "DynamicFace", name
        assert schema.display_name and len(schema.description) > 40, name
        for field in schema.inputs:
            assert field.tooltip and len(field.tooltip) > 15, f"{name}.{field.id} needs a tooltip"
        for output in schema.outputs:
            assert output.tooltip, f"{name} output {output.id} needs a tooltip"


def test_every_node_has_a_help_page(ours):
    """The frontend serves web/docs/<node id>.md as the node's help."""
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == set(ours)


def test_too_old_comfyui_gets_a_message(monkeypatch, caplog):
    """Where the V3 API is missing the pack says so and stays loadable without nodes."""
    monkeypatch.setitem(sys.modules, "comfy_api.latest", None)
    spec = importlib.util.spec_from_file_location("dynamicface_on_old_comfyui", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    with caplog.at_level(logging.ERROR, logger="DynamicFace"):
        spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS == {} and not hasattr(module, "comfy_entrypoint")
    assert "0.3.75 or newer" in caplog.text
