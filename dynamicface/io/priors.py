"""A prior as a safetensors file: tensors plus a JSON header with a schema version. The plate itself is not stored."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import DynamicFaceError, WeightsError
from ..types import FacePrior, Identity

SCHEMA = "dynamicface.prior.1"
_PER_FRAME = ("expression", "gaze", "rotation", "translation", "focal", "illumination", "offset", "confidence")
_IDENTITY = ("shape", "albedo", "albedo_weight", "embedding")


def save_prior(prior: FacePrior, path: str | Path) -> None:
    """Write a prior: per-frame factors as fp32, the albedo as fp16. Raises DynamicFaceError where the file is called otherwise."""
    if Path(path).suffix != ".safetensors":
        raise DynamicFaceError(f"A prior is saved as a .safetensors file; {path} has another ending.")
    tensors = {name: getattr(prior, name).float() for name in _PER_FRAME}
    for name in _IDENTITY:
        value = getattr(prior.identity, name)
        if value is not None:
            tensors[f"identity.{name}"] = value.half() if name.startswith("albedo") else value.float()
    if prior.cuts is not None:
        tensors["cuts"] = prior.cuts.to(torch.uint8)
    header = {"schema": SCHEMA, "image_size": json.dumps(list(prior.image_size))}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, path, header)


def load_prior(path: str | Path, device: str | torch.device = "cpu") -> FacePrior:
    """Read a prior written by :func:`save_prior`; it has no background. Raises WeightsError with the reason."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key).to(device, torch.float32) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as a face prior ({error}). Save it again with `python -m dynamicface fit`.") from error
    missing = [name for name in (*_PER_FRAME, "identity.shape") if name not in tensors]
    if header.get("schema") != SCHEMA or missing:
        raise WeightsError(
            f"{path} is no face prior of this version: schema {header.get('schema')!r}, expected {SCHEMA!r}; missing {missing}."
        )
    identity = Identity(**{name: tensors.get(f"identity.{name}") for name in _IDENTITY})
    height, width = json.loads(header["image_size"])
    cuts = tensors["cuts"] > 0 if "cuts" in tensors else None
    return FacePrior(identity, **{name: tensors[name] for name in _PER_FRAME}, image_size=(height, width), cuts=cuts)
