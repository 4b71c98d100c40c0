"""probes/sharpness.json: how flat the loss is around one cell's trained weights, on source and target data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from results.files import FORMAT, dump, read_model, write_atomically
from results.record import Role, Strict


class ProbeSettings(Strict):
    """What decides the numbers, beside the weights and the data.

    Attributes:
        radii: l2 radii over all weights together, rising.
        steps: of the projected ascent.
        directions: random ones.
        faces: at most so many of each set, half of them real where there are enough.
        seed: chooses the faces, the random directions and where the Lanczos iteration starts.
        batch_size: faces that go through the detector together; changes rounding alone.
        tolerance: relative accuracy of the eigenvalue.
        iterations: restarts of the Lanczos iteration at most.
    """

    radii: tuple[float, ...] = Field((0.01, 0.05, 0.1), min_length=1)
    steps: int = Field(5, ge=1)
    directions: int = Field(5, ge=1)
    faces: int = Field(256, ge=2)
    seed: int = Field(0, ge=0)
    batch_size: int = Field(64, ge=1)
    tolerance: float = Field(1e-3, gt=0)
    iterations: int = Field(100, ge=1)


class Rise(Strict):
    """Rises of the loss at one radius; `benchmark.sharpness.Sharpness` says what each is. None: not a finite number."""

    radius: float
    one_step: float | None
    worst: float | None
    average: float | None
    deviation: float | None
    adaptive: float | None


class ProbedSet(Strict):
    """One set of faces.

    Attributes:
        name: "train", "val", or the test's name, which may be "train" as well: the role tells them apart.
        role: what it is to the training data.
        store: that the faces are of.
        n_real, n_fake: faces.
        keys: SHA-256 over the faces' keys in their store, in order.
        loss: mean loss at the weights; None where it is not finite.
        rises: a radius each.
        eigenvalue, residual, products: the Hessian's largest eigenvalue, how far at most from one, and what it took in
            Hessian-vector products; None where the iteration did not reach its tolerance.
    """

    name: str
    role: Role | Literal["source-train"]
    store: str
    n_real: int = Field(ge=0)
    n_fake: int = Field(ge=0)
    keys: str
    loss: float | None
    rises: tuple[Rise, ...]
    eigenvalue: float | None
    residual: float | None
    products: int = Field(ge=0)

    def rise(self, radius: float) -> Rise:
        """The rise at the probed radius nearest to `radius`."""
        return min(self.rises, key=lambda r: abs(r.radius - radius))


class SharpnessReport(Strict):
    """What `dfgrid probe sharpness` found in one cell.

    Attributes:
        cell, detector, optimizer, seed, step: whose weights, and after how many steps.
        checkpoint: SHA-256 of the file.
        code: SHA-256 over the Python files that the numbers depend on.
        stores: name of each face store -> its fingerprint.
        device, threads: what computed.
        mode: "eval": BatchNorm by its running statistics, no dropout, no augmentation, float32.
        settings: of the probe.
        sets: source first.
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
    threads: int = Field(ge=1)
    mode: Literal["eval"] = "eval"
    settings: ProbeSettings
    sets: tuple[ProbedSet, ...]

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        write_atomically(path, dump(self))

    @classmethod
    def load(cls, path: str | Path) -> SharpnessReport:
        """Read the file.

        Raises:
            RecordError: missing, no JSON, of another format version, or with wrong fields; one sentence.
        """
        report: SharpnessReport = read_model(cls, path, "sharpness report", "run `dfgrid probe sharpness` again")
        return report
