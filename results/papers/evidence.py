"""What is behind the measured cells of a paper's table: values by seed, the trail of each, and what they do not share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results.files import RecordError
from results.index import GridIndex
from results.papers.layout import PaperTable, Where
from results.probed import Probed
from results.record import Record
from results.resampled import Drawn, Resampled
from results.selection import selection_named
from results.tidy import protocol_label, tidy


class Evidence:
    """The records of a grid, asked cell by cell.

    Args:
        layout: the table that they fill.
        index: the grid's records.
        selection: key of `SELECTIONS`.

    Raises:
        RecordError: no such selection.
    """

    def __init__(self, layout: PaperTable, index: GridIndex, selection: str) -> None:
        self.layout, self.index, self.selection = layout, index, selection_named(selection)
        self.resampled = Resampled(index, selection)
        self._probed = Probed(index, self.resampled)
        self._protocols: dict[str, Mapping[str, Any]] = {protocol_label(r): r.protocol for r in index.records.values()}
        self._found: dict[Where, list[tuple[int, float | None, str, str]]] = {}
        columns = ("part", "detector", "optimizer", "test", "level", "metric", "seed", "value", "reason", "cell")
        for *where, seed, value, reason, cell in tidy(index, selection)[list(columns)].itertuples(index=False, name=None):
            self._found.setdefault(Where(*where), []).append((int(seed), None if reason else float(value), reason, cell))

    @property
    def command(self) -> str:
        """What fills the table's grid."""
        return self.layout.command(mini=self.index.grid.name == self.layout.folder(mini=True))

    def _seeds(self, where: Where) -> list[tuple[int, float | None, str, str]]:
        """(seed, value, reason why there is none, cell)."""
        if not where.changed:
            return self._found.get(where, [])
        found: list[tuple[int, float | None, str, str]] = []
        for c in self.index.grid.cells:
            if (c.part, c.detector, c.optimizer) == (where.part, where.detector, where.optimizer):
                try:
                    value = self._probed.number(c.id, where.test, where.level, where.metric, where.changed)
                    found.append((c.seed, value, "", c.id))
                except RecordError as error:
                    found.append((c.seed, None, str(error), c.id))
        return found

    def drawn(self, where: Where) -> dict[int, Drawn | str]:
        """Seed -> the number with its bootstrap draws, for every seed that has a number; or why there are no draws."""
        found: dict[int, Drawn | str] = {}
        for seed, value, _, cell in self._seeds(where):
            if value is None:
                continue
            try:
                if where.changed:
                    found[seed] = self._probed.drawn(cell, where.test, where.level, where.metric, where.changed)
                else:
                    found[seed] = self.resampled.of(cell, where.test, where.level, where.metric)
            except RecordError as error:
                found[seed] = str(error)
        return found

    def of(self, where: Where) -> tuple[dict[int, float], list[str], str]:
        """Values by seed (in the metric's own unit), the notes that belong to them, and the label of their protocol.

        Without values the notes are the reasons.
        """
        found = self._seeds(where)
        if not found:
            return {}, [f"not in the grid {self.index.grid.name}"], ""
        values = {seed: value for seed, value, _, _ in found if value is not None}
        reasons: dict[str, list[str]] = {}
        for seed, _, reason, _ in found:
            if reason:
                reasons.setdefault(reason, []).append(str(seed))
        lacking = "; ".join(f"seed {', '.join(seeds)}: {reason}" for reason, seeds in reasons.items())
        if not values:
            return {}, [next(iter(reasons)) if len(reasons) == 1 else lacking], ""
        cells = [cell for _, value, _, cell in found if value is not None]
        records = [self.index.records[cell] for cell in cells]
        notes = [self._behind(records, sorted(values))]
        if where.changed:
            notes += dict.fromkeys(self._probed.behind(cell) for cell in cells)
            notes += filter(None, dict.fromkeys(self._probed.otherwise(cell) for cell in cells))
        if lacking:
            notes.append(f"over {len(values)} of {len(found)} seeds; {lacking}")
        labels = sorted({protocol_label(r) for r in records})
        return values, notes, " and ".join(labels)

    def _behind(self, records: list[Record], seeds: list[int]) -> str:
        """The trail of one cell: protocol, selection rule, seeds, stores, commit."""
        protocols = ", ".join(sorted({protocol_label(r) for r in records}))
        prints = {f"{name} {print_[:12]}" for r in records for name, print_ in r.provenance.stores.items()}
        commits = ", ".join(sorted({_commit(r) for r in records}))
        return (
            f"protocol {protocols}; checkpoint {self.selection.label}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; "
            f"stores {', '.join(sorted(prints))}; {commits}"
        )

    def differing(self, label: str, most: str) -> str:
        """The note of a cell whose protocol is another than that of most cells."""
        one, other = self._protocols.get(label), self._protocols.get(most)
        if one is None or other is None:
            return f"DIFFERENT PROTOCOL: {label}, most of this table {most}"
        keys = [key for key in {**other, **one} if one.get(key) != other.get(key)]
        said = ", ".join(f"{key} {_short(one.get(key))} instead of {_short(other.get(key))}" for key in keys)
        return f"DIFFERENT PROTOCOL than most of this table: {said}"

    def trail(self, mode: str, emphasis: list[str]) -> list[str]:
        """Sentences beneath the table; `emphasis` says what is bold."""
        layout, index = self.layout, self.index
        found = [f"Layout of {layout.source}."]
        if mode == "beside":
            found.append("In brackets: measured minus reported, both as printed.")
        found += filter(None, [layout.remark])
        records = list(index.records.values())
        found.append(f"Checkpoint: {self.selection.name}, {self.selection.sentence}.")
        seeds = index.grid.seeds
        spread = "so nothing is known about the spread" if len(seeds) == 1 else "mean ± sample standard deviation"
        found.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))}), {spread}.")
        found += emphasis
        found.append(f"Records: {len(records)} of {len({c.id for c in index.grid.cells})} cells of grid '{index.grid.name}'.")
        if not records:
            found.append(f"No cell has a record yet; run `{self.command}`.")
        stand_ins = {r.detector.title: f"{r.detector.name} {_settings(r.detector.settings)}" for r in records}
        if stand_ins:
            found.append(f"Detectors: {'; '.join(f'{title} is {what}' for title, what in stand_ins.items())}.")
        found += [f"Warning: {sentence}." for sentence in dict.fromkeys(s for r in records for s in r.warnings)]
        return found


def _commit(record: Record) -> str:
    p = record.provenance
    state = " with uncommitted changes" if p.dirty else ""
    return f"commit {p.commit[:10]}{state}" if p.commit else f"code {p.code[:12]}, outside a git checkout"


def _settings(settings: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{key} {_short(value)}' for key, value in settings.items())})" if settings else ""


def _short(value: Any) -> str:
    return "none" if value is None else str(value)
