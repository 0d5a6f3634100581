"""Make the registry's CUDA-linked torchvision wheel importable beside a CPU-only torch.

ComfyUI imports torchvision; on Linux the registry offers only a wheel whose C++ library needs the CUDA runtime. Without that library
torchvision's import fails, because it registers a fake kernel for an operator that nobody defined. This module (imported at start-up
through a .pth file in .venv) waits for the import of torchvision, tries its library, and only where that cannot be loaded declares the
two operators' signatures. torchvision then imports and its transforms work; its compiled operators still refuse, as they should.
"""

import importlib.abc
import importlib.util
import sys
from pathlib import Path


def _library_loads(package: Path) -> bool:
    import torch

    for library in (*package.glob("_C*.so"), *package.glob("_C*.pyd")):
        try:
            torch.ops.load_library(library)
        except OSError:
            return False
    return True


def _declare_operators():
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Leaves the finding to the others; runs one check before torchvision's own code does."""

    library = None  # keeps the operators alive
    asking = False

    def find_spec(self, name, path, target=None):
        if name != "torchvision" or self.asking:
            return None
        self.asking = True  # some only ask whether torchvision is there: stay until it is really imported
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        if spec is None or not spec.origin:
            return spec
        run_module = spec.loader.exec_module

        def exec_module(module):
            if self.library is None and not _library_loads(Path(spec.origin).parent):
                self.library = _declare_operators()
            run_module(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _BeforeTorchvision())
