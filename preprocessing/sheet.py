"""A contact sheet: the faces of a store, to be judged by eye before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from preprocessing.errors import PreprocessingError, did_you_mean
from preprocessing.store import FaceStore, face_key
from preprocessing.work import WHOLE_VIDEO

PAPER, INK, FAINT = (250, 250, 250), (30, 30, 30), (140, 140, 140)
GAP_FILL = {"no_face": (228, 228, 228), "no_landmarks": (250, 226, 190), "unreadable": (248, 205, 205)}
POINT, OUTLINE = (0, 255, 90), (255, 60, 200)
LABEL_WIDTH, CAPTION, MARGIN = 190, 15, 12


def contact_sheet(
    store: FaceStore,
    path: str | Path,
    videos: int = 24,
    frames: int = 16,
    tile: int = 112,
    landmarks: bool = False,
    masks: bool = False,
    methods: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    seed: int | None = None,
) -> str:
    """Draw one row per video, its sampled frames in order; a frame without a face is a coloured gap that names its status.

    Args:
        store: a finished store.
        path: the PNG to write.
        videos: at most so many rows; of a bigger store, rows evenly spread over the sorted videos.
        frames: at most so many columns; of longer videos, frames evenly spread.
        tile: side of a face on the sheet, pixels.
        landmarks: draw the landmarks as dots.
        masks: draw the outline of the forged region.
        methods: only videos of these methods ("real" is one).
        splits: only videos of these splits.
        seed: of a bigger store, take rows at random instead of evenly spread; the same seed takes the same.

    Returns:
        One sentence that says what is shown; it also stands at the head of the sheet.

    Raises:
        PreprocessingError: if a limit is below 1, the store has no such method or split or no video of both, or the PNG cannot be
            written.
    """
    if min(videos, frames, tile) < 1:
        raise PreprocessingError("a contact sheet needs at least one video, one frame and one pixel per face")
    ledger = _only(_only(store.ledger, store, "method", methods), store, "split", splits)
    by_video = list(ledger.groupby(["dataset", "compression", "method", "video"], sort=True))
    if not by_video:
        raise PreprocessingError(f"store {store.path} holds no video yet; run preprocess again")
    picked = _spread(len(by_video), videos)
    if seed is not None:
        picked = sorted(np.random.default_rng(seed).permutation(len(by_video))[:videos].tolist())
    chosen = [by_video[i] for i in picked]
    rows = [rows.sort_values("frame") for _, rows in chosen]
    columns = min(frames, max(map(len, rows)))
    said = f"{len(chosen)} of {len(by_video)} videos, at most {columns} of {max(map(len, rows))} sampled frames each, "
    said += "evenly spread" if seed is None else f"videos at random (seed {seed})"

    height = 3 * MARGIN + CAPTION + len(rows) * (tile + CAPTION + MARGIN)
    sheet = PIL.Image.new("RGB", (LABEL_WIDTH + columns * (tile + 4) + 2 * MARGIN, height), PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    datasets = on_one_line(", ".join(sorted(ledger["dataset"].unique())))
    _text(draw, (MARGIN, MARGIN), f"{datasets} - fingerprint {store.fingerprint[:12]} - {said}", INK)
    for number, table in enumerate(rows):
        top = 2 * MARGIN + CAPTION + number * (tile + CAPTION + MARGIN)
        _label(draw, (MARGIN, top), table)
        for column, at in enumerate(_spread(len(table), columns)):
            row = table.iloc[at]
            left = LABEL_WIDTH + MARGIN + column * (tile + 4)
            if row["status"] == "face":
                sheet.paste(_face(store, row, tile, landmarks, masks), (left, top))
            else:
                draw.rectangle((left, top, left + tile - 1, top + tile - 1), fill=GAP_FILL[row["status"]])
                _text(draw, (left + 6, top + tile // 2 - 6), row["status"].replace("_", " "), INK)
            frame = int(row["frame"])
            _text(draw, (left, top + tile + 1), caption(frame), FAINT)
    try:
        sheet.save(Path(path).expanduser(), "PNG")
    except OSError as error:
        raise PreprocessingError(f"cannot write the contact sheet {path}: {error.strerror or error}; give another path") from error
    return said


def caption(frame: int) -> str:
    """What a row of the ledger is about: a frame, the whole video, or an image without a frame number."""
    return f"frame {frame}" if frame >= 0 else "whole video" if frame == WHOLE_VIDEO else "no number"


def on_one_line(words: str) -> str:
    """Words as they can be drawn: a file's name may hold line breaks and other characters that have no picture."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _only(ledger: pd.DataFrame, store: FaceStore, column: str, names: Sequence[str] | None) -> pd.DataFrame:
    if names is None:
        return ledger
    there = [str(name) for name in store.ledger[column].unique()]
    for name in names:
        if name not in there:
            raise PreprocessingError(f"store {store.path} has no {column} '{name}': {did_you_mean(name, there)}")
    rows = ledger[ledger[column].isin(list(names))]
    if rows.empty:
        raise PreprocessingError(f"store {store.path} has no video of such a method in {column} {', '.join(names)}")
    return rows


def _face(store: FaceStore, row: pd.Series[Any], tile: int, landmarks: bool, masks: bool) -> PIL.Image.Image:
    video = "/".join(row[field] for field in ("dataset", "compression", "method", "video"))
    key = face_key(video, int(row["frame"]))
    pixels = store.image(key)
    side = pixels.shape[0]
    mask = store.mask(key) if masks else None
    if mask is not None:
        inside = mask > 0
        # The rim: forged pixels with a neighbour that is not. As wide as one pixel of the sheet.
        shrunk = inside.copy()
        for _ in range(max(1, side // tile)):
            around = np.pad(shrunk, 1, constant_values=True)
            shrunk = around[1:-1, 1:-1] & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        pixels = np.where((inside & ~shrunk)[..., None], np.array(OUTLINE, dtype=np.uint8), pixels)
    face = PIL.Image.fromarray(pixels).resize(
        (tile, tile), PIL.Image.Resampling.BOX if side > tile else PIL.Image.Resampling.BICUBIC
    )
    if landmarks:
        draw = PIL.ImageDraw.Draw(face)
        for x, y in (store.landmarks(key) + 0.5) * tile / side:
            draw.rectangle((x - 0.5, y - 0.5, x + 0.5, y + 0.5), fill=POINT)
    return face


def _label(draw: PIL.ImageDraw.ImageDraw, at: tuple[int, int], table: pd.DataFrame) -> None:
    first = table.iloc[0]
    faces = int((table["status"] == "face").sum())
    lines = [
        (str(first["video"]), INK),
        (f"{first['method']} (fake)" if first["label"] else "real", INK),
        (f"{first['dataset']} {first['compression']}", FAINT),
        (f"split {first['split']}, id {first['identity']}", FAINT),
        (f"{faces} of {len(table)} frames have a face", FAINT if faces == len(table) else INK),
    ]
    for number, (words, colour) in enumerate(lines):
        line = on_one_line(words)
        fits = len(line)
        while draw.textlength(line[:fits], font=_FONT) > LABEL_WIDTH - 20:
            fits -= 1
        _text(draw, (at[0], at[1] + number * CAPTION), line if fits == len(line) else f"{line[:fits]}...", colour)


_FONT = PIL.ImageFont.load_default()


def _text(draw: PIL.ImageDraw.ImageDraw, at: tuple[int, int], words: str, colour: tuple[int, int, int]) -> None:
    draw.text(at, words, fill=colour, font=_FONT)


def _spread(count: int, wanted: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted))})
