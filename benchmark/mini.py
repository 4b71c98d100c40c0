"""A grid on drawn stand-ins of its datasets: the road to a paper's table in minutes, before any agreement is signed.

Every store that the grid names is drawn by `preprocessing.synthetic`: FaceForensics++ as mini-a (four forgeries, official-style
splits), each other dataset as a mini-b with people of its own. The numbers are no evidence about anything; every record says so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.config import Cell, Grid
from benchmark.specs import NO_SPLIT, TestSet, TrainData
from benchmark.study import Study, load_grid
from preprocessing.layouts import read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.store import FaceStore
from preprocessing.synthetic import draw_dataset, plan

WORD = "mini"
"""What `--data` is given to have everything drawn."""

FOLDER = Path("data")
"""The data folder that the drawn stores belong to."""

DRAWN = "drawn-"
"""How the dataset's name of every face that was drawn as a stand-in begins."""

TITLE = "SCALED DOWN, ON DRAWN FACES: no evidence"

TRAINED, TESTED, FRAMES = 24, 8, 4
"""Drawn people of a dataset that is trained on and of one that is tested on alone, and frames of each of their videos."""

OnProgress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True)
class StandIn:
    """What is drawn in place of a store.

    Attributes:
        store: where it goes, relative to the data folder.
        style: "mini-a" or "mini-b".
        compression: of the drawn videos.
        people, frames: how much of it.
        seed: a number of its name, so that no two datasets share people and every grid finds the same files.
        unsplit: whether its videos are given the split "none", since the grid tests it so.
    """

    store: str
    style: str
    compression: str
    people: int
    frames: int
    seed: int
    unsplit: bool

    @property
    def name(self) -> str:
        """The name of the dataset that it stands for."""
        return Path(self.store).name

    @property
    def videos(self) -> str:
        """Folder of the videos, relative to the data folder. One compression is one folder, so that stores stay apart."""
        return f"{WORD}/videos/{self.name}"


def mini_study(source: str | Path, plugins: Iterable[str] = ()) -> Study:
    """The grid with its `mini:` block applied and every store replaced by a drawn one, which its name and title say.

    Raises:
        ConfigError: as `load_grid`, or the grid has no such block.
    """
    study = load_grid(source, plugins, mini=True)
    title = f"{study.title or study.name} [{TITLE}]"
    return replace(study, title=title, parts=tuple(_on_drawn_stores(part, title) for part in study.parts))


def _on_drawn_stores(grid: Grid, title: str) -> Grid:
    train = grid.train.model_copy(update={"store": drawn_name(grid.train.store)})
    tests = tuple(t.model_copy(update={"store": drawn_name(t.store)}) for t in grid.tests)
    return grid.model_copy(update={"title": title, "train": train, "tests": tests})


def drawn_name(store: str) -> str:
    """stores/UADFV -> mini/stores/UADFV."""
    return f"{WORD}/stores/{Path(store).name}"


def stand_ins(study: Study, trained: int = TRAINED, tested: int = TESTED, frames: int = FRAMES) -> list[StandIn]:
    """What has to be there for a study of `mini_study`; the stores of an unscaled study are named by the same rule."""
    found: dict[str, StandIn] = {}
    for part in study.parts:
        used: list[TrainData | TestSet] = [part.train, *part.tests]
        for data in used:
            name = Path(data.store).name
            style = "mini-a" if name.startswith("FaceForensics++") else "mini-b"
            split = getattr(data, "split", "")
            found[name] = StandIn(
                store=drawn_name(data.store),
                style=style,
                compression="c40" if style == "mini-a" and name.endswith("c40") else "c23",
                people=trained if style == "mini-a" else tested,
                frames=frames,
                seed=zlib.crc32(name.encode()) % 1_000_000,
                unsplit=split == NO_SPLIT,
            )
    return list(found.values())


def draw(one: StandIn, data: Path, workers: int = 1, on_progress: OnProgress = lambda what, done, total: None) -> bool:
    """Draw a stand-in's videos and make its store; what is there already is kept, and an interrupted call is continued.

    Args:
        one: what.
        data: the data folder.
        workers: processes.
        on_progress: told about both stages.

    Returns:
        Whether anything had to be done.

    Raises:
        PreprocessingError: the folder holds something else, drawn with other settings, say; the sentence names it.
    """
    videos, store = data / one.videos, data / one.store
    missing = len(plan(one.style, one.people, one.compression, videos))
    done = 0

    def drawn(_: str) -> None:
        nonlocal done
        done += 1
        on_progress(f"draw {one.name}", done, missing)

    draw_dataset(
        videos,
        style=one.style,
        identities=one.people,
        frames=one.frames,
        seed=one.seed,
        workers=workers,
        compression=one.compression,
        on_video=drawn,
    )
    layout = "faceforensics++" if one.style == "mini-a" else "celeb-df-v2"
    found = read_layout(videos, layout=layout, name=DRAWN + one.name, compression=one.compression)
    if one.unsplit:
        found = [replace(video, split=NO_SPLIT) for video in found]
    faces = 0

    def processed(_: Any) -> None:
        nonlocal faces
        faces += 1
        on_progress(f"faces of {one.name}", faces, len(found))

    summary = preprocess(found, store, Settings(frames=one.frames), workers=workers, on_video=processed)
    return bool(missing) or not summary.finished_before


def drawn_warnings(cell: Cell, stores: dict[str, FaceStore]) -> list[str]:
    """One sentence where faces of a cell are drawn stand-ins."""
    drawn = [name for name in cell.stores() if stores[name].manifest["dataset"].str.startswith(DRAWN).any()]
    if not drawn:
        return []
    which = "all data are drawn" if len(drawn) == len(cell.stores()) else f"the faces of {', '.join(drawn)} are drawn"
    return [
        f"{which}: people that do not exist, forged by programs that stand in for the datasets' own; these numbers are no evidence"
        " about detectors, optimizers or datasets"
    ]
