"""The papers' numbers that belong beside measured ones: those of the same detector or optimizer, training and test set."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from results.record import Record
from results.reported import reported

FORGERIES = {"DF": "deepfakes", "F2F": "face2face", "FS": "faceswap", "NT": "neuraltextures"}
ALL = frozenset(FORGERIES.values())

# A test set's name without case, blanks and punctuation -> the data set.
SETS = {
    **{name: name for name in ALL},
    **{short.lower(): name for short, name in FORGERIES.items()},
    **{f"ff{short.lower()}": name for short, name in FORGERIES.items()},
    **dict.fromkeys(("celebdfv1", "cdfv1"), "celebdfv1"),
    **dict.fromkeys(("celebdfv2", "cdfv2", "celebdf", "cdf"), "celebdfv2"),
    **dict.fromkeys(("dfd", "deepfakedetection"), "dfd"),
    **dict.fromkeys(("df10", "deeperforensics10", "deeperforensics"), "deeperforensics"),
    **dict.fromkeys(("wdf", "wilddeepfake"), "wilddeepfake"),
    **dict.fromkeys(("fsh", "faceshifter"), "faceshifter"),
    **dict.fromkeys(("dfdcp", "dfdcpreview"), "dfdcp"),
    **{name: name for name in ("uadfv", "dfdc")},
    **dict.fromkeys(("ffc23", "faceforensicsc23", "ff", "faceforensics"), "ffc23"),
    **dict.fromkeys(("ffc40", "faceforensicsc40"), "ffc40"),
}

DETECTORS = {
    "Meso4": ("meso4", "dfb-meso4"),
    "MesoIncep": ("mesoinception4", "dfb-mesoinception4"),
    "Xception": ("xception",),
    "XceptionNet": ("xception",),
    "EfficientB4": ("efficientnet_b4", "dfb-efficientnet_b4"),
    "EfficientNet": ("efficientnet_b4", "dfb-efficientnet_b4"),
    "EfficientNet-b4": ("efficientnet_b4", "dfb-efficientnet_b4"),
    "ResNet34": ("resnet34",),
    "ResNet-50": ("resnet50",),
    "ConvNeXt-base": ("convnext_base",),
    **{name: (name.lower(), f"dfb-{name.lower()}") for name in ("SPSL", "SRM", "CORE", "Recce", "F3Net")},
    "UCF": ("ucf",),
}
OPTIMIZERS = {"Adam": "adam", "SGD": "sgd", "SAM": "sam", "SAGM": "sagm", "Ours(RoGA)": "roga"}


Numbers = dict[tuple[frozenset[str], str, str], str]
"""(Training forgeries, test set, metric) -> percent, with every printed digit."""


@dataclass(frozen=True)
class Printed:
    """A row of a published table.

    Attributes:
        source: paper and table.
        detector, optimizer: as printed; empty where the paper names none.
        detectors: registry names that the printed detector stands for; empty: any.
        rule: registry name of the optimizer; empty: any.
        level: at which the paper measured; empty where this project has not established it.
        numbers: of the row.
    """

    source: str
    detector: str
    optimizer: str
    detectors: tuple[str, ...] = ()
    rule: str = ""
    level: str = ""
    numbers: Numbers = field(default_factory=dict)


def plain(name: str) -> str:
    """A name without case, blanks and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def percent(text: str, fraction: bool) -> str:
    """Printed digits as a percentage: 0.6077 -> 60.77, 0.736 -> 73.6."""
    return str(Decimal(text).scaleb(2)) if fraction else text


def _numbers(row: Mapping[Hashable, Any], columns: Iterable[Hashable], fraction: bool, trained: frozenset[str] = ALL) -> Numbers:
    found = {}
    for column in columns:
        text, test = str(row[column]), SETS.get(plain(str(column)), "")
        if text and test:
            found[trained, test, "auc"] = percent(text, fraction)
    return found


