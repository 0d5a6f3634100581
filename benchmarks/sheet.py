"""Fifty results, drawn evenly from the data and not picked: 25 edits (filmed | edited) and 25 swaps (source | target | result).

python -m benchmarks.sheet --out DIR writes edits.png and swaps.png.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dynamicface import FacePipeline, FacePrior
from dynamicface.images import sample_crops, square_matrix
from dynamicface.io.pictures import write_image
from dynamicface.prior.geometry import CROP_METRES, face_crop
from dynamicface.sheet import contact_sheet

from .common import Data, Options, SkippedError, arguments, fit_photo, log, prepare

EDITS = (
    *({"smile": 0.8}, {"laugh": 0.8}, {"jaw_open": 0.8}, {"blink_left": 1.0, "blink_right": 1.0}, {"yaw": 20.0}),
    *({"anger": 0.8}, {"surprise": 0.8}, {"gaze_x": 0.8}, {"smile": -0.8}, {"yaw": -20.0, "pitch": 10.0}),
    *({"light": 0.8, "azimuth": 60.0}, {"sadness": 0.8}, {"brows_up": 0.8}, {"jaw_width": 0.8}, {"pucker": 0.8}),
)
COLUMNS = 6
COUNT = 25
_SHOWN_METRES = 0.27  # side of a tile at the face's depth
Tiles = list[tuple[list[Tensor], list[str]]]


def edits(pipe: FacePipeline, options: Options, count: int, size: int) -> Tiles:
    """Filmed and edited, studio and street photographs in turn."""
    half = (count + 1) // 2
    photos = [path for pair in zip([n for n, _ in options.data.london(half)], options.data.faces(half), strict=True) for path in pair]
    tiles = []
    for number, path in enumerate(photos[:count]):
        if (prior := fit_photo(pipe, path, options)) is None:
            continue
        settings = EDITS[number % len(EDITS)]
        picture, _ = pipe.render(pipe.edit(prior, **settings))
        seen = [view(x, prior, size) for x in (prior.background.plate, picture)]
        tiles.append((seen, [path.stem, " ".join(f"{name}={value:g}" for name, value in settings.items())]))
        log.info("edit %d of %d: %s", number + 1, count, path.stem)
    return tiles


def swaps(pipe: FacePipeline, options: Options, count: int, size: int) -> Tiles:
    """Source, target and result; the targets are studio and street photographs in turn."""
    people = options.data.london(count + 1)
    portraits = options.data.faces(count)
    tiles = []
    for number in range(count):
        source, target = people[number][0], people[number + 1][number // 2 % 2] if number % 2 == 0 else portraits[number]
        who, where = fit_photo(pipe, source, options), fit_photo(pipe, target, options)
        if who is None or where is None:
            continue
        picture, _ = pipe.swap(who, where)
        shown = ((who.background.plate, who), (where.background.plate, where), (picture, where))
        tiles.append(([view(x, prior, size) for x, prior in shown], [source.stem, target.stem, "swapped"]))
        log.info("swap %d of %d: %s -> %s", number + 1, count, source.stem, target.stem)
    return tiles


def view(picture: Tensor, prior: FacePrior, size: int) -> Tensor:
    """The face of a picture as a tile (size, size, 3)."""
    crop = face_crop(prior, size)
    middle = crop.inverse @ crop.matrix.new_tensor([size / 2, size / 2, 1.0])
    side = size / crop.matrix[:, 0, 0] * _SHOWN_METRES / CROP_METRES
    return sample_crops(picture[..., :3], square_matrix(middle, side, 0 * side, size), size)[0].permute(1, 2, 0)


def sheet(tiles: Tiles) -> Tensor:
    """Results in rows of about `COLUMNS` pictures."""
    per_row = max(COLUMNS // len(tiles[0][0]), 1)
    rows = [tiles[i : i + per_row] for i in range(0, len(tiles), per_row)]
    pictures, captions = ([[x for tile in row for x in tile[part]] for row in rows] for part in (0, 1))
    return contact_sheet(pictures, captions)


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("contact-sheets"), help="folder to write to")
    parser.add_argument("--size", type=int, default=256, help="side of a picture on the sheet, px")
    args = parser.parse_args(argv)
    prepare()
    pipe, options = FacePipeline.load(args.device), Options(Data(args.data), args.limit, args.device)
    for name, make in (("edits", edits), ("swaps", swaps)):
        try:
            write_image(args.out / f"{name}.png", sheet(make(pipe, options, options.count(COUNT), args.size)))
        except SkippedError as reason:
            log.info("Skipped: %s", reason)
            return
        log.info("Wrote %s", args.out / f"{name}.png")


if __name__ == "__main__":
    main()
