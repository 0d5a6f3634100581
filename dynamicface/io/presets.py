"""Expression presets: named ARKit channels in a JSON file, shipped ones in `presets/`, the artist's own in any folder.

{"schema": "dynamicface.preset.1", "name": "smile", "group": "emotion", "author": "..", "note": "..",
 "channels": {"mouthSmileLeft": 0.8, ..}, "gaze": [0, 0]}

channels: 0..1.5, what is not named is 0. gaze: optional, yaw and pitch of both eyes in degrees; without it the eyes keep their
direction, and so do the lids that follow them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from ..conventions import ARKIT_NAMES
from ..errors import DynamicFaceError
from ..regions import STRONGEST, move_expression
from ..types import FacePrior
from .documents import check_schema, number, read_json, write_json

SCHEMA = "dynamicface.preset.1"
FOLDER = Path(__file__).resolve().parents[1] / "presets"
GROUPS = ("emotion", "eyes", "viseme", "own")
_GAZE_LIMIT = 40.0  # degrees
_LEAST = 0.005  # a fitted coefficient below this is not an expression
_LOOK = tuple(ARKIT_NAMES.index(name) for name in ARKIT_NAMES if name.startswith("eyeLook"))


@dataclass(frozen=True)
class Preset:
    """One expression."""

    name: str
    channels: Mapping[str, float]  # ARKit name -> 0..1.5
    gaze: tuple[float, float] | None = None  # degrees: yaw, pitch of both eyes
    group: str = "own"  # one of GROUPS
    author: str = ""
    note: str = ""


def load_preset(path: str | Path) -> Preset:
    """Read a preset, or a plain JSON object of ARKit channels (first letters of either case). Raises DynamicFaceError."""
    path = Path(path)
    document = read_json(path)
    if isinstance(document, dict) and "schema" not in document and "channels" not in document:
        return Preset(path.stem, _channels({f"{key[:1].lower()}{key[1:]}": value for key, value in document.items()}, path))
    document = check_schema(document, SCHEMA, path)
    gaze = document.get("gaze")
    if gaze is not None:
        if not isinstance(gaze, list) or len(gaze) != 2:
            raise DynamicFaceError(f"The gaze of {path} is {gaze!r}; expected [yaw, pitch] in degrees.")
        gaze = tuple(number(value, -_GAZE_LIMIT, _GAZE_LIMIT, f"The gaze of {path}") for value in gaze)
    texts = {key: str(document.get(key, "")) for key in ("author", "note")}
    group = document.get("group", "own")
    return Preset(
        str(document.get("name") or path.stem),
        _channels(document.get("channels"), path),
        gaze,
        group if group in GROUPS else "own",
        **texts,
    )


def save_preset(preset: Preset, path: str | Path) -> None:
    """Write a preset; channels that are 0 are left out."""
    channels = {name: round(preset.channels[name], 4) for name in ARKIT_NAMES if preset.channels.get(name, 0) != 0}
    document = {"schema": SCHEMA, "name": preset.name, "group": preset.group, "author": preset.author, "note": preset.note}
    document |= {"channels": channels} | ({} if preset.gaze is None else {"gaze": [round(angle, 2) for angle in preset.gaze]})
    write_json(path, document)


@cache
def shipped_presets() -> Mapping[str, Preset]:
    """The presets of the package by name, grouped: emotions, eyes, visemes."""
    presets = [load_preset(path) for path in sorted(FOLDER.glob("*.json"))]
    return {preset.name: preset for preset in sorted(presets, key=lambda preset: GROUPS.index(preset.group))}


def choose_presets(text: str, presets: Mapping[str, Preset]) -> list[Preset]:
    """Presets by names and groups separated by commas, or "all", in the order asked for. Raises DynamicFaceError."""
    chosen: dict[str, Preset] = {}
    for word in (word.strip() for word in text.split(",")):
        found = [preset for name, preset in presets.items() if word in (name, preset.group, "all")]
        if word and not found:
            groups = sorted({preset.group for preset in presets.values()})
            raise DynamicFaceError(
                f"No preset or group is called {word!r}. Groups: all, {', '.join(groups)}. Presets: {', '.join(presets)}."
            )
        chosen |= {preset.name: preset for preset in found}
    if not chosen:
        raise DynamicFaceError("No preset was named; give names or groups separated by commas, or all.")
    return list(chosen.values())


def blend_presets(first: Preset, second: Preset, weight: float) -> Preset:
    """From the first (0) to the second (1). A gaze that only one of them has fades in or out."""
    names = first.channels.keys() | second.channels.keys()
    channels = {n: (1 - weight) * first.channels.get(n, 0.0) + weight * second.channels.get(n, 0.0) for n in names}
    gaze = None
    if first.gaze or second.gaze:
        gaze = tuple((1 - weight) * a + weight * b for a, b in zip(first.gaze or (0, 0), second.gaze or (0, 0), strict=True))
    return Preset(f"{first.name} {1 - weight:.2f} + {second.name} {weight:.2f}", channels, gaze)


def apply_preset(
    prior: FacePrior, preset: Preset, intensity: float = 1.0, *, regions: Mapping[str, float] | None = None, add: bool = False
) -> FacePrior:
    """Give a face the preset's expression.

    intensity: 0 hands on the very same prior, 1 is the preset, above 1 is more of it. regions: a factor on intensity for brows, eyes,
    mouth, jaw; 0 keeps a region as filmed. add: on top of the filmed expression instead of in its place.
    """
    expression = prior.expression.new_tensor([[preset.channels.get(name, 0.0) for name in ARKIT_NAMES]])
    gaze = None
    if preset.gaze is not None:
        gaze = torch.deg2rad(prior.gaze.new_tensor(preset.gaze)).expand(1, 2, 2)
    elif not add:
        expression = expression.repeat(len(prior), 1)
        expression[:, _LOOK] = prior.expression[:, _LOOK]
    return move_expression(prior, expression, gaze, amount=intensity, regions=regions, add=add)


def preset_of(prior: FacePrior, name: str, *, frame: int = 0, gaze: bool = False, author: str = "", note: str = "") -> Preset:
    """The expression of one frame, to keep; with `gaze` also where the eyes look (their mean) and the lids that follow.

    Raises DynamicFaceError where there is no such frame.
    """
    if not 0 <= frame < len(prior):
        raise DynamicFaceError(f"There is no frame {frame}; this prior has {len(prior)}, counted from 0.")
    values = enumerate(prior.expression[frame].tolist())
    channels = {ARKIT_NAMES[k]: value for k, value in values if value > _LEAST and (gaze or k not in _LOOK)}
    yaw, pitch = (math.degrees(angle) for angle in prior.gaze[frame].mean(0).tolist())
    return Preset(name, channels, (yaw, pitch) if gaze else None, "own", author, note)


def _channels(values: object, path: Path) -> dict[str, float]:
    if not isinstance(values, dict):
        raise DynamicFaceError(f"{path} has no channels; expected an object of ARKit names and numbers.")
    unknown = sorted(map(str, values.keys() - set(ARKIT_NAMES)))
    if unknown:
        raise DynamicFaceError(
            f"{path} names channels that ARKit does not have: {', '.join(unknown[:5])}. Use names such as mouthSmileLeft."
        )
    return {name: number(value, 0, STRONGEST, f"The channel {name} of {path}") for name, value in values.items()}
