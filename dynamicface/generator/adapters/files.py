"""What is in a file: its tensors are compared with every known layout, name by name and shape by shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import WeightsError
from .families import Row, row_of
from .layouts import Layout, layouts

_WRAPPERS = ("module.", "control_model.")  # what training scripts put before every name
_INCOMPLETE = 0.3  # share of a layout's names from which a file counts as a damaged one of it
_ONE_OF = (("guider_champ", "guider"), ("motion", "motion_cross_personalive"))  # the second's names are among the first's
_WHOLE_MODELS = ("controlnet_embedding", "controlnet_hint")  # parts of a larger model whose other tensors are no fault
_ELSEWHERE = (
    ("lora_", "a LoRA; load it with ComfyUI's LoRA loader"),
    ("model.diffusion_model.", "a whole checkpoint; load it with Load Checkpoint"),
    ("first_stage_model.", "a VAE; load it with Load VAE"),
    ("encoder.", "a VAE; load it with Load VAE"),
    ("double_blocks.", "a Flux model; it is none of Stable Diffusion 1.5"),
)


@dataclass(frozen=True)
class Adapter:
    """One recognised file."""

    file: str  # as the artist knows it
    state: Mapping[str, Tensor]
    parts: tuple[str, ...]  # names of the layouts found in it
    sizes: Mapping[str, int]  # the sizes its tensors have
    row: Row | None  # whose it is, where its name tells
    guider: str = ""  # the guider it was chosen for, "" = by its name

    def part(self, layout: str) -> dict[str, Tensor]:
        """The tensors of one part."""
        return {name: self.state[name] for name in layouts()[layout].shapes if name in self.state}

    def has(self, *names: str) -> bool:
        """Whether it holds one of these layouts."""
        return any(name in self.parts for name in names)


def recognise(tensors: Mapping[str, Any], file: str, guider: str = "") -> Adapter:
    """The parts of a file. tensors: as loaded, possibly nested or wrapped.

    Raises:
        WeightsError: incomplete, of other shapes than its layout, or of no known layout; the message says what to do.
    """
    state = _unwrap(tensors)
    parts = [layout for layout in layouts().values() if layout.required <= state.keys()]
    names = {layout.name for layout in parts}
    parts = [layout for layout in parts if not any(layout.name == part and whole in names for whole, part in _ONE_OF)]
    if not parts:
        raise WeightsError(f"{file} {_why_not(state)}")
    known = set().union(*(layout.shapes for layout in parts))
    rest = [name for name in state if name not in known]
    if rest and not names & set(_WHOLE_MODELS):
        broken = max(layouts().values(), key=lambda layout: len(layout.shapes.keys() & set(rest)))
        if found := len(broken.shapes.keys() & set(rest)):
            raise WeightsError(
                f"{file} is incomplete: of {broken.what} it holds {found} of {len(broken.shapes)} tensors. Copy or download the file again."
            )
    sizes: dict[str, int] = {}
    for layout in parts:
        _measure(layout, state, sizes, file)
    return Adapter(file, state, tuple(layout.name for layout in parts), sizes, row_of(file), guider)


def _unwrap(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Flat names without what training scripts put around them; what is no tensor is dropped."""
    flat: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in value.items() if isinstance(inner, Tensor)}
        elif isinstance(value, Tensor):
            flat[name] = value
    for wrapper in _WRAPPERS:
        flat = {name.removeprefix(wrapper): value for name, value in flat.items()}
    return flat


def _why_not(state: Mapping[str, Tensor]) -> str:
    """The rest of a sentence that begins with the file's name."""
    if not state:
        return "holds no tensors. Copy or download the file again."
    best = max(layouts().values(), key=lambda layout: len(layout.shapes.keys() & state.keys()))
    found = best.shapes.keys() & state.keys()
    if len(found) >= _INCOMPLETE * len(best.shapes):
        lacking = min(best.required - found)
        return (
            f"is incomplete: of {best.what} it holds {len(found)} of {len(best.shapes)} tensors; the first missing one is {lacking}. "
            "Copy or download the file again."
        )
    first = next(iter(state))
    for beginning, what in _ELSEWHERE:
        if any(name.startswith(beginning) for name in state):
            return f"is {what}. It is no adapter that DynamicFace reads."
    known = "; ".join(layout.what for layout in layouts().values())
    return f"is no known adapter: it holds {len(state)} tensors such as {first!r}. Expected one of: {known}."


def _measure(layout: Layout, state: Mapping[str, Tensor], sizes: dict[str, int], file: str) -> None:
    """Learn the sizes from the shapes; every shape must agree with them."""
    for name, shape in layout.shapes.items():
        if name not in state:
            continue
        found = tuple(state[name].shape)
        fits = len(found) == len(shape)
        for number, (factor, size) in zip(found, shape, strict=False):
            if size and size not in sizes and number % factor == 0:
                sizes[size] = number // factor
            fits = fits and number == factor * sizes.get(size, 1)
        if not fits:
            wanted = " x ".join(str(factor * sizes.get(size, layout.sizes.get(size, 1))) for factor, size in shape)
            raise WeightsError(
                f"{file} does not fit: {name} is {' x '.join(map(str, found))}, but {layout.what} needs {wanted} there. "
                "It was made for another base model; use a file for Stable Diffusion 1.5."
            )
