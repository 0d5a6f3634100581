"""Every node speaks English and Chinese: names, tooltips, help pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from build_help_pictures import HELP, pages, templates
from build_locales import LOCALES, PREFIX, english, escaped, files

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def object_info(comfy) -> dict[str, dict]:
    return {name: node.GET_NODE_INFO_V1() for name, node in comfy.nodes.items() if name.startswith(PREFIX)}


def test_locales_are_what_the_nodes_say(object_info):
    contents, _ = files(json.loads(json.dumps(object_info)))
    for name, content in contents.items():
        assert json.loads((LOCALES / name).read_text(encoding="utf-8")) == json.loads(content), (
            f"locales/{name} is not up to date: run `python tools/build_locales.py`"
        )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_and_input_has_an_entry(object_info, language):
    entries = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for node, expected in english(object_info).items():
        found = entries[node]
        assert found["display_name"] and found["description"]
        for kind in ("inputs", "outputs"):
            assert found[kind].keys() == expected[kind].keys()
            assert all(entry["name"] and entry["tooltip"] for entry in found[kind].values())


def test_chinese_is_chinese(object_info):
    """At least 95 % of all texts; new ones may wait for their translator, who finds them listed here."""
    _, missing = files(json.loads(json.dumps(object_info)))
    texts = {text for node in english(object_info).values() for text in _strings(node)}
    assert len(missing["zh"]) <= 0.05 * len(texts), f"tools/locales/zh.json lacks {missing['zh']}"
    entries = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    tooltips = [entry["tooltip"] for node in entries.values() for entry in node["inputs"].values()]
    assert sum(bool(CHINESE.search(text)) for text in tooltips) >= 0.95 * len(tooltips)


def test_every_help_page_has_a_chinese_one():
    """The frontend looks for web/docs/<node id>/<language>.md first, then for web/docs/<node id>.md."""
    for page in (ROOT / "web" / "docs").glob("*.md"):
        translation = page.with_suffix("") / "zh.md"
        assert translation.is_file(), f"web/docs/{page.stem}/zh.md is missing"
        assert CHINESE.search(translation.read_text(encoding="utf-8"))


def test_help_pages_show_what_a_template_makes(object_info):
    """Of most nodes; pictures lie where the frontend looks for those of a help page, beside the pages."""
    assert len(templates().keys() & object_info.keys()) >= 0.7 * len(object_info)
    for page, text in pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is not up to date: run `python tools/build_help_pictures.py`"
    assert {path.stem for path in (HELP / "images").glob("*.jpg")} == set(templates().values())


def test_message_syntax_is_escaped():
    assert escaped({"a": "x@y {z} | 5 $"}) == {"a": "x{'@'}y {'{'}z{'}'} {'|'} 5 {'$'}"}


def _strings(value: dict | str) -> list[str]:
    return [value] if isinstance(value, str) else [text for entry in value.values() for text in _strings(entry)]
