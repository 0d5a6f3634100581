"""Contact sheets: rows of pictures with a caption under each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

_CAPTION = 22  # px
_PAPER, _INK = (24, 24, 26), (225, 225, 225)


def contact_sheet(pictures: Sequence[Sequence[Tensor]], captions: Sequence[Sequence[str]]) -> Tensor:
    """Rows of pictures (S, S, 3), 0..1, with their captions, as one picture (1, H, W, 3)."""
    size = pictures[0][0].shape[0]
    columns = max(len(row) for row in pictures)
    sheet = Image.new("RGB", (columns * size, len(pictures) * (size + _CAPTION)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for r, (row, texts) in enumerate(zip(pictures, captions, strict=True)):
        for c, (picture, text) in enumerate(zip(row, texts, strict=True)):
            tile = (picture.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
            sheet.paste(Image.fromarray(tile), (c * size, r * (size + _CAPTION)))
            draw.text((c * size + 6, (r + 1) * size + r * _CAPTION + 3), text, fill=_INK, font_size=14)
    return torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255)[None]
