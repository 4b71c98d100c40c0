"""The protocol: how a cell is trained, evaluated and reported, as one object of named switches.

Two presets: `strict`, what a measurement should be, and `dfb-compat`, what DeepfakeBench does. Each difference between them is a
switch of its own, which a grid may set on top of a preset: `protocol: {name: dfb-compat, epochs: 5, video_key: full}`. What cannot
or should not be reproduced stands in `benchmark.not_reproduced`, with the reason.

Sources name the row of our survey of DeepfakeBench's code (commit 8a4a7bf, June 2025), which was read or run line by line, and the
file and lines there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from benchmark.precision import Precision

Side = Literal["data", "training", "evaluation", "selection"]


class Strict(BaseModel):
    """An unknown key is an error; what is read cannot be changed afterwards.

    `FIRST` names the fields that the ids of cells have known from the first; any other counts for an id only where it is not at its
    default, so that a field that is added renames no cell that does not use it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    FIRST: ClassVar[frozenset[str]] = frozenset()

    def younger_defaults(self) -> set[str]:
        """Fields that an id leaves out: younger than the first cells, and at their default."""
        fields = type(self).model_fields
        return {name for name, field in fields.items() if name not in self.FIRST and getattr(self, name) == field.default}


@dataclass(frozen=True)
class Switch:
    """One difference between protocols; annotates a field of `Protocol`, whose default is the strict value.

    Attributes:
        peer_value: the value in `dfb-compat`.
        does: what it decides, and what its values mean.
        peer: what DeepfakeBench does.
        row: of our survey, and in brackets the file and lines of DeepfakeBench that do so.
        side: what it acts on. Switches of the sides evaluation and selection can be turned afterwards, from the scores of a run.
    """

    peer_value: Any
    does: str
    peer: str
    row: str
    side: Side


FramePick = Literal["uniform", "first"]


