"""The artist's dials: plain words that move several ARKit channels together, and measures of the face.

A dial goes from -1 to 1 and 0 leaves the face as filmed. Moving a dial up adds its `up` channels and releases its `down` channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def both(name: str, value: float) -> dict[str, float]:
    """The left and right channel of a pair."""
    return {f"{name}Left": value, f"{name}Right": value}


@dataclass(frozen=True)
class Dial:
    """Channel weights at +1 and at -1, gaze in degrees at +1, and what the artist is told."""

    up: dict[str, float]
    down: dict[str, float] = field(default_factory=dict)
    gaze: tuple[float, float] = (0.0, 0.0)
    tip: str = ""


_SMILE = {
    **both("mouthSmile", 0.85),
    **both("cheekSquint", 0.6),
    **both("eyeSquint", 0.3),
    **both("mouthUpperUp", 0.2),
    **both("mouthDimple", 0.2),
    **both("mouthStretch", 0.1),
}
_FROWN = {**both("mouthFrown", 0.8), **both("mouthPress", 0.2), "mouthShrugLower": 0.35}

DIALS: dict[str, Dial] = {
    "smile": Dial(_SMILE, _FROWN, tip="Closed smile with lifted cheeks and narrowed eyes; below 0 the corners drop."),
    "laugh": Dial(
        {
            **both("mouthSmile", 0.9),
            **both("cheekSquint", 0.6),
            **both("eyeSquint", 0.45),
            **both("mouthUpperUp", 0.55),
            **both("mouthLowerDown", 0.4),
            **both("mouthStretch", 0.15),
            "jawOpen": 0.3,
        },
        {**both("mouthPress", 0.6), "mouthRollLower": 0.3, "mouthRollUpper": 0.2},
        tip="Open laugh with teeth; below 0 the lips press together.",
    ),
    "jaw_open": Dial({"jawOpen": 0.8}, {"mouthShrugLower": 0.3, **both("mouthPress", 0.3)}, tip="Opens the mouth."),
    "brows_up": Dial(
        {"browInnerUp": 1.2, **both("browOuterUp", 1.2), **both("eyeWide", 0.3)},
        {**both("browDown", 0.8)},
        tip="Raises both brows; below 0 they are lowered.",
    ),
    "blink_left": Dial({"eyeBlinkLeft": 1.0}, {"eyeWideLeft": 0.8}, tip="Closes the character's left eye; below 0 it opens wide."),
    "blink_right": Dial({"eyeBlinkRight": 1.0}, {"eyeWideRight": 0.8}, tip="Closes the character's right eye; below 0 it opens wide."),
    "gaze_x": Dial({}, gaze=(25.0, 0.0), tip="Turns the eyes to the viewer's right; below 0 to the left."),
    "gaze_y": Dial(
        {**both("eyeLookUp", 0.6)}, {**both("eyeLookDown", 0.6)}, gaze=(0.0, 18.0), tip="Looks up; below 0 down. The lids follow."
    ),
    "anger": Dial(
        {
            **both("browDown", 0.9),
            **both("noseSneer", 0.45),
            **both("eyeSquint", 0.4),
            **both("mouthPress", 0.4),
            **both("mouthFrown", 0.3),
            "jawForward": 0.2,
        },
        {"browInnerUp": 0.3, **both("mouthSmile", 0.2)},
        tip="Lowered brows, tense lids and lips; below 0 the face relaxes.",
    ),
    "surprise": Dial(
        {"browInnerUp": 1.1, **both("browOuterUp", 1.1), **both("eyeWide", 0.7), "jawOpen": 0.35, "mouthFunnel": 0.15},
        {**both("browDown", 0.4), **both("eyeSquint", 0.4)},
        tip="Raised brows, wide eyes, open mouth; below 0 the eyes narrow.",
    ),
    "sadness": Dial(
        {"browInnerUp": 0.8, **both("mouthFrown", 0.7), "mouthShrugLower": 0.4, **both("eyeSquint", 0.15), **both("eyeLookDown", 0.2)},
        {**both("mouthSmile", 0.25)},
        tip="Inner brows up, corners of the mouth down.",
    ),
    "disgust": Dial(
        {
            **both("noseSneer", 0.9),
            **both("mouthUpperUp", 0.5),
            **both("browDown", 0.4),
            **both("cheekSquint", 0.4),
            **both("mouthFrown", 0.3),
        },
        {},
        tip="Wrinkled nose and raised upper lip.",
    ),
    "pucker": Dial({"mouthPucker": 1.3}, {**both("mouthStretch", 0.9)}, tip="Purses the lips; below 0 they are stretched wide."),
}

MEASURES: dict[str, tuple[tuple[int, int], ...]] = {
    "face_width": ((234, 454), (127, 356)),
    "jaw_width": ((172, 397), (136, 365)),
    "chin_length": ((17, 152),),
    "nose_width": ((129, 358), (98, 327)),
    "nose_length": ((168, 2),),
    "mouth_width": ((61, 291),),
    "lip_fullness": ((0, 13), (14, 17)),
    "eye_size": ((159, 145), (386, 374)),
    "eye_distance": ((133, 362),),
    "brow_height": ((105, 159), (334, 386)),
}
"""Distances between landmarks that the identity dials stretch."""
