"""The rules between the layers, read from the sources: what may import what, and what may never be called."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "dynamicface").rglob("*.py"))
PACK = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py"))]
COMFYUI_BRINGS = {"torch", "numpy", "einops", "safetensors", "PIL", "scipy", "av"}
REQUIRED = COMFYUI_BRINGS | {"cv2"}  # with the line of requirements.txt
EXTRAS = {  # of pyproject.toml; imported late, with a sentence where missing
    "dynamicface/training/": {"accelerate", "diffusers"},
    "dynamicface/io/usd.py": {"pxr"},
    "dynamicface/io/passes.py": {"OpenEXR"},
    "dynamicface/io/c2pa.py": {"c2pa"},
}
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfyui_version", "execution", "folder_paths", "node_helpers", "nodes", "server"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level module) of every absolute import of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module.split(".")[0]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_library_stands_alone(path):
    """dynamicface knows nothing of ComfyUI, imports itself relatively (it also runs inside the pack), adds no unstated dependency."""
    extra = {module for place, modules in EXTRAS.items() if name(path).startswith(place) for module in modules}
    allowed = REQUIRED | extra | set(sys.stdlib_module_names)
    wrong = [f"{name(path)}:{line} imports {module}" for line, module in imports(path) if module not in allowed]
    assert not wrong, wrong


@pytest.mark.parametrize("path", PACK, ids=name)
def test_pack_uses_its_own_library(path):
    """The pack imports the library beside it, never an installed one, and nothing ComfyUI does not bring."""
    allowed = REQUIRED | COMFYUI | set(sys.stdlib_module_names)
    wrong = [f"{name(path)}:{line} imports {module}" for line, module in imports(path) if module not in allowed]
    assert not wrong, wrong


@pytest.mark.parametrize("path", LIBRARY + PACK, ids=name)
def test_nothing_unsafe_is_called(path):
    """No pickle, no eval, no device picked behind ComfyUI's back."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "torch.cuda.empty_cache"}, node.lineno
            assert not called.endswith(".cuda"), node.lineno
