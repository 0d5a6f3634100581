"""Performances as ARKit's 52 coefficients: JSON, and the CSV of Epic's Live Link Face app.

CSV   Timecode (HH:MM:SS:FF.mmm), BlendShapeCount (61), the 52 channels in Live Link's order, then HeadYaw, HeadPitch, HeadRoll and yaw,
      pitch, roll of the left and the right eye, in radians. Columns are found by name whatever their case; missing angles are 0.
      A row without values (the app lost the face) repeats the one before.
JSON  {"schema": "dynamicface.arkit.1", "fps": 24, "names": [..], "frames": [[..], ..], "head": [[yaw, pitch, roll], ..],
      "eyes": [[left yaw, left pitch, right yaw, right pitch], ..]}, angles in degrees. The JSON of NVIDIA's Audio2Face is read too.

Signs are those of `conventions.py`: yaw > 0 towards the viewer's right, pitch > 0 up, roll > 0 clockwise as seen by the viewer. Where a
file has no eye angles, they follow from eyeLookIn, Out, Up and Down.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from ..conventions import ARKIT_NAMES
from ..drive import Performance
from ..errors import DynamicFaceError
from ..prior.camera import euler_from_rotation, rotation_from_euler
from ..prior.gaze import LOOK_NAMES, gaze_of_look
from .documents import check_schema, number, read_json, write_json

SCHEMA = "dynamicface.arkit.1"
_LOOK = [ARKIT_NAMES.index(name) for name in LOOK_NAMES]
_STRONGEST = 1.5
_ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll")
_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_MOUTH = (
    *("jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft"),
    *(f"mouth{part}{side}" for part in ("Smile", "Frown", "Dimple", "Stretch") for side in ("Left", "Right")),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *(f"mouth{part}{side}" for part in ("Press", "LowerDown", "UpperUp") for side in ("Left", "Right")),
)
LIVE_LINK_NAMES: tuple[str, ...] = (
    *(f"eye{part}{side}" for side in ("Left", "Right") for part in _EYE),
    *_MOUTH,
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *("cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""The channels in the order of the app's columns."""


