"""Where DynamicFace looks for files: its own folders inside ComfyUI's, nowhere else."""

from __future__ import annotations

import os

import folder_paths

MODELS = "dynamicface"


def register() -> None:
    """Make models/dynamicface known to ComfyUI (and to its extra_model_paths.yaml)."""
    folder_paths.add_model_folder_path(MODELS, os.path.join(folder_paths.models_dir, MODELS), is_default=True)


def model_files() -> list[str]:
    """Safetensors files in models/dynamicface."""
    return [name for name in folder_paths.get_filename_list(MODELS) if name.endswith(".safetensors")]


def model_path(name: str) -> str:
    """Full path of one of :func:`model_files`; raises where it is gone."""
    return folder_paths.get_full_path_or_raise(MODELS, name)