class Protocol(Strict):
    """Everything about training and evaluation that is neither the detector, nor the optimizer, nor the data.

    Written as a mapping, or as the name of a preset where that says everything. All switches are resolved when it is read.
    """

    FIRST: ClassVar[frozenset[str]] = frozenset(
        {
            *("name", "epochs", "batch_size", "micro_batch", "evaluations_per_epoch"),
            *("schedule", "precision", "augment", "clip"),
        }
    )

    name: Literal["strict", "dfb-compat"] = "strict"
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2, description="faces in one step, over all domains")
    micro_batch: int | None = Field(
        None, ge=1, description="at most so many faces in one forward pass, of all processes together; None: the whole step at once"
    )
    evaluations_per_epoch: int = Field(1, ge=1)
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    weights_dtype: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="what passes beside the weights see them in: fp32, or that of `precision`, which rounds small shifts away",
    )
    augment: Annotated[
        Literal["none", "flip", "light", "dfb", "dfb-no-rotation", "pim", "dfb-by-detector"],
        Switch(
            "dfb-by-detector",
            "Changes of the training faces; dfb-by-detector: dfb or none, as DeepfakeBench's settings say of the detector. A cell"
            " and its record hold what that means for it.",
            "On for xception (never rotated), efficientnetb4, resnet34, spsl and ucf; off for the others that we have.",
            "3.4 #8, #9 (its detectors' YAML files, pair_dataset.py:58-59)",
            "training",
        ),
    ] = "none"
    clip: float | None = Field(None, gt=0, allow_inf_nan=False, description="largest l2 norm of the combined gradient")
    diagnostics_every: int | Literal["auto"] = Field(
        "auto",
        description="steps from one look at gradients and sharpness to the next; 0: none; auto: as often as one hundredth of "
        "the time allows, in a short run never. Changes no number that is trained",
    )

    frames: Annotated[
        int | None,
        Field(ge=1),
        Switch(
            32,
            "At most so many faces of each video, for training and testing; none takes all. A data set may say its own.",
            "frame_num 32 for training and testing.",
            "3.4, common numbers (xception.yaml)",
            "evaluation",
        ),
    ] = None
    frame_pick: Annotated[
        FramePick,
        Switch(
            "first",
            "Which faces of a video, where frames limits them: evenly spread, or the first ones. A data set may say its own.",
            "The step is computed after the total was cut to 32, so it is always 1: the first 32, despite 'evenly distributed'.",
            "3.2 #4 (abstract_dataset.py:217-226)",
            "evaluation",
        ),
    ] = "uniform"
    class_balance: Annotated[
        Literal["domains", "none"],
        Switch(
            "none",
            "domains: a step holds as many real and fake faces of each method; none: every face once an epoch, shuffled.",
            "Every frame is a sample, shuffled, without any balance (FaceForensics++: 1 real to 4 fake).",
            "3.4 #6 (abstract_dataset.py:267-273)",
            "data",
        ),
    ] = "domains"
    duplicates: Annotated[
        Literal["drop", "keep"],
        Switch(
            "keep",
            "Without balance: whether real faces are in the training list once (drop), or once for each forgery method (keep).",
            "FF-real is loaded once for each of [FF-DF, FF-F2F, ...]; the name FaceForensics++ loads it once (say drop).",
            "3.4 #7 (its JSON files)",
            "data",
        ),
    ] = "drop"
    epochs_extra: Annotated[
        int,
        Field(ge=0),
        Switch(
            1,
            "So many epochs are added to `epochs`.",
            "nEpochs N trains N + 1 epochs.",
            "3.1 #3 (train.py:300)",
            "training",
        ),
    ] = 0
    evaluation_points: Annotated[
        Literal["even", "dfb"],
        Switch(
            "dfb",
            "even: evaluations_per_epoch times, the last at the epoch's end; dfb: once in the first epoch, then twice in each.",
            "Evaluates at the multiples of len(loader), from epoch 1 on of len(loader) // 2; nEpochs 10: 21 times.",
            "3.1 #3 (trainer.py:221-230, 306)",
            "training",
        ),
    ] = "even"
    schedule_stepping: Annotated[
        Literal["step", "epoch", "never"],
        Switch(
            "never",
            "When the learning rate's schedule moves: after every step, after every epoch, or never (a constant rate).",
            "scheduler.step() stands behind the loop over epochs, so no schedule ever takes effect.",
            "3.1 #4 (train.py:313-314)",
            "training",
        ),
    ] = "step"
    bn_second_pass: Annotated[
        Literal["freeze", "update"],
        Switch(
            "update",
            "Whether passes after a step's first (SAM's second, say) move BatchNorm's running statistics.",
            "disable_running_stats is never called: two updates a step, the second at the shifted weights.",
            "3.4 #1 (trainer.py:184-197)",
            "training",
        ),
    ] = "freeze"
    masks: Annotated[
        Literal["replay", "fresh"],
        Switch(
            "fresh",
            "Whether later passes of a step repeat the random masks of its first (dropout), or draw new ones.",
            "Stochastic layers draw new masks in SAM's second pass.",
            "3.4 #5 (SAM.py:52)",
            "training",
        ),
    ] = "replay"
    weights_home: Annotated[
        Literal["copy", "subtract"],
        Switch(
            "subtract",
            "How shifted weights come back: by a copy of their bits, or by subtracting the shift, which leaves rounding errors.",
            "SAM restores by p.sub_(e_w).",
            "3.4 #5 (SAM.py:52)",
            "training",
        ),
    ] = "copy"
    video_key: Annotated[
        Literal["full", "basename"],
        Switch(
            "basename",
            "What is one video: (dataset, method, video), or all faces under one folder name, whatever their method.",
            "The key is the folder's name: four forgeries of one pair become one 'video', 280 groups instead of 700 on FF++.",
            "3.2 #1 (metrics/utils.py:45)",
            "evaluation",
        ),
    ] = "full"
    mixed_label: Annotated[
        Literal["refuse", "real"],
        Switch(
            "real",
            "A video whose faces disagree about the label: an error, or real as soon as one face is.",
            "int(label_sum / leng): one real face makes the group real.",
            "3.2 #2 (metrics/utils.py:63)",
            "evaluation",
        ),
    ] = "refuse"
    missing_face: Annotated[
        Literal["count", "half"],
        Switch(
            "count",
            "A video without any face: left out and counted in the record, or judged with the score 0.5 at video level.",
            "Such a test video ends the run with an IndexError, so lists without them are the only ones that can be scored.",
            "3.2 #8 (abstract_dataset.py:209)",
            "evaluation",
        ),
    ] = "count"
    eer: Annotated[
        Literal["interpolated", "nearest"],
        Switch(
            "nearest",
            "The equal error rate: interpolated where the two rates cross, or the false positive rate at the nearest point.",
            "fpr at the argmin of |fnr - fpr|, not interpolated.",
            "3.1 #6 (metrics/utils.py:75-93)",
            "evaluation",
        ),
    ] = "interpolated"
    clip_average: Annotated[
        Literal["of_videos", "of_frames"],
        Switch(
            "of_videos",
            "The video level: the mean score of each video, or every scored example by itself, so that video AUC = frame AUC.",
            "For clip detectors v_auc = auc: say of_frames with such a one. Detectors of single faces are averaged, as here.",
            "3.2 #3 (metrics/utils.py:86-91)",
            "evaluation",
        ),
    ] = "of_videos"
    selection: Annotated[
        Literal["source_val", "last", "best_per_test", "top3_per_test"],
        Switch(
            "top3_per_test",
            "Which checkpoint tables report where they are not told; the last two look at the test set to choose (oracles).",
            "The published tables: mean of the three highest test AUCs of each test set.",
            "3.1 #1, #2 (trainer.py:373-388, auc_table1_fromrecord.py:47)",
            "selection",
        ),
    ] = "source_val"

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """What is written, over the preset that it names."""
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping):
            return {**PRESETS.get(str(value.get("name", "strict")), {}), **value}
        return value

    @field_validator("diagnostics_every", mode="before")
    @classmethod
    def _every(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError("must be auto, a number of steps, or 0 for none")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Protocol:
        Precision(self.precision, self.weights_dtype)
        if self.duplicates == "keep" and self.class_balance == "domains":
            raise ValueError("duplicates: keep has no effect with class_balance: domains; say drop, or class_balance: none")
        if self.evaluation_points == "dfb" and self.evaluations_per_epoch != 1:
            raise ValueError("evaluations_per_epoch has no effect with evaluation_points: dfb; leave it out, or say even")
        return self

    @property
    def all_epochs(self) -> int:
        """Epochs that are trained."""
        return self.epochs + self.epochs_extra


SWITCHES: dict[str, Switch] = {
    name: next(m for m in field.metadata if isinstance(m, Switch))
    for name, field in Protocol.model_fields.items()
    if any(isinstance(m, Switch) for m in field.metadata)
}
"""Every switch by its name, in the order of the fields."""

PRESETS: dict[str, dict[str, Any]] = {
    "strict": {},
    "dfb-compat": {"epochs": 10, "batch_size": 32} | {name: switch.peer_value for name, switch in SWITCHES.items()},
}
"""What a preset sets; the rest is at the fields' defaults. `strict` leaves epochs and batch_size to the grid."""


def values_of(name: str) -> tuple[Any, ...]:
    """The values of a switch that is a choice of words; none for a number."""
    annotation = Protocol.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def preset_value(preset: str, name: str) -> Any:
    """What a preset says of a switch."""
    return PRESETS[preset].get(name, Protocol.model_fields[name].default)
