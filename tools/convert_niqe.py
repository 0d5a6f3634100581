"""Convert the NIQE model: mean and covariance of the features of natural photographs.

    python tools/convert_niqe.py WORK        # downloads the package into WORK with pip
    python tools/convert_niqe.py WORK --source DIR   # reads an already downloaded basicsr-1.4.2.tar.gz

The numbers are those of the authors' own `modelparameters.mat`, bit for bit; the package keeps them as plain arrays.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from convert_perception import register

from dynamicface.weights import FOLDER, Row

log = logging.getLogger("convert_niqe")

PACKAGE, ARCHIVE = "basicsr==1.4.2", "basicsr-1.4.2.tar.gz"
SHA256 = "b89b595a87ef964cda9913b4d99380ddb6554c965577c0c10cb7b78e31301e87"
FILE = "basicsr/metrics/niqe_pris_params.npz"
LICENCE = "University of Texas at Austin, LIVE: free for any purpose with the notice kept (see NOTICE; package Apache-2.0)"


def read(archive: Path) -> dict[str, torch.Tensor]:
    """Mean (36,) and covariance (36, 36), float64."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{archive} is not the {ARCHIVE} whose checksum this tool knows.")
    with tarfile.open(archive) as package:
        arrays = np.load(io.BytesIO(package.extractfile(f"basicsr-1.4.2/{FILE}").read()), allow_pickle=False)
        mean, covariance = (torch.tensor(arrays[name]) for name in ("mu_pris_param", "cov_pris_param"))
    return {"mean": mean[0], "covariance": covariance.contiguous()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for the download")
    parser.add_argument("--source", type=Path, help="folder with the package already downloaded")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    archive = (arguments.source or arguments.work) / ARCHIVE
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        subprocess.run([*command, "-d", str(archive.parent), PACKAGE], check=True)
    file = FOLDER / "niqe.safetensors"
    save_file(read(archive), file)
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    note = "Mean and covariance of 36 features of 125 photographs; no picture is in it."
    register([Row("niqe", file.name, f"PyPI {PACKAGE}", FILE, LICENCE, True, sha256, len(content), "tools/convert_niqe.py, fp64", note)])
    log.info("niqe %d bytes  %s", len(content), sha256)


if __name__ == "__main__":
    main()
