"""What DeepfakeBench does and `dfb-compat` does not, each with its reason; rows as in `benchmark.protocol`."""

from __future__ import annotations

NOT_REPRODUCED: dict[str, tuple[str, str]] = {
    "test sets scored while training": (
        "3.1 #1",
        "They are scored after it by each evaluation point's weights: the same numbers.",
    ),
    "len(loader) = 1": ("3.1 #3", "Its evaluation divides by zero; here each such epoch ends with an evaluation."),
    "SWA": ("3.1 #5", "It fails at its first update, so no number was ever made with it."),
    "acc_real, acc_fake": ("3.1 #7", "They slice a shuffled list by position and mean nothing; there is no such column here."),
    "test lists in random order": (
        "3.2 #5",
        "No metric depends on the order; ours is fixed, and scores keep their faces' keys.",
    ),
    "a lost last batch": (
        "3.2 #6",
        "DeepFakeDetection loses a random tail, which breaks its metrics; test.py keeps all.",
    ),
    "a face that cannot be read": (
        "3.2 #7",
        "It becomes face 0 under the failing name; here the cell stops and names it.",
    ),
    "a video without frames": ("3.2 #8", "It ends the run with an IndexError; see the switch missing_face."),
    "features and scores in memory": (
        "3.2 #9, #10",
        "No number depends on it; here scores are written and features not kept.",
    ),
    "weights with a `module.` prefix": ("3.2 #11", "How checkpoints are written is no protocol; ours have no prefix."),
    "seeds": (
        "3.2 #12",
        "It seeds no numpy and takes kernels that do not repeat, so its runs cannot be repeated; ours can, on a CPU.",
    ),
    "JSON and LMDB quirks": ("3.3", "`dfgrid import deepfakebench` reads those files and names what is wrong with them."),
    "SAM without weight decay": ("3.4 #2", "That is a setting of the optimizer: {name: sam, base: {name: sgd, weight_decay: 0}}."),
    "SAM under DDP": ("3.4 #3", "It ends with an AttributeError, so no number was ever made with it."),
    "SAM's lost momentum": ("3.4 #4", "It strikes only where a run is resumed; ours resume to the bit."),
    "pairs of real and fake": (
        "3.4 #9",
        "UCF's loader there gives each fake, all of them once an epoch, a real face drawn with replacement, and always augments "
        "both; here its pairs are the i-th real and fake face of a step of class_balance: domains (none is refused), reals come "
        "in shuffled passes, and `augment` is followed.",
    ),
    "detectors other than in their papers": (
        "3.5",
        "That is the detector's choice: `dfb-` names are DeepfakeBench's versions (`dfgrid list detectors`).",
    ),
    "reference optimizers' own choices": (
        "3.6",
        "ASAM's scaling and SAGM's average are settings of the rules; docs/optimizers.md says what each code does.",
    ),
    "cubic resizing": ("3.4", "At its 256 pixels nothing is resized; for smaller detectors we take the area average."),
}
"""Name -> (row, why not)."""
