"""Turn a network's .pth file into the safetensors file a metric reads: python tools/to_safetensors.py FILE.pth... --out FILE.safetensors

Several files are joined. Only tensors are unpickled (weights_only), and nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.pth")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    args = parser.parse_args()
    tensors = {}
    for path in args.files:
        tensors |= {name: value.contiguous() for name, value in torch.load(path, map_location="cpu", weights_only=True).items()}
    save_file(tensors, args.out)
    print(f"wrote {args.out}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
