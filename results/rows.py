"""A row of a table under one detector is one method: its cells differ in the seed, and in nothing else that is set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from results.files import RecordError
from results.record import Record
from results.settings import flat_settings

SHOWN = 3
PUBLISHED = ("none", "imagenet", "pretrained")
"""Settings `weights` that name no file, as `detectors.weights` has them, which this room does not know."""

METHOD = ("detector.", "optimizer.", "base.")
"""How the settings begin that no sentence beneath a table counts by cells, as it does those of protocol and data."""


class MixedRow(RecordError):
    """Cells of which a table would take the mean though they are no seeds of one setting."""


def cell_settings(
    detector: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    base: Mapping[str, Any],
    protocol: Mapping[str, Any],
    train: Mapping[str, Any],
    tests: Iterable[Mapping[str, Any]],
    stores: Mapping[str, str],
) -> dict[str, str]:
    """What is set of a cell beside its seed, as `optimizer.rho` -> text.

    Args:
        detector, optimizer, base: their settings, the `name` among them; a file of first weights by its hash.
        protocol, train, tests: as a record has them.
        stores: name -> fingerprint. A store goes by its content, wherever a machine keeps it.
    """
    groups = {"detector": detector, "optimizer": optimizer, "base": base, "protocol": protocol, "train": train}
    named = {str(test.get("name", number)): test for number, test in enumerate(tests)}
    found = flat_settings({**groups, "tests": named})
    return {
        key: (stores[value][:12] if value in stores else value) if key.endswith(".store") else value for key, value in found.items()
    }


def settings_of(record: Record) -> dict[str, str]:
    """The same of a record."""
    used, rule = record.detector, record.optimizer
    settings = {"name": used.name, **used.settings}
    if settings.get("weights", "none") not in PUBLISHED:
        # The path says where a machine keeps the file. Records of before its hash was taken do not say which it is.
        del settings["weights"]
        settings |= [("weights", digest[:12]) for digest in record.provenance.weights.values()]  # none or one
    return cell_settings(
        settings,
        {"name": rule.name, **rule.settings},
        {"name": rule.base, **rule.base_settings},
        record.protocol,
        record.data.get("train") or {},
        record.data.get("tests") or (),
        record.provenance.stores,
    )


def what_differs(there: Mapping[str, str], here: Mapping[str, str], beginnings: tuple[str, ...] = ("",)) -> str:
    """In words, the first of what both set, and set differently; empty where nothing is.

    What one of them lacks is a setting that its version did not have.
    """
    keys = [key for key, value in here.items() if key.startswith(beginnings) and not _same(there.get(key, value), value)]
    return in_words(keys, there, here)


def in_words(keys: Sequence[str], there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """`rho is 0.05 there and 0.5 here, lr is not there there and 0.1 here, and 2 more`; empty without keys."""
    told = [f"{key} is {there.get(key, 'not there')} there and {here.get(key, 'not there')} here" for key in keys[:SHOWN]]
    return ", ".join(told) + (f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _same(a: str, b: str) -> bool:
    """`1` and `1.0` are one setting."""
    try:
        return a == b or float(a) == float(b)
    except ValueError:
        return False


def check_rows(rows: Iterable[tuple[tuple[str, ...], str, Record]], beginnings: tuple[str, ...] = ("",)) -> None:
    """Refuse cells of which a table would take the mean though they are not of one setting.

    Args:
        rows: of each cell the row that it belongs to (part, detector and optimizer, as tables call them), where it lies, and
            its record.
        beginnings: of the settings that are compared.

    Raises:
        MixedRow: names the two cells and what differs.
    """
    first: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
    for row, place, record in rows:
        settings = settings_of(record)
        where, known = first.setdefault(row, (place, settings))
        if found := what_differs(known, settings, beginnings):
            raise MixedRow(
                f"{where} and {place} would be seeds of one row, {record.optimizer.title} on {record.detector.title}, and are not "
                f"of one setting: {found}; keep them apart, in grids of two names or in two folders of runs"
            )
