"""ComfyUI loads this file and awaits `comfy_entrypoint`. Everything else is in nodes/ (the graph) and dynamicface/ (the library)."""

from __future__ import annotations

import logging

MINIMUM_COMFYUI = "0.3.75"
WEB_DIRECTORY = "./web"

try:
    from comfy_api.latest import ComfyExtension
except ImportError:
    try:
        from comfyui_version import __version__ as _found
    except ImportError:
        _found = "an unknown version"
    logging.getLogger("DynamicFace").error(
        "DynamicFace needs ComfyUI %s or newer, this is %s: its nodes are not loaded. Update ComfyUI, then restart it.",
        MINIMUM_COMFYUI,
        _found,
    )
    NODE_CLASS_MAPPINGS: dict[str, type] = {}  # what a ComfyUI that old looks for: loads as a pack without nodes, not as a crash
else:

    async def comfy_entrypoint() -> ComfyExtension:
        """ComfyUI's V3 entry point."""
        from .nodes import DynamicFaceExtension

        return DynamicFaceExtension()
