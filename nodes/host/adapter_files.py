"""Other projects' files in ComfyUI's model folders. They are read by ComfyUI's own loader, which runs no code from a file."""

from __future__ import annotations

import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...dynamicface.errors import WeightsError
from ...dynamicface.generator.adapters.files import Adapter, recognise
from .folders import MODELS

_FOLDERS = (MODELS, "animatediff_models", "ipadapter")  # ours, and where other packs keep such files
_EMBEDDINGS = "embeddings/"
NONE = "none"
_ENDINGS = (".safetensors", ".pth", ".ckpt", ".bin", ".pt")


def adapter_files() -> list[str]:
    """Files as "folder/name", ours first."""
    known = [folder for folder in _FOLDERS if folder in folder_paths.folder_names_and_paths]
    return [f"{folder}/{name}" for folder in known for name in folder_paths.get_filename_list(folder) if name.endswith(_ENDINGS)]


def embedding_files() -> list[str]:
    """Identity vectors in models/dynamicface/embeddings."""
    names = (name.replace("\\", "/") for name in folder_paths.get_filename_list(MODELS))
    return [name for name in names if name.startswith(_EMBEDDINGS) and name.endswith(".safetensors")]


def load_embedding(name: str) -> Tensor:
    """(D,) the one vector in a file. Raises WeightsError."""
    vectors = [value for value in _read(MODELS, name).values() if value.numel() == max(value.shape, default=0)]
    if len(vectors) != 1:
        raise WeightsError(f"{name} holds {len(vectors)} vectors; an embedding file holds exactly one, of shape (512,) or (1, 512).")
    return torch.as_tensor(vectors[0], dtype=torch.float32).flatten()


def load_adapter(file: str, guider: str = "") -> Adapter:
    """A recognised file; guider: the attribute it shall read, "" = by its name. Raises WeightsError."""
    folder, _, name = file.partition("/")
    return recognise(_read(folder, name), file, guider)


def _read(folder: str, name: str) -> dict:
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise WeightsError(f"There is no file {name} in ComfyUI's folder {folder} any more. Choose another, or put it back.")
    try:
        return comfy.utils.load_torch_file(path, safe_load=True)
    except Exception as error:  # each format's reader has its own exceptions
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{name} cannot be read ({reason}); it is truncated or another format. Copy or download it again.") from error
