"""A picture of the drawn data sets: rows are people, columns the original and its forgeries. Makes docs/faces.png:

python -m preprocessing.synthetic.gallery docs/faces.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.synthetic.catalogue import CATALOGUES, MiniA
from preprocessing.synthetic.dataset import draw_dataset

Picture = NDArray[np.uint8]

TILE = 176  # pixels
CAPTION = 20  # height of the line above each row of tiles, pixels
SHOWN = 0.80  # the part of a frame's side that is shown
GREY_STEP = 2  # colours are rounded to multiples of this, so that the file stays small
PEOPLE = 8


def gallery(out_png: Path, seed: int = 0, rows: int = 5) -> None:
    """Draw both data sets small and write their `page` to `out_png`.

    Raises:
        OSError: if `out_png` cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        root_a, root_b = Path(folder, "mini-a"), Path(folder, "mini-b")
        draw_dataset(root_a, "mini-a", PEOPLE, frames=2, seed=seed)
        draw_dataset(root_b, "mini-b", PEOPLE, frames=2, seed=seed)
        pixels = page(root_a, root_b, PEOPLE, rows)
    out_png.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    out_png.write_bytes(encoded.tobytes())


def page(root_a: Path, root_b: Path, people: int, rows: int) -> Picture:
    """A labelled picture (H, W, 3) of `rows` people of a drawn mini-a and two of a mini-b, both with `people` identities at c23."""
    methods = [method.__name__ for method in MiniA.methods]
    chosen = [*range(0, people, 2), *range(1, people, 2)][:rows]  # one of each pair first
    strips = [_caption(["mini-a: original", *methods])]
    strips += [_strip(root_a, "mini-a", person, people) for person in chosen]
    strips += [_caption(["mini-b: original", "Celeb-synthesis"] * 2)]
    strips += [np.hstack([_strip(root_b, "mini-b", person, people) for person in (0, 2)])]
    width = max(strip.shape[1] for strip in strips)
    white = (255, 255, 255)
    return np.vstack([cv2.copyMakeBorder(s, 0, 0, 0, width - s.shape[1], cv2.BORDER_CONSTANT, value=white) for s in strips])


def _strip(root: Path, style: str, person: int, people: int) -> Picture:
    """The last frame of every video of `person`, without masks, side by side."""
    clips = CATALOGUES[style].clips(people, ["c23"])
    return np.hstack([_tile(root / clip.path) for clip in clips if clip.target == person and not clip.is_mask])


def _tile(path: Path) -> Picture:
    with av.open(str(path)) as container:
        frame = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)][-1]
    size = frame.shape[0]
    shown, start = int(size * SHOWN), int(size * (1 - SHOWN) / 2)
    tile = cv2.resize(frame[start : start + shown, start : start + shown], (TILE, TILE), interpolation=cv2.INTER_AREA)
    return np.clip(np.round(tile / GREY_STEP) * GREY_STEP, 0, 255).astype(np.uint8)


def _caption(labels: list[str]) -> Picture:
    line = np.full((CAPTION, TILE * len(labels), 3), 255, np.uint8)
    for column, label in enumerate(labels):
        at = (column * TILE + 4, CAPTION - 6)
        cv2.putText(line, label, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
    return line


if __name__ == "__main__":
    gallery(Path(sys.argv[1]))
