"""The file with the landmark model: where it is, and its hash.

The default is the 68-point model inside the installed package face_recognition_models. The package is located, never imported: its
own import needs pkg_resources, which current Pythons lack. The model was trained on 300-W, whose licence excludes commercial use.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from preprocessing.errors import PreprocessingError

PACKAGE = "face_recognition_models"
FILE = Path("models", "shape_predictor_68_face_landmarks.dat")


def find_predictor(path: str | Path | None = None) -> Path:
    """The landmark model's file: `path`, or the installed default.

    Raises:
        PreprocessingError: if there is no such file.
    """
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise PreprocessingError(f"predictor file {path} does not exist; give the path of a dlib shape predictor (.dat)")
        return file
    spec = importlib.util.find_spec(PACKAGE)
    for folder in spec.submodule_search_locations or [] if spec else []:
        file = Path(folder) / FILE
        if file.is_file():
            return file
    raise PreprocessingError(
        f"no landmark predictor: package {PACKAGE} is not installed; run 'pip install {PACKAGE}' or give a predictor file (.dat)"
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
