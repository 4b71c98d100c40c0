"""probes/statistics.json: what one cell's accuracy and loss do when channel statistics of its shallow features are changed.

The scores that it was measured from stand beside it in statistics.parquet: columns test, changed ("before" or "after"), dataset,
method, video, frame, key, label, score, a row a face, as in `results.scores`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from results.files import FORMAT, dump, read_model, write_atomically
from results.record import Level, Role, Strict


class StatisticsSettings(Strict):
    """What decides the numbers, beside the weights and the data.

    Attributes:
        mean: factor of every channel's mean.
        variance: factor of its variance.
        batch_size: faces that go through the detector together; changes rounding alone.
    """

    mean: float = 1.2
    variance: float = Field(0.65, ge=0)
    batch_size: int = Field(64, ge=1)


class Effect(Strict):
    """One test set, or the real faces and one forgery of it.

    Attributes:
        test, role: as in `Measure`.
        method: of the fake faces; "" for all that the set has.
        level: "frame", or "video" as the cell's protocol defines one.
        n_real, n_fake: examples of that level.
        acc_before, acc_after: accuracy at 0.5, in [0, 1].
        log_loss_before, log_loss_after: mean cross entropy, nats.
    """

    test: str
    role: Role
    method: str = ""
    level: Level = "frame"
    n_real: int = Field(ge=0)
    n_fake: int = Field(ge=0)
    acc_before: float = Field(ge=0, le=1)
    acc_after: float = Field(ge=0, le=1)
    log_loss_before: float = Field(ge=0)
    log_loss_after: float = Field(ge=0)


class StatisticsReport(Strict):
    """What `dfgrid probe statistics` found in one cell.

    Attributes:
        cell, detector, optimizer, seed, step: whose weights, and after how many steps.
        checkpoint: SHA-256 of the file.
        code: SHA-256 over the Python files that the numbers depend on.
        stores: name of each face store -> its fingerprint.
        device: what computed.
        modules: whose output was changed.
        settings: of the probe.
        effects: of each test set, and of each forgery in it.
        scores: SHA-256 of the scores' file; "" where an older version kept none.
    """

    format: Literal[1] = FORMAT
    cell: str
    detector: str
    optimizer: str
    seed: int
    step: int = Field(ge=0)
    checkpoint: str
    code: str
    stores: dict[str, str]
    device: str
    modules: tuple[str, ...]
    settings: StatisticsSettings
    effects: tuple[Effect, ...]
    scores: str = ""

    def effect(self, test: str, level: Level) -> Effect | None:
        """What a whole test set did; None where it was not probed at that level."""
        of = [e for e in self.effects if (e.test, e.level) == (test, level)]
        return next((e for e in of if not e.method), of[0] if len(of) == 1 else None)

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        write_atomically(path, dump(self))

    @classmethod
    def load(cls, path: str | Path) -> StatisticsReport:
        """Read the file.

        Raises:
            RecordError: missing, no JSON, of another format version, or with wrong fields; one sentence.
        """
        report: StatisticsReport = read_model(cls, path, "statistics report", "run `dfgrid probe statistics` again")
        return report
