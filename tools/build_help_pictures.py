"""Show in every node's help page what a template with that node makes: python tools/build_help_pictures.py

Writes small copies of the templates' thumbnails to web/docs/images and one line at the end of each help page. Run it after
`tools/build_workflows.py --thumbnails`.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS, HELP = ROOT / "workflows", ROOT / "web" / "docs"
WIDTH = 480  # px
FIRST = "edit_an_expression"
SAME_RESULT = {"DynamicFace_Expression": FIRST, "DynamicFace_GenerateFace": "generate_an_expression"}  # one node for a whole template
CAPTIONS = {"en": "From the template *{}*:", "zh": "来自模板 *{}*："}


def templates() -> dict[str, str]:
    """The template that shows a node, by node: the first steps, else the smallest graph with it."""
    found = dict(SAME_RESULT)
    graphs = {path.stem: json.loads(path.read_text(encoding="utf-8"))["nodes"] for path in WORKFLOWS.glob("*.json")}
    for name in sorted(graphs, key=lambda name: (name != FIRST, len(graphs[name]), name)):
        for node in graphs[name]:
            found.setdefault(node["type"], name)
    return {kind: name for kind, name in found.items() if kind.startswith("DynamicFace_")}


def pages() -> dict[Path, str]:
    """Every help page of a node that a template has, as it should be."""
    texts = {}
    for kind, name in templates().items():
        for language, path in (("en", HELP / f"{kind}.md"), ("zh", HELP / kind / "zh.md")):
            caption = CAPTIONS[language].format(name.replace("_", " "))
            text = path.read_text(encoding="utf-8").partition(f"\n{CAPTIONS[language].partition('{')[0]}")[0].rstrip()
            texts[path] = f"{text}\n\n{caption}\n\n![{name.replace('_', ' ')}](images/{name}.jpg)\n"
    return texts


def main() -> None:
    from PIL import Image

    (HELP / "images").mkdir(exist_ok=True)
    for name in sorted(set(templates().values())):
        with Image.open(WORKFLOWS / f"{name}.jpg") as picture:
            small = picture.resize((WIDTH, WIDTH * picture.height // picture.width), Image.Resampling.LANCZOS)
        small.save(HELP / "images" / f"{name}.jpg", quality=80)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
