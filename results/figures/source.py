"""What figures draw: the scores of a grid's selected checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from results.files import RecordError
from results.index import GridIndex, WantedCell
from results.record import Record
from results.scores import load_scores
from results.selection import Selection, select, selection_named
from results.tidy import protocol_label


class Source:
    """A grid of one part, read for drawing.

    Args:
        index: read from a folder.
        selection: key of `SELECTIONS`: the checkpoints.
        seed: of whatever is drawn at random.

    Raises:
        RecordError: the index has no folder; no such selection.
    """

    def __init__(self, index: GridIndex, selection: str = "source_val", seed: int = 0) -> None:
        if index.folder is None:
            raise RecordError(f"grid '{index.grid.name}' was not read from a folder; there are no scores to draw")
        self.index, self.folder, self.seed = index, index.folder, seed
        self.selection: Selection = selection_named(selection)
        self._scores = lru_cache(maxsize=None)(self._load)

    @property
    def optimizers(self) -> list[str]:
        """Titles in the grid's order: a series keeps its look in every figure."""
        return self.index.grid.optimizers

    def cells(self, detector: str | None = None, optimizer: str | None = None) -> Iterator[tuple[WantedCell, Record]]:
        """Cells that have a record, in the grid's order."""
        for cell in self.index.grid.cells:
            if cell.id in self.index.records and detector in (None, cell.detector) and optimizer in (None, cell.optimizer):
                yield cell, self.index.records[cell.id]

    def scores(self, cell: str, test: str) -> list[pd.DataFrame]:
        """The frames' scores on one test set at each evaluation that the rule selects; empty where there is none.

        Raises:
            RecordError: no scores, or the rule cannot choose.
        """
        return self._scores(cell).get(test, [])

    def _load(self, cell: str) -> dict[str, list[pd.DataFrame]]:
        chosen = [c for c in select(self.index.records[cell].measures, self.selection) if c.level == "frame"]
        path: Path = self.folder / cell / "scores.parquet"
        scores = load_scores(path)
        scores = scores[scores["split"] != "val"]
        return {c.test: [scores[(scores["test"] == c.test) & (scores["epoch"] == epoch)] for epoch in c.epochs] for c in chosen}

    def caption(self, what: str, checkpoint: bool = True, seeds: Sequence[int] | None = None) -> str:
        """What a figure shows, under which protocol, from which checkpoints and seeds: true without the picture's corner.

        Args:
            what: is drawn.
            checkpoint: whether the selection rule has a say in it.
            seeds: whose cells are drawn; None: all of the grid.
        """
        protocols = list(dict.fromkeys(protocol_label(r) for r in self.index.records.values()))
        drawn = list(self.index.grid.seeds if seeds is None else seeds)
        run, wanted = len(self.index.records), len({c.id for c in self.index.grid.cells})
        return (
            f"{what}. Protocol{'s' * (len(protocols) > 1)} {', '.join(protocols)}; "
            + f"checkpoint: {self.selection.label}; " * checkpoint
            + f"seed{'s' * (len(drawn) > 1)} {', '.join(map(str, drawn))}"
            + f"; {run} of {wanted} cells have a record" * (run < wanted)
            + "."
        )

    def note(self) -> str:
        """What a reader must know of the checkpoints, for the figure's corner."""
        return f"checkpoint: {self.selection.label}; {self.seeds()}"

    def seeds(self) -> str:
        """How many trainings a line stands for."""
        seeds = len(self.index.grid.seeds)
        return f"mean of {seeds} seeds" if seeds > 1 else "one seed"