def load_performance(path: str | Path, fps: float | None = None) -> Performance:
    """Read a performance from .csv or .json. fps overrides what the file says or its timecodes suggest. Raises DynamicFaceError."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path, fps)
    if path.suffix.lower() == ".json":
        return _read_json(path, fps)
    raise DynamicFaceError(f"{path} is neither .csv (Live Link Face) nor .json (ARKit coefficients); choose another file.")


def save_performance(performance: Performance, path: str | Path) -> None:
    """Write a performance to .csv or .json. Raises DynamicFaceError for other endings."""
    path = Path(path)
    head, eyes = euler_from_rotation(performance.rotation), torch.rad2deg(performance.gaze)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".json":
        rows = {"frames": performance.expression, "head": head, "eyes": eyes.flatten(1)}
        rounded = {key: [[round(v, 5) for v in row] for row in value.tolist()] for key, value in rows.items()}
        write_json(path, {"schema": SCHEMA, "fps": performance.fps, "names": list(ARKIT_NAMES), **rounded})
    elif path.suffix.lower() == ".csv":
        order = [ARKIT_NAMES.index(name) for name in LIVE_LINK_NAMES]
        rolled = torch.nn.functional.pad(eyes, (0, 1)).flatten(1)
        values = torch.cat([performance.expression[:, order], torch.deg2rad(torch.cat([head, rolled], 1))], 1)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Timecode", "BlendShapeCount", *(f"{n[0].upper()}{n[1:]}" for n in LIVE_LINK_NAMES), *_ANGLES])
            for frame, row in enumerate(values.tolist()):
                writer.writerow([_timecode(frame, performance.fps), len(row), *(f"{value:.7g}" for value in row)])
    else:
        raise DynamicFaceError(f"{path} must end in .csv (Live Link Face) or .json (ARKit coefficients).")


def _read_csv(path: Path, fps: float | None) -> Performance:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DynamicFaceError(f"{path} cannot be read as CSV ({error}). Choose another file.") from error
    column = {name.strip().lower(): k for k, name in enumerate(header)}
    absent = [name for name in LIVE_LINK_NAMES if name.lower() not in column]
    if absent:
        raise DynamicFaceError(
            f"{path} is no Live Link Face recording: it lacks the columns {', '.join(absent[:4])}. Export it as CSV again."
        )
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    wanted = [*LIVE_LINK_NAMES, *_ANGLES]
    values: list[list[float]] = []
    for line, row in enumerate(rows, 2):
        if len(row) < len(header):
            values.append(values[-1] if values else [0.0] * len(wanted))
            continue
        values.append([_cell(row[column[n.lower()]], n, line, path) if n.lower() in column else 0.0 for n in wanted])
    if not values:
        raise DynamicFaceError(f"{path} holds no frames.")
    table = torch.tensor(values)
    expression = torch.empty(len(table), len(ARKIT_NAMES))
    expression[:, [ARKIT_NAMES.index(name) for name in LIVE_LINK_NAMES]] = table[:, : len(LIVE_LINK_NAMES)]
    head, eyes = torch.rad2deg(table[:, len(LIVE_LINK_NAMES) :]).split((3, 6), 1)
    gaze = eyes.unflatten(1, (2, 3))[..., :2] if "lefteyeyaw" in column else None
    times = [row[column["timecode"]] for row in rows] if column.get("timecode") == 0 else []
    return _performance(expression, head, gaze, fps or _rate(times))


def _read_json(path: Path, fps: float | None) -> Performance:
    document = read_json(path)
    if isinstance(document, dict) and {"facsNames", "weightMat"} <= document.keys():  # Audio2Face
        document = {"schema": SCHEMA, "names": document["facsNames"], "frames": document["weightMat"], "fps": document.get("exportFps", 30)}
    document = check_schema(document, SCHEMA, path)
    names, frames = document.get("names"), document.get("frames")
    if not isinstance(names, list) or not isinstance(frames, list) or not frames:
        raise DynamicFaceError(f"{path} has no names or no frames; expected lists of both.")
    known = {name.lower(): k for k, name in enumerate(ARKIT_NAMES)}
    places = [known.get(str(name).lower()) for name in names]
    if not any(place is not None for place in places):
        raise DynamicFaceError(f"{path} names no channel of ARKit, such as jawOpen.")
    table = _table(frames, len(names), "frames", len(frames), path)
    kept = [k for k, place in enumerate(places) if place is not None]
    expression = torch.zeros(len(table), len(ARKIT_NAMES))
    expression[:, [places[k] for k in kept]] = table[:, kept]
    head = _table(document["head"], 3, "head", len(table), path) if "head" in document else torch.zeros(len(table), 3)
    eyes = _table(document["eyes"], 4, "eyes", len(table), path).unflatten(1, (2, 2)) if "eyes" in document else None
    return _performance(expression, head, eyes, fps or number(document.get("fps", 30), 1, 1000, f"The fps of {path}"))


def _performance(expression: Tensor, head: Tensor, eyes: Tensor | None, fps: float) -> Performance:
    """From degrees: head (F, 3), eyes (F, 2, 2) or None."""
    rotation = rotation_from_euler(*head.unbind(-1))
    gaze = gaze_of_look(expression[:, _LOOK]) if eyes is None else torch.deg2rad(eyes)
    return Performance(expression.clamp(0, _STRONGEST), gaze, rotation, fps)


def _table(rows: object, width: int, what: str, length: int, path: Path) -> Tensor:
    """(F, width) of finite numbers."""
    whole = isinstance(rows, list) and len(rows) == length and all(isinstance(row, list) and len(row) == width for row in rows)
    if not whole or not all(isinstance(v, int | float) and math.isfinite(v) for row in rows for v in row):
        raise DynamicFaceError(f"The {what} of {path} must be {length} rows of {width} numbers.")
    return torch.tensor(rows, dtype=torch.float32)


def _cell(text: str, name: str, line: int, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DynamicFaceError(f"{path}, line {line}: {name} is {text!r}; expected a number.")
    return value


def _timecode(frame: int, fps: float) -> str:
    """HH:MM:SS:FF.mmm; frames are counted at the whole rate (non-drop), the fraction is the part of a frame beyond it."""
    rate = max(round(fps), 1)
    seconds, rest = divmod(frame, rate)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{rest:02d}.000"


def _rate(timecodes: list[str]) -> float:
    """Frames per second: one more than the highest frame of any second but the last; 30 where no second is whole or none is written."""
    try:
        parts = [code.split(":") for code in timecodes]
        highest = [float(frame) for *second, frame in parts if second != parts[-1][:3]]
    except ValueError:
        return 30.0
    return float(int(max(highest)) + 1) if highest else 30.0
