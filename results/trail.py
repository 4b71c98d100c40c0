"""The sentences beneath a table: what was measured, how, on which data, by which code, and where its cells differ in that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from results.index import GridIndex, run_command
from results.record import Level, Measure, Metric, OptimizerUsed, Provenance, Record
from results.selection import Selection
from results.settings import flat_settings, settings_in_words


def trail(
    index: GridIndex,
    selection: Selection,
    shown: Collection[tuple[str, Level]],
    metrics: Collection[Metric],
    bold: str = "bold: best of its column",
) -> list[str]:
    """Sentences beneath a table of this grid.

    Args:
        index: the grid.
        selection: the rule that chose the checkpoints.
        shown: (test set, level) of the table's columns.
        metrics: the metrics that the table shows.
        bold: what bold means, and where nothing is.
    """
    records = list(index.records.values())
    checkpoint = f"Checkpoint: {selection.name}, {selection.sentence}."
    short = [len({m.step for m in r.measures if m.role != "source-val"}) for r in records]
    if min(short, default=selection.evaluations) < selection.evaluations:
        checkpoint += f" Some cells have only {min(short)} evaluation{'s' * (min(short) != 1)}: theirs is the mean of those."
    if not records:
        return [
            f"No cell of grid '{index.grid.name}' has a record yet; run `{run_command(index.grid.name)}` to measure.",
            checkpoint,
        ]
    provenances = [r.provenance for r in records]
    return [
        _numbers(index.grid.seeds, metrics, bold),
        checkpoint,
        f"Records: {len(records)} of {len(index.grid.cells)} cell{'s' * (len(index.grid.cells) != 1)}.",
        _settings("Protocol", [r.protocol for r in records]),
        _methods("Detectors", {r.detector.title: settings_in_words(_without_folders(r.detector.settings)) for r in records}),
        _methods("Optimizers", {r.optimizer.title: _spent(r.optimizer) for r in records}),
        _settings("Training data", [r.data.get("train", {}) for r in records]),
        _examples(records, shown),
        *_differences("Test data", [{"tests": r.data.get("tests", [])} for r in records]),
        _stores(provenances),
        *_weights(provenances),
        *(f"Warning: {sentence}." for sentence in dict.fromkeys(sentence for r in records for sentence in r.warnings)),
        _settings("Code", [_code(p) for p in provenances]),
        _settings("Machine", [_machine(p) for p in provenances]),
    ]


def _numbers(seeds: list[int], metrics: Collection[Metric], bold: str) -> str:
    """Units, spread, and what bold means."""
    units = "Percentages, but log loss in nats" if "log_loss" in metrics else "Percentages"
    if len(seeds) > 1:
        over = f"mean ± sample standard deviation over the {len(seeds)} seeds {', '.join(map(str, seeds))}"
    else:
        over = f"one seed ({seeds[0]}), so nothing is known about the spread"
    low = ", ".join(name for metric, name in (("eer", "EER"), ("log_loss", "log loss")) if metric in metrics)
    best = bold.replace("best of its column", f"best of its column (lowest for {low})") if low else bold
    return f"{units}; {over}; {best}."


def _counted(values: Iterable[str]) -> str:
    """`a (12 cells), b (6 cells)`."""
    return ", ".join(f"{value} ({count} cell{'s' * (count > 1)})" for value, count in Counter(values).items())


def _differences(title: str, settings: list[Mapping[str, Any]]) -> list[str]:
    """The sentence of `_settings` where cells differ, else nothing."""
    flats = [flat_settings(s) for s in settings]
    return [_settings(title, settings)] if any(flat != flats[0] for flat in flats) else []


def _settings(title: str, settings: list[Mapping[str, Any]]) -> str:
    """The settings that all cells share, and those in which they differ, with the number of cells for each value."""
    flats = [flat_settings(s) for s in settings]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    columns = {key: [flat.get(key, "not set") for flat in flats] for key in keys}
    same = ", ".join(f"{key} {values[0]}" for key, values in columns.items() if len(set(values)) == 1)
    differing = [f"{key}: {_counted(values)}" for key, values in columns.items() if len(set(values)) > 1]
    if not differing:
        return f"{title}: {same}."
    return f"{title} DIFFERS between the cells of this table in {'; '.join(differing)}. Alike in all: {same or 'nothing'}."


def _methods(title: str, settings: Mapping[str, str]) -> str:
    """Each row's or column's own settings, by what the table calls it; its cells do not differ in them (`results.rows`)."""
    return f"{title}: {'; '.join(f'{name}: {words}' if words else name for name, words in settings.items())}."


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where a file of first weights lies on one machine is nothing to publish; its name and hash are in a sentence of their own."""
    return {key: str(value).rsplit("/", 1)[-1] if key == "weights" else value for key, value in settings.items()}


