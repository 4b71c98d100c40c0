"""The names that DeepfakeBench's files use, and ours: datasets, labels, folders.

A dataset's file holds {dataset: {label: {split: {video: leaf}}}}; FaceForensics++ and DeepFakeDetection have a level
{compression: ...} between split and video. The label's name says real or fake, and which forgery.
"""

from __future__ import annotations

import re

from preprocessing.errors import PreprocessingError
from preprocessing.layouts import NO_COMPRESSION

REAL = "real"
COMPRESSIONS = ("raw", "c23", "c40")
FF, DFD = "FaceForensics++", "DeepFakeDetection"
WITH_COMPRESSION = (FF, DFD)
"""Our datasets whose files DeepfakeBench expects with a level of compressions."""
LABELS = {
    "FF-real": REAL,
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-FH": "FaceShifter",
    "FF-SH": "FaceShifter",
    "DFD_real": REAL,
    "DFD_fake": "DeepFakeDetection",
    "CelebDFv1_real": REAL,
    "CelebDFv1_fake": "Celeb-synthesis",
    "CelebDFv2_real": REAL,
    "CelebDFv2_fake": "Celeb-synthesis",
    "DFDCP_Real": REAL,
    "DFDCP_FakeA": "method_A",
    "DFDCP_FakeB": "method_B",
    "DFDC_Real": REAL,
    "DFDC_Fake": "fake",
    "DF_real": REAL,
    "DF_fake": "end_to_end",
    "UADFV_Real": REAL,
    "UADFV_Fake": "fake",
}
"""Label in DeepfakeBench's files -> method in ours."""
LABELS_OF = {
    FF: ("FF-real", "FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FF-FH"),
    DFD: ("DFD_real", "DFD_fake"),
    "Celeb-DF-v1": ("CelebDFv1_real", "CelebDFv1_fake"),
    "Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake"),
    "DFDCP": ("DFDCP_Real", "DFDCP_FakeA", "DFDCP_FakeB"),
    "DFDC": ("DFDC_Real", "DFDC_Fake"),
    "DeeperForensics-1.0": ("DF_real", "DF_fake"),
    "UADFV": ("UADFV_Real", "UADFV_Fake"),
}
ALIASES = {**dict.fromkeys(("FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FaceShifter"), FF)}
"""Files that hold a part of another dataset."""
SELF_EXPLAINING = re.compile(r"(?P<method>.+)_(?P<kind>real|fake)", re.IGNORECASE)


def dataset_of(top: str) -> str:
    """Our dataset's name for a file's top key: "FF-DF" and "FaceForensics++_c40" are parts of "FaceForensics++"."""
    name = re.sub(r"_(raw|c23|c40)$", "", top)
    known = {FF, *ALIASES}
    return ALIASES.get(name, name) if name in known else top


def folder_of(dataset: str) -> str:
    """The folder below the root of all datasets in which DeepfakeBench keeps a dataset."""
    return FF if dataset == DFD else dataset


def method_of(label: str, own: dict[str, str]) -> str | None:
    """The method that a label's name says, "real" for real; None where it says nothing.

    Args:
        label: as in the file.
        own: what the user says, label -> method.
    """
    if label in own:
        return own[label]
    if label in LABELS:
        return LABELS[label]
    match = SELF_EXPLAINING.fullmatch(label)
    if match is None:
        return None
    if match["kind"].lower() == REAL:
        return REAL
    return None if is_real(match["method"]) else match["method"]  # "real_fake" says both


def is_real(method: str) -> bool:
    """Whether a method's name means real videos, in whatever case it is written."""
    return method.casefold() == REAL


def label_of(dataset: str, method: str) -> str:
    """The label's name under which a method of a dataset is exported."""
    for label in LABELS_OF.get(dataset, ()):
        if LABELS[label] == method:
            return label
    return f"{dataset}_Real" if method == REAL else f"{method}_Fake"


def identity_of(folder: str, video: str) -> str:
    """Who is seen: "id0" or "id0_id1" (target_source) in Celeb-DF, "01" or "01_02" in DeepFakeDetection, else the video."""
    if folder in ("Celeb-real", "Celeb-synthesis") and "_" in video:
        return video.rpartition("_")[0]
    if re.fullmatch(r"\d{4}_fake", video):
        return video[:4]
    return video.partition("__")[0] if re.fullmatch(r"\d+(_\d+)?__.+", video) else video


def folder_for(dataset: str, compression: str, method: str, identity: str) -> str:
    """The folder of an exported video that holds frames/, landmarks/ and masks/, below the root of all datasets."""
    base = folder_of(dataset)
    if dataset == FF:
        return f"{base}/original_sequences/youtube/{compression}" if method == REAL else _forged(base, method, compression)
    if dataset == DFD:
        return f"{base}/original_sequences/actors/{compression}" if method == REAL else _forged(base, method, compression)
    if dataset.startswith("Celeb-DF"):
        return f"{base}/{method if method != REAL else 'Celeb-real' if identity.startswith('id') else 'YouTube-real'}"
    return f"{base}/{method}" if compression == NO_COMPRESSION else f"{base}/{method}/{compression}"


def _forged(base: str, method: str, compression: str) -> str:
    return f"{base}/manipulated_sequences/{method}/{compression}"


def read_own_labels(words: list[str]) -> dict[str, str]:
    """What the user says of labels: ["MyGAN=MyGAN", "Mine=real"] as a table; real in any case is "real".

    Raises:
        PreprocessingError: for a word without "=".
    """
    table = {}
    for word in words:
        label, equals, method = word.partition("=")
        if not (label and equals and method):
            raise PreprocessingError(f"a label must be given as LABEL=METHOD, such as 'Mine=real' or 'MyGAN=MyGAN', not '{word}'")
        table[label] = REAL if is_real(method) else method
    return table
