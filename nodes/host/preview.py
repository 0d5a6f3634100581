"""The file behind a node's live preview, in ComfyUI's temp folder, where its own /view route serves it. Read by web/preview.js."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import folder_paths

from ...dynamicface.preview import preview_file
from ...dynamicface.types import FacePrior
from .models import head_model

KEY = "dynamicface_preview"


def live_preview(prior: FacePrior, identity: bool = False) -> dict[str, list[dict[str, str]]]:
    """The `ui` of a node that edits this prior: its first frame, before the edit. identity: with what the identity dials need."""
    content = preview_file(prior, head_model(), identity=identity)
    path = Path(folder_paths.get_temp_directory(), f"DynamicFace_preview_{hashlib.sha256(content).hexdigest()[:20]}.safetensors")
    if not path.exists():  # named by content: an unchanged face is written once
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(path)
    return {KEY: [{"filename": path.name, "subfolder": "", "type": "temp"}]}
