"""What a grid names: a detector, an optimizer, the faces that a cell is trained on, and those that it is tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from benchmark.protocol import FramePick, Strict

NO_SPLIT = "none"
"""The split of every face of a dataset that ships no splits; training on it is warned about."""

SBI = "SBI"
"""The one method, and so the one domain, of training on self-blended images."""


class Named(BaseModel):
    """A registry name with settings: `meso4`, or `{name: meso4, size: 64}`. Settings are checked against the registry."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def from_name(cls, value: Any) -> Any:
        """A bare word is a name without settings."""
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the fields of this class: what goes to the registry's `build`."""
        return dict(self.__pydantic_extra__ or {})


class DetectorSpec(Named):
    """A detector and its settings. `bases` holds settings of base optimizers for this detector alone (a learning rate, say)."""

    label: str = ""
    bases: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def without_weights(self) -> dict[str, Any]:
        """The settings of the same detector that reads no file of first weights."""
        return self.settings | ({"weights": "none"} if "weights" in self.settings else {})

    @property
    def weights_file(self) -> Path | None:
        """The user's own file of first weights that the settings name; see `detectors.weights.local_file`."""
        from detectors.weights import local_file  # it brings torch, for which a listing of commands does not wait

        return local_file(self.settings.get("weights", "none"))

    def with_weights_file(self, file: Path) -> DetectorSpec:
        """The same detector from a file that lies elsewhere."""
        from detectors.weights import with_file

        return self.model_copy(update={"weights": with_file(self.settings["weights"], file)})

    @property
    def title(self) -> str:
        """What tables and cell names call it: the label, else the name."""
        return self.label or self.name


class OptimizerSpec(Named):
    """A rule, its settings, and the base optimizer that spends its gradient (a name, or a name with settings)."""

    label: str = ""
    base: str | dict[str, Any] | None = None

    @field_validator("base", mode="before")
    @classmethod
    def _base(cls, value: Any) -> Any:
        if value is None or isinstance(value, str | dict):
            return value
        raise ValueError("must be a name, or {name: adam, lr: ...}")

    @property
    def title(self) -> str:
        """What tables and cell names call it: the label, else the name."""
        return self.label or self.name


class TrainData(Strict):
    """Where training and validation faces come from. `frames` and `frame_pick` are the protocol's unless they are said here."""

    FIRST: ClassVar[frozenset[str]] = frozenset({"store", "methods", "frames", "train_split", "val_split"})

    store: str = Field(description="path of a store; relative to the data folder (--data)")
    source: Literal["forgeries", "sbi"] = Field(
        "forgeries",
        description="of the fakes: the store's forgeries, or self-blended images made of its real faces while training, where"
        " `methods` is left out",
    )
    methods: tuple[str, ...] = Field(
        min_length=1, description="forgery methods; each is one domain; real faces always belong to it"
    )
    frames: int | None = Field(None, ge=1, description="at most so many faces of each video; None takes all")
    frame_pick: FramePick = "uniform"
    train_split: str = "train"
    val_split: str = "val"

    @model_validator(mode="before")
    @classmethod
    def _blended(cls, value: Any) -> Any:
        """Self-blended images are a domain of their own."""
        if not isinstance(value, dict) or value.get("source") != "sbi":
            return value
        if tuple(value.get("methods") or (SBI,)) != (SBI,):
            raise ValueError(
                "methods: with source sbi the fakes are made of real faces, not taken from a method; leave methods out"
            )
        return {**value, "methods": (SBI,)}


class TestSet(Strict):
    """A set of faces that the weights of every evaluation point are judged by; `frames` and `frame_pick` as in `TrainData`."""

    __test__ = False  # not a test class, whatever pytest thinks of its name
    FIRST: ClassVar[frozenset[str]] = frozenset({"name", "store", "methods", "split", "role", "frames"})
    name: str = Field(min_length=1)
    store: str
    methods: tuple[str, ...] | None = Field(
        None, min_length=1, description="forgery methods; None takes every one that the store has"
    )
    split: str = "test"
    role: Literal["in-domain", "held-out", "cross-dataset"]
    frames: int | None = Field(None, ge=1)
    frame_pick: FramePick = "uniform"
