"""What one cell of a grid measured, and under which circumstances: the record that every table is computed from.

A record is written last and atomically, so that its existence means that the cell is done. It holds no host name, user name or
path: records of two machines can be laid side by side and published.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import to_jsonable_python

from results.files import FORMAT, dump, read_model, write_atomically

Split = Literal["val", "test"]
Role = Literal["source-val", "in-domain", "held-out", "cross-dataset"]
Level = Literal["frame", "video"]
Metric = Literal["auc", "acc", "ap", "eer", "log_loss"]

METRICS: tuple[Metric, ...] = ("auc", "acc", "ap", "eer", "log_loss")

# Tuples become lists on construction already, so that a record equals the one that is read back from its file.
Settings = Annotated[dict[str, Any], BeforeValidator(to_jsonable_python)]


class Strict(BaseModel):
    """An unknown key is an error, no number is NaN or infinite, and what is read cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measure(Strict):
    """One evaluation of one checkpoint on one set of faces at one level.

    Attributes:
        epoch: epochs finished when the weights were evaluated, with its fraction (0.5 is half-way through the first).
        step: optimizer steps taken by then.
        split: which part of the data; "val" for the source's validation part.
        test: name of the set, such as "NeuralTextures" or "mini-b".
        role: what the set is to the training data. "source-val" may choose a checkpoint, the others only judge it.
        level: "frame": an example is a frame. "video": an example is a video with the mean score of its frames.
        n_real, n_fake: examples of each class.
        auc, acc, ap, eer: area under the ROC curve, accuracy at 0.5, average precision of the fake class, equal error rate,
            all in [0, 1].
        log_loss: mean cross entropy, nats.
        undefined: metric -> why it is None, such as "only real faces".
    """

    epoch: float = Field(ge=0)
    step: int = Field(ge=0)
    split: Split
    test: str = Field(min_length=1)
    role: Role
    level: Level
    n_real: int = Field(ge=0)
    n_fake: int = Field(ge=0)
    auc: float | None = Field(None, ge=0, le=1)
    acc: float | None = Field(None, ge=0, le=1)
    ap: float | None = Field(None, ge=0, le=1)
    eer: float | None = Field(None, ge=0, le=1)
    log_loss: float | None = Field(None, ge=0)
    undefined: dict[Metric, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _explained(self) -> Measure:
        for metric in METRICS:
            if (self.value(metric) is None) != (metric in self.undefined):
                raise ValueError(f"{metric} must have either a value or a reason in `undefined`")
        if self.role == "source-val" and self.split != "val":
            raise ValueError("a set with the role source-val belongs to the split val")
        return self

    @property
    def n(self) -> int:
        """Examples of both classes together."""
        return self.n_real + self.n_fake

    def value(self, metric: Metric) -> float | None:
        """The metric, or None where it is not defined."""
        found: float | None = getattr(self, metric)
        return found


class DetectorUsed(Strict):
    """The detector as it was built: registry name, what tables call it, and every setting with its value."""

    name: str
    label: str = ""
    settings: Settings = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """What tables call it: the label, else the name."""
        return self.label or self.name


class OptimizerUsed(Strict):
    """The rule as it was built, and the base optimizer that spent its gradient.

    Attributes:
        settings: of the rule, as the cell holds them; None where it leaves a value to the rule.
        built: the values that the rule chose for those, such as ASAM's eta; older records have none.
    """

    name: str
    label: str = ""
    settings: Settings = Field(default_factory=dict)
    built: Settings = Field(default_factory=dict)
    base: str
    base_settings: Settings = Field(default_factory=dict)

    @property
    def used(self) -> dict[str, Any]:
        """Every setting of the rule with the value that it had at work, where the record knows it."""
        return {**self.settings, **self.built}

    @property
    def title(self) -> str:
        """What tables call it: the label, else the name."""
        return self.label or self.name


class Energy(Strict):
    """Energy of a device while a cell ran, everything else that the device did then included; of several processes, the first's.

    Attributes:
        joules: None where no counter can be read.
        source: the counter, such as "NVML, the whole GPU"; where there is none, why.
    """

    joules: float | None = Field(ge=0)
    source: str


class Provenance(Strict):
    """Under which circumstances a record came about; host-independent.

    Attributes:
        version: of this project.
        code: SHA-256 over the Python files that the numbers depend on; names the code also where there is no git or it is dirty.
        plugins: file name -> SHA-256 of each plug-in that was loaded.
        weights: file name -> SHA-256 of the file that the detector's first weights were read from; empty where they are random.
        commit: hash of the checked-out commit, or None outside a git checkout.
        dirty: whether the checkout had uncommitted changes, or None where that is unknown.
        python, platform, cpu: versions and model names as the interpreter reports them.
        device: what computed, such as "cpu" or "NVIDIA A100-SXM4-80GB".
        threads: of torch on the CPU, in each process.
        processes: that shared each step's faces.
        packages: name -> version.
        stores: name of a face store -> its fingerprint.
        faces: name of a face store -> the settings that its faces were made with: mode, switches, size, landmark model.
        deterministic: whether torch was told to use deterministic algorithms only.
        inexact: why the numbers may not repeat to the bit on this machine; empty where they do.
        arithmetic: of a GPU: versions of its libraries and driver, and where fp32 is TensorFloat-32; empty on a CPU.
        started, finished: ISO 8601 in UTC.
        seconds: time spent on the cell, over all its restarts.
        restarts: how often it went on from a checkpoint.
        passes: forward and backward passes of training over a step's faces, as counted: one over a domain's share of the faces
            counts as that share, forward alone a third, a product with the Hessian three; None if unknown.
        examples: faces of all training steps, each counted once a step; None if unknown.
        energy: what the driver's counters say was used; None in records of versions that did not ask.
    """

    version: str
    code: str
    plugins: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)
    commit: str | None
    dirty: bool | None
    python: str
    platform: str
    cpu: str
    device: str
    threads: int = Field(ge=1)
    processes: int = Field(1, ge=1)
    packages: dict[str, str]
    stores: dict[str, str]
    faces: dict[str, Settings] = Field(default_factory=dict)
    deterministic: bool
    inexact: str = ""
    arithmetic: str = ""
    started: AwareDatetime
    finished: AwareDatetime
    seconds: float = Field(ge=0)
    restarts: int = Field(0, ge=0)
    passes: float | None = Field(None, ge=0)
    examples: int | None = Field(None, ge=0)
    energy: Energy | None = None

    @model_validator(mode="after")
    def _times(self) -> Provenance:
        for name, time in (("started", self.started), ("finished", self.finished)):
            if time.utcoffset() != timedelta(0):
                raise ValueError(f"{name} must be in UTC")
        if self.finished < self.started:
            raise ValueError("finished lies before started")
        return self


