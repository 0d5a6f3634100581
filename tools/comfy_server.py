"""Start the genuine ComfyUI of .cache/comfyui as a separate process and talk to it over HTTP. Standard library only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
BASE = CACHE / "base"
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer:
    """Context manager around one ComfyUI process with this pack in its custom_nodes."""

    def __init__(self, arguments: list[str] | None = None, *, quiet: bool = True, start_timeout: float = 180.0) -> None:
        self.arguments, self.quiet, self.start_timeout = arguments or [], quiet, start_timeout
        self.port = free_port()
        self.log = CACHE / "comfyui.log"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ComfyServer:
        accelerator = json.loads((VENV / "dynamicface-setup.json").read_text())["accelerator"]
        command = [str(PYTHON), str(CACHE / "comfyui" / "main.py"), "--port", str(self.port), "--base-directory", str(BASE)]
        command += ["--disable-api-nodes", "--database-url", "sqlite:///:memory:", *(["--cpu"] if accelerator == "cpu" else [])]
        output = self.log.open("wb") if self.quiet else None
        environment = os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"), "PYTHONUTF8": "1"}
        self.process = subprocess.Popen([*command, *self.arguments], stdout=output, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with code {self.process.returncode} before it answered. {self._log_tail()}")
            try:
                self.get("/system_stats")
                return self
            except OSError:
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"ComfyUI did not answer within {self.start_timeout:.0f} s. {self._log_tail()}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait(self) -> int:
        return self.process.wait()

    def _log_tail(self) -> str:
        return f"Log: {self.log}\n{self.log.read_text(errors='replace')[-3000:]}" if self.quiet else ""

    # --- HTTP ---

    def get(self, path: str):
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict):
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"ComfyUI refused {path}: {error.read().decode(errors='replace')[:2000]}") from None

    def run(self, prompt: dict, timeout: float = 600.0) -> dict:
        """Queue an API-format prompt, wait for its end, return the outputs by node id."""
        prompt_id = self.post("/prompt", {"prompt": prompt})["prompt_id"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                for event, data in entry["status"]["messages"]:
                    if event == "execution_error":
                        raise RuntimeError(f"node {data['node_id']} ({data['node_type']}): {data['exception_message'].strip()}")
                return entry["outputs"]
            time.sleep(0.1)
        raise RuntimeError(f"the prompt did not finish within {timeout:.0f} s")

    def view(self, image: dict) -> bytes:
        """The bytes of one {"filename", "subfolder", "type"} entry of an output."""
        with urllib.request.urlopen(f"{self.address}/view?{urllib.parse.urlencode(image)}", timeout=60) as answer:
            return answer.read()