def printed_rows() -> Iterator[Printed]:
    """Every published row that can stand beside a measured one."""
    for row in reported("deepfakebench_table").to_dict("records"):
        if row["detector"] in DETECTORS:
            numbers = _numbers(row, list(row)[3:], True)
            yield Printed("DeepfakeBench", row["detector"], "", DETECTORS[row["detector"]], level="frame", numbers=numbers)
    for row in reported("roga_table1").to_dict("records"):
        numbers = _numbers(row, list(row)[3:], True)
        if row["category"] == "Ours(RoGA)":
            yield Printed("RoGA, table I", row["method"], "RoGA", DETECTORS[row["method"]], "roga", numbers=numbers)
        elif row["method"] in DETECTORS:
            yield Printed("RoGA, table I", row["method"], "", DETECTORS[row["method"]], numbers=numbers)
    yield from _roga_optimizers()
    for row in reported("roga_table5").to_dict("records"):
        ours = row["+Ours"] == "yes"
        words = "RoGA" if ours else "without RoGA"
        numbers = _numbers(row, list(row)[2:], False)
        yield Printed("RoGA, table V", row["backbone"], words, DETECTORS[row["backbone"]], "roga" if ours else "", numbers=numbers)
    for row in reported("pim_table1").to_dict("records"):
        trained = frozenset({FORGERIES[row["train"]]})
        yield Printed("PIM, table 1", "", "", numbers=_numbers(row, list(FORGERIES), True, trained))
    for row in reported("pim_table4").to_dict("records"):
        ours = row["+PIM"] == "yes"
        words = f"{'PIM' if ours else 'without PIM'}, {row['augmentation']} augmentation"
        numbers = _numbers(row, list(row)[3:], False)
        yield Printed("PIM, table 4", row["backbone"], words, DETECTORS[row["backbone"]], "pim" if ours else "", numbers=numbers)


def _roga_optimizers() -> Iterator[Printed]:
    for row in reported("roga_table4").to_dict("records"):
        found = {}
        for metric in ("AUC", "ACC"):
            found[ALL - {"deepfakes"}, "deepfakes", metric.lower()] = row[f"DF {metric} (train FS,F2F,NT)"]
            found[ALL, "uadfv", metric.lower()] = row[f"UADFV {metric} (train FF++)"]
        yield Printed("RoGA, table IV", "", row["optimizer"], rule=OPTIMIZERS[row["optimizer"]], numbers=found)
    row = next(r for r in reported("roga_table2").to_dict("records") if r["method"] == "Ours(RoGA)")
    held = {
        (ALL - {name}, name, metric.lower()): str(row[f"GID-{short} {metric}"])
        for short, name in FORGERIES.items()
        for metric in ("AUC", "ACC")
    }
    yield Printed("RoGA, table II", "", row["method"], rule="roga", numbers=held)


def rows(measured: Iterable[tuple[int, Record, Mapping[str, int]]]) -> list[dict[str, Any]]:
    """The published rows that match something measured, for the leaderboard.

    A number matches where a record has the same detector and optimizer (as far as the paper names them), was trained on the same
    forgeries and tested on a set of the same name.

    Args:
        measured: of each record the cell's place in the leaderboard's data, the record, and its test sets with their columns.

    Returns:
        "v": column -> metric -> digits; "cells": places of the cells that a row matches.
    """
    seen: dict[tuple[str, str, frozenset[str], str], set[tuple[int, int]]] = {}
    for place, record, columns in measured:
        trained = frozenset(plain(m) for m in record.data.get("train", {}).get("methods", ()))
        for test, column in columns.items():
            key = (record.detector.name, record.optimizer.name, trained, SETS.get(plain(test), ""))
            seen.setdefault(key, set()).add((place, column))
    found = []
    for printed in printed_rows():
        numbers: dict[int, dict[str, str]] = {}
        cells: set[int] = set()
        for (trained, test, metric), text in printed.numbers.items():
            for (detector, rule, on, name), at in seen.items():
                fits = (not printed.detectors or detector in printed.detectors) and (not printed.rule or rule == printed.rule)
                if fits and on == trained and name == test:
                    for place, column in at:
                        numbers.setdefault(column, {})[metric] = text
                        cells.add(place)
        if numbers:
            names = {"source": printed.source, "d": printed.detector, "o": printed.optimizer, "level": printed.level}
            found.append({**names, "v": numbers, "cells": sorted(cells)})
    return found