class DiagnosticRange(Strict):
    """One diagnosed quantity over the run; its values stand in diagnostics.parquet (see `results.diagnostics`).

    Attributes:
        name, domain, other: as there.
        count, finite: values, and those among them that are numbers; the rest of the fields is about these and None without any.
    """

    name: str
    domain: str = ""
    other: str = ""
    count: int = Field(ge=0)
    finite: int = Field(ge=0)
    first: float | None = None
    last: float | None = None
    mean: float | None = None
    lowest: float | None = None
    highest: float | None = None


class Diagnostics(Strict):
    """What the run looked at beside training.

    Attributes:
        schedule: when, and why then, as a phrase.
        looks: at how many steps.
        passes: of one look; forward and backward is one, forward alone a third, over one domain's examples as over the whole batch.
        share: such passes of all looks over those of training: an upper bound of what they cost.
        radii: l2 radii of the sharpness gap.
        ranges: every quantity over the run.
    """

    schedule: str
    looks: int = Field(ge=0)
    passes: float = Field(ge=0)
    share: float = Field(ge=0)
    radii: tuple[float, ...]
    ranges: tuple[DiagnosticRange, ...] = ()


class Record(Strict):
    """Everything that one cell measured.

    Attributes:
        format: `FORMAT`.
        grid, cell: name of the grid, id of the cell.
        detector, optimizer, seed: what was trained.
        protocol: settings of training and evaluation that are neither the detector's, the optimizer's nor the data's.
        data: under "train" the training store, its methods and its splits; under "tests" the same of each test set; under
            "missing" by set ("val" or a test's name) its videos without any face, each as [dataset, method, video, label].
        parameters: trainable parameters of the detector.
        steps: optimizer steps taken.
        measures: every evaluation, in order of time.
        losses: (step, training loss); the loss is None where it was not finite.
        warnings: sentences about what makes the numbers say less than they seem to, such as what rounding left of the shifts.
        diagnostics: gradients and sharpness on the way; None where nobody asked for it, or the run is of a version that could not.
        provenance: under which circumstances.
    """

    format: Literal[1] = FORMAT
    grid: str
    cell: str
    detector: DetectorUsed
    optimizer: OptimizerUsed
    seed: int
    protocol: Settings
    data: Settings
    parameters: int = Field(ge=0)
    steps: int = Field(ge=0)
    measures: tuple[Measure, ...]
    losses: tuple[tuple[int, float | None], ...] = ()
    warnings: tuple[str, ...] = ()
    diagnostics: Diagnostics | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _once(self) -> Record:
        seen = set()
        for m in self.measures:
            key = (m.step, m.split, m.test, m.level)
            if key in seen:
                raise ValueError(f"two measures of {m.test} ({m.split}, {m.level} level) at step {m.step}")
            seen.add(key)
        return self

    def save(self, path: str | Path) -> None:
        """Write the record atomically: a reader sees the whole file or none."""
        write_atomically(path, dump(self))

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read a record.

        Raises:
            RecordError: the file is missing, no JSON, of another format version, or has wrong fields; one sentence.
        """
        record: Record = read_model(cls, path, "record", "run the cell again")
        return record
