"""Peak memory of a program."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory(device: str) -> float:
    """Megabytes: of the process, or of the GPU's allocator."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    if _STATUS.exists():  # of this program alone; what getrusage says may be that of the process that started it
        return int(re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
