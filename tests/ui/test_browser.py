"""The pack in ComfyUI's own frontend, in headless Chromium: templates, live preview, queue, Nodes 2.0, Chinese.

They take minutes and need Node.js, Chromium and playwright-core, which `dev.py` does not install, so they run only when asked for:
    apt-get install chromium nodejs npm && npm install --prefix .cache playwright-core
    DYNAMICFACE_BROWSER=1 python dev.py test tests/ui
Screenshots go to the folder DYNAMICFACE_SCREENSHOTS names, else to pytest's own. DYNAMICFACE_COMFYUI_ARGUMENTS go to ComfyUI: with
`--front-end-root FOLDER` (static/ of a comfyui-frontend-package wheel) another frontend is tried. Passed with ComfyUI 0.3.75 and its
frontend 1.32.9; with ComfyUI 0.33.0 and frontends 1.49.6 and 1.58.1 all but one did, for messages of the frontend's own, left out since.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from comfy_server import BASE, CACHE, ROOT, ComfyServer
from photographs import missing_media, write_photographs
from ui_workflow import to_api

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
CORES_OWN = ("video-preview", "format", "codec", "format.codec")
MODULES = os.pathsep.join(filter(None, [str(CACHE / "node_modules"), os.environ.get("NODE_PATH")]))


def _needed() -> tuple[str, str]:
    """Paths of node and chromium; skips with what is missing."""
    if not os.environ.get("DYNAMICFACE_BROWSER"):
        pytest.skip("browser tests take minutes: set DYNAMICFACE_BROWSER=1 to run them")
    node, chromium = shutil.which("node"), shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if node is None or chromium is None:
        pytest.skip("browser tests need Node.js and Chromium: apt-get install chromium nodejs npm")
    look = [node, "-e", "require.resolve('playwright-core')"]
    if subprocess.run(look, capture_output=True, env=os.environ | {"NODE_PATH": MODULES}).returncode:
        pytest.skip("browser tests need playwright-core: npm install --prefix .cache playwright-core")
    if not (CACHE / "comfyui" / "main.py").is_file() or missing_media():
        pytest.skip("browser tests need ComfyUI and the photographs in .cache: python dev.py setup")
    return node, chromium


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What one visit of the browser saw, and the prompts this repository's own converter makes."""
    node, chromium = _needed()
    folder = Path(os.environ.get("DYNAMICFACE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    write_photographs(BASE / "input")
    workflows = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
    job = tmp_path_factory.mktemp("browser") / "job.json"
    with ComfyServer(shlex.split(os.environ.get("DYNAMICFACE_COMFYUI_ARGUMENTS", ""))) as server:
        info = server.get("/object_info")
        task = {"address": server.address, "chromium": chromium, "folder": str(folder), "workflows": workflows}
        job.write_text(json.dumps(task | {"edit": "edit_an_expression"}))
        command = [node, str(Path(__file__).with_name("browser.cjs")), str(job)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NODE_PATH": MODULES}, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) | {"expected": {name: to_api(workflow, info) for name, workflow in workflows.items()}}


def _essence(prompt: dict) -> dict:
    """Nodes and inputs, but for what the server does not know or, of core's own SaveVideo, is another kind of input since 0.3.75."""
    return {
        node: (entry["class_type"], {name: value for name, value in entry["inputs"].items() if name not in CORES_OWN})
        for node, entry in prompt.items()
    }


@pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
def test_template_opens_without_warnings(seen, name):
    """No dialog, no toast, nothing in the console; stored and reopened it gives the same prompt, and so does our converter."""
    opened = seen["workflows"][name]
    assert not opened["popups"] and not opened["messages"]
    assert not opened["overlaps"], "nodes that lie over each other"
    assert _essence(opened["first"]) == _essence(opened["second"]) == _essence(seen["expected"][name])


def test_preview_follows_the_mouse(seen):
    """Dragging a dial moves the face without a run; buttons, mouse and keys do what they say; a run makes a new picture."""
    preview = seen["preview"]
    assert preview["dragged"] < -0.8 and preview["followsDial"] > 0.005
    assert preview["before"] > 0.005 and preview["backAgain"] == 0
    assert preview["wireframe"] > 0.02 and preview["orbit"] > 0.02 and preview["front"] == 0
    assert preview["keys"] > 0.02 and preview["home"] == 0 and preview["stayed"]
    assert preview["reset"] == 0 and preview["laugh"] > 0.7
    assert preview["newPicture"]


def test_nodes_2_and_chinese(seen):
    """Nodes' names are asked of the server: frontends around 1.32 drop every pack's when they load a language of their own afterwards."""
    assert seen["nodes2"]["followsDial"] > 0.005
    assert "原始" in seen["nodes2"]["text"], "the preview's buttons"
    assert seen["nodes2"]["names"]["inputs"]["smile"]["name"] == "微笑"


def test_nothing_comes_from_elsewhere(seen):
    """What our files load comes from ComfyUI itself; the frontend's own calls home are blocked or none of ours."""
    assert not [url for url in seen["outside"] if "comfy.org" not in url]
    assert not seen["messages"]