def _spent(used: OptimizerUsed) -> str:
    """A rule's settings, and those of the base optimizer that spends its gradient, which may be the rule itself."""
    base = settings_in_words(used.base_settings)
    return ", ".join(filter(None, (settings_in_words(used.used), base if used.base == used.name else f"base {used.base} {base}")))


def _examples(records: list[Record], shown: Collection[tuple[str, Level]]) -> str:
    """How many examples are behind each column."""
    sizes: dict[tuple[str, Level], Counter[str]] = {}
    for record in records:
        latest: dict[tuple[str, Level], Measure] = {(m.test, m.level): m for m in record.measures if m.role != "source-val"}
        for key, m in latest.items():
            sizes.setdefault(key, Counter())[f"{m.n_real} real + {m.n_fake} fake {m.level}s"] += 1
    texts: dict[str, list[str]] = {}
    for (test, level), counts in sizes.items():
        if (test, level) in shown:
            texts.setdefault(test, []).append(next(iter(counts)) if len(counts) == 1 else f"DIFFERS: {_counted(counts.elements())}")
    sentence = "; ".join(f"{test} {', '.join(of)}" for test, of in texts.items())
    return f"Test sets: {sentence or 'none of those shown was evaluated'}."


def _stores(provenances: list[Provenance]) -> str:
    """Short fingerprints of the face stores; more than one where a store changed between cells."""
    found: dict[str, Counter[str]] = {}
    for p in provenances:
        for name, fingerprint in p.stores.items():
            found.setdefault(name, Counter())[fingerprint[:12]] += 1
    texts = [f"{name} {next(iter(c)) if len(c) == 1 else 'DIFFERS: ' + _counted(c.elements())}" for name, c in found.items()]
    return f"Face stores (fingerprints): {', '.join(texts) or 'none named'}."


def _weights(provenances: list[Provenance]) -> list[str]:
    """The sentence about the files that detectors began from; none where all began at random."""
    files = [f"{name} {digest[:12]}" for p in provenances for name, digest in p.weights.items()]
    return [f"First weights (SHA-256): {_counted(files)}; at random elsewhere."] if files else []


def _code(p: Provenance) -> dict[str, Any]:
    """Version, commit, whether the checkout was clean, and the hash that names the code where it was not."""
    state = {None: " (unknown whether changed)", True: " + uncommitted changes", False: ""}[p.dirty]
    commit = f"at commit {p.commit[:10]}{state}" if p.commit is not None else "outside a git checkout"
    plugins = {f"plug-in {name}": digest[:12] for name, digest in p.plugins.items()}
    return {"deepfake-grid": f"{p.version} {commit}", "code hash": p.code[:12], **plugins}


def _machine(p: Provenance) -> dict[str, str]:
    """What computed, as far as it can move a number."""
    torch = {"torch": p.packages["torch"]} if "torch" in p.packages else {}
    return {
        "device": p.device,
        **({"arithmetic": p.arithmetic} if p.arithmetic else {}),
        "cpu": p.cpu,
        "python": p.python,
        **torch,
        "deterministic algorithms": "yes" if p.deterministic else "no",
    }
