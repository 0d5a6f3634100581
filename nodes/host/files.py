"""Files the artist reads and writes: presets in ComfyUI's user folder, recordings in its input folder, results in its output folder."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...dynamicface.errors import DynamicFaceError
from ...dynamicface.io.documents import file_in
from ...dynamicface.io.presets import Preset, load_preset, shipped_presets

_OWN = "own/"
_RECORDINGS = (".csv", ".json")


def presets_folder() -> Path:
    """Where Save Preset writes: user/dynamicface/presets."""
    return Path(folder_paths.get_user_directory()) / "dynamicface" / "presets"


def preset_names() -> list[str]:
    """The shipped presets, then the artist's as "own/name"."""
    return [*shipped_presets(), *(f"{_OWN}{path.stem}" for path in sorted(presets_folder().glob("*.json")))]


def preset(name: str) -> Preset:
    """One of :func:`preset_names`. Raises DynamicFaceError where the file is gone or no preset."""
    return load_preset(preset_path(name.removeprefix(_OWN))) if name.startswith(_OWN) else shipped_presets()[name]


def preset_path(name: str) -> Path:
    """The file of an own preset; raises DynamicFaceError for names that are no file names."""
    return file_in(presets_folder(), name, ".json")


def preset_stamp(*names: str) -> str:
    """Changes when one of these own presets is written anew."""
    paths = [preset_path(name.removeprefix(_OWN)) for name in names if name.startswith(_OWN)]
    return " ".join(str(path.stat().st_mtime_ns) for path in paths if path.is_file())


def recordings() -> list[str]:
    """CSV and JSON files in the input folder."""
    return sorted(path.name for path in Path(folder_paths.get_input_directory()).iterdir() if path.suffix.lower() in _RECORDINGS)


def recording_path(name: str) -> Path:
    """Full path of one of :func:`recordings`. Raises DynamicFaceError."""
    if name not in recordings():
        raise DynamicFaceError(f"There is no recording {name!r} in ComfyUI's input folder; put the .csv or .json file there.")
    return Path(folder_paths.get_input_directory()) / name


def result_stem(prefix: str) -> tuple[Path, str, str]:
    """Folder, name without ending, and subfolder for the next result under a prefix such as face/export, counted up as core does."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    return Path(folder), f"{name}_{counter:05}_", subfolder


def loaded_files(prompt: dict) -> list[Path]:
    """Files of the input folder that a prompt's loading nodes name, in its order."""
    found = {}
    for node in prompt.values():
        if str(node.get("class_type", "")).startswith("Load"):
            for value in node.get("inputs", {}).values():
                if isinstance(value, str) and value and folder_paths.exists_annotated_filepath(value):
                    found[Path(folder_paths.get_annotated_filepath(value))] = None
    return [path for path in found if path.is_file()]
