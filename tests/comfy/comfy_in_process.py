"""Genuine ComfyUI inside the test process: its own validator and executor, no HTTP."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = ROOT / ".cache" / "comfyui"
BASE = ROOT / ".cache" / "base"


def node(kind: str, **inputs) -> dict:
    """One node of an API-format prompt."""
    return {"class_type": kind, "inputs": inputs}


def fitted_photo(image: str, texture_size: int = 512) -> dict[str, dict]:
    """Photograph -> track -> fit, as nodes 1, 2, 3."""
    return {
        "1": node("LoadImage", image=image),
        "2": node("DynamicFace_TrackFaces", images=["1", 0], choose="largest", index=0, threshold=0.5),
        "3": node("DynamicFace_FitPrior", images=["1", 0], track=["2", 0], shared_identity=True, texture_size=texture_size),
    }


class ComfyError(AssertionError):
    """The prompt was refused or a node failed; the message is ComfyUI's own."""


@dataclass
class Comfy:
    """A booted ComfyUI."""

    loop: asyncio.AbstractEventLoop
    server: Any
    execution: Any
    nodes: dict[str, type]  # class type -> node class
    boot_log: str
    folders: dict[str, Path]  # input, output, temp
    events: list[tuple[str, dict]] = field(default_factory=list)  # of the last run
    on_event: Callable[[str, dict], None] | None = None  # called as they come, to act in the middle of a run

    def __post_init__(self) -> None:
        self.server.send_sync = self._receive
        cache = {"lru": 0, "ram": 1.0, "ram_inactive": 1.0}
        self.executor = self.execution.PromptExecutor(self.server, cache_type=self.execution.CacheType.CLASSIC, cache_args=cache)

    def _receive(self, event: str, data: dict, sid: str | None = None) -> None:
        self.events.append((event, data))
        if self.on_event is not None:
            self.on_event(event, data)

    def validate(self, prompt: dict) -> list[str]:
        """Node ids of the outputs that will run; raises ComfyError where ComfyUI would answer 400."""
        valid, error, outputs, node_errors = self.loop.run_until_complete(self.execution.validate_prompt("test", prompt, None))
        if not valid or node_errors:
            raise ComfyError(f"{error} {node_errors}")
        return outputs

    def run(self, prompt: dict) -> dict[str, dict]:
        """Execute an API-format prompt; the UI outputs by node id."""
        outputs = self.validate(prompt)
        self.events.clear()
        self.loop.run_until_complete(self.executor.execute_async(prompt, "test", {"client_id": "test"}, outputs))
        if not self.executor.success:
            event, data = self.executor.status_messages[-1]
            raise ComfyError(f"{event}: {data.get('exception_message', '')}".strip())
        return self.executor.history_result["outputs"]

    def executed(self) -> set[str]:
        """Ids of the nodes that really ran in the last prompt, not those whose cached output was reused."""
        return {data["node"] for event, data in self.events if event == "executing" and data.get("node")}


def boot(folders: dict[str, Path]) -> Comfy:
    """Start ComfyUI with the pack; once per process. folders: input, output, temp."""
    if not (COMFYUI / "main.py").is_file():
        raise FileNotFoundError("ComfyUI is not set up: run `python dev.py setup` (or `python dev.py test`) first.")
    arguments = ["--cpu", "--base-directory", str(BASE), "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
    for kind, folder in folders.items():
        arguments += [f"--{kind}-directory", str(folder)]
    sys.argv = ["main.py", *arguments]
    sys.path.insert(0, str(COMFYUI))

    # The order matters: nodes.py puts comfy/ on sys.path, and the utils.py in there would shadow the package utils.
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401
    import execution  # isort: skip
    import folder_paths  # isort: skip
    import nodes  # isort: skip
    import server  # isort: skip

    for kind, folder in folders.items():  # main.py does this from the arguments
        getattr(folder_paths, f"set_{kind}_directory")(str(folder))

    log = _LogText()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.INFO)

    async def start():
        prompt_server = server.PromptServer(asyncio.get_running_loop())  # never started; routes can be registered
        await nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False)
        return prompt_server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = loop.run_until_complete(start())
    return Comfy(loop, prompt_server, execution, nodes.NODE_CLASS_MAPPINGS, "\n".join(log.lines), folders)


class _LogText(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
