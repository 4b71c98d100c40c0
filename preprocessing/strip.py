"""A picture of one video's faces with a score under each, to be judged by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from preprocessing.errors import PreprocessingError
from preprocessing.sheet import CAPTION, FAINT, GAP_FILL, INK, MARGIN, PAPER, on_one_line

TRACK, FILL = (222, 222, 222), (214, 84, 52)
BAR, GAP = 5, 6
WIDTH = 480
"""Narrower pictures would have no room for their title."""


@dataclass(frozen=True)
class Tile:
    """One frame: a face (S, S, 3) uint8 RGB with its score in [0, 1], or a status that says why there is none."""

    caption: str
    status: str
    face: NDArray[np.uint8] | None = None
    score: float | None = None


def score_strip(path: str | Path, title: str, verdict: str, tiles: Sequence[Tile], side: int = 112, columns: int = 8) -> None:
    """Draw faces in order, each with its score as a number and a bar; a frame without a face is a gap that names its status.

    Args:
        path: the PNG to write.
        title: first line; shortened where it does not fit.
        verdict: second line.
        tiles: the frames, in order.
        side: of a face, pixels.
        columns: faces in a row.

    Raises:
        PreprocessingError: if there is no tile, or the PNG cannot be written.
    """
    if not tiles:
        raise PreprocessingError("a strip needs at least one frame")
    font = PIL.ImageFont.load_default()
    across, down = min(columns, len(tiles)), -(-len(tiles) // columns)
    height = side + BAR + CAPTION + GAP
    head = MARGIN + 2 * CAPTION + GAP
    strip = PIL.Image.new("RGB", (max(WIDTH, 2 * MARGIN + across * (side + GAP) - GAP), head + down * height + MARGIN - GAP), PAPER)
    draw = PIL.ImageDraw.Draw(strip)
    for number, (line, colour) in enumerate(((title, INK), (verdict, FAINT))):
        room = strip.width - 2 * MARGIN
        draw.text((MARGIN, MARGIN + number * CAPTION), _fitting(draw, on_one_line(line), room, font), fill=colour, font=font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (side + GAP), head + row * height
        if tile.face is None:
            draw.rectangle((left, top, left + side - 1, top + side - 1), fill=GAP_FILL[tile.status])
            draw.text((left + 6, top + side // 2 - 6), tile.status.replace("_", " "), fill=INK, font=font)
        else:
            shrink = tile.face.shape[0] > side
            how = PIL.Image.Resampling.BOX if shrink else PIL.Image.Resampling.BICUBIC
            strip.paste(PIL.Image.fromarray(tile.face).resize((side, side), how), (left, top))
        words = tile.caption
        if tile.score is not None:
            draw.rectangle((left, top + side, left + side - 1, top + side + BAR - 1), fill=TRACK)
            if round(tile.score * side):
                draw.rectangle((left, top + side, left + round(tile.score * side) - 1, top + side + BAR - 1), fill=FILL)
            said = f"{tile.score:.3f}"
            draw.text((left + side - draw.textlength(said, font=font), top + side + BAR + 1), said, fill=INK, font=font)
        draw.text((left, top + side + BAR + 1), words, fill=FAINT, font=font)
    try:
        strip.save(Path(path).expanduser(), "PNG")
    except OSError as error:
        raise PreprocessingError(f"cannot write the strip {path}: {error.strerror or error}; give another folder") from error


def _fitting(
    draw: PIL.ImageDraw.ImageDraw, line: str, room: int, font: PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont
) -> str:
    """The line, or as much of its end as fits: names differ at their ends."""
    if draw.textlength(line, font=font) <= room:
        return line
    start = 1
    while start < len(line) and draw.textlength(f"...{line[start:]}", font=font) > room:
        start += 1
    return f"...{line[start:]}"
