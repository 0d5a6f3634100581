"""Progress, live previews and the stop button, as the plain callback the library's long functions accept."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management as mm
from comfy_api.latest import ComfyAPISync
from torch import Tensor

Progress = Callable[[int, int], None]


def progress() -> Progress:
    """progress(done, total): moves the node's bar; raises ComfyUI's own interruption when the artist presses stop."""
    api = ComfyAPISync()

    def report(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        api.execution.set_progress(done, total)

    return report


def preview(image: Tensor) -> None:
    """Show one picture (1, H, W, 3) on the running node."""
    ComfyAPISync().execution.set_progress(1, 1, preview_image=image[:1, ..., :3].detach().float().clamp(0, 1))
