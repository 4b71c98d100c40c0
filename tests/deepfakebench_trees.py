"""Small trees, JSON files and LMDBs in the exact shapes of DeepfakeBench's, made without any of its code."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
from numpy.typing import NDArray

from preprocessing.diff import differences
from preprocessing.interop import import_deepfakebench
from preprocessing.store import FaceStore

SIDE = 24


def pixels(*name: object) -> NDArray[np.uint8]:
    """A picture of its own for each name: RGB."""
    seed = zlib.crc32("/".join(map(str, name)).encode())
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def points(*name: object, count: int = 81) -> NDArray[np.int64]:
    """Landmarks of its own for each name; some of them outside of the picture, as in real files."""
    seed = zlib.crc32("/".join(map(str, name)).encode())
    return np.random.default_rng(seed).integers(-3, SIDE + 3, (count, 2))


def draw(root: Path, sub: str, video: str, frames: Iterable[int] = (0, 3, 10), masks: bool = False, count: int = 81) -> list[str]:
    """One video's frames and landmarks below `root`/`sub`, as preprocess.py leaves them; returns the frames, unsorted."""
    paths = []
    for frame in frames:
        for kind in ("frames", "landmarks", *(("masks",) if masks else ())):
            (root / sub / kind / video).mkdir(parents=True, exist_ok=True)
        place = f"{sub}/frames/{video}/{frame:03d}.png"
        cv2.imwrite(str(root / place), cv2.cvtColor(pixels(sub, video, frame), cv2.COLOR_RGB2BGR))
        np.save(root / sub / "landmarks" / video / f"{frame:03d}.npy", points(sub, video, frame, count=count))
        if masks:
            mask = np.where(pixels(sub, video, frame, "mask")[..., 0] > 127, 255, 0).astype(np.uint8)
            cv2.imwrite(str(root / sub / "masks" / video / f"{frame:03d}.png"), mask)
        paths.append(place)
    return paths[1:] + paths[:1]


def leaf(label: str, paths: Iterable[str], prefix: str = "", masks: Iterable[str] | None = None) -> dict[str, Any]:
    made = {"label": label, "frames": [prefix + path for path in paths]}
    return made if masks is None else {**made, "masks": [prefix + path for path in masks]}


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def back(content: Any) -> Any:
    """Every path of a JSON with back-slashes, as on Windows."""
    if isinstance(content, str):
        return content.replace("/", "\\")
    if isinstance(content, list):
        return [back(one) for one in content]
    return {key: back(value) for key, value in content.items()} if isinstance(content, dict) else content


def to_lmdb(root: Path, dataset: str, out: Path, key: Callable[[str], str], dtype: str = "int32") -> Path:
    """Every file of a dataset's folder under `key(path)`: PNG bytes verbatim, landmarks as raw bytes of `dtype`."""
    out.mkdir(parents=True)
    with lmdb.open(str(out), map_size=1 << 26) as env, env.begin(write=True) as transaction:
        for file in sorted((root / dataset).rglob("*.*")):
            data = np.load(file).astype(dtype).tobytes() if file.suffix == ".npy" else file.read_bytes()
            transaction.put(key(file.relative_to(root).as_posix()).encode(), data)
    return out


def mixed(path: str) -> str:
    """A key as the LMDB writer makes it on Linux."""
    return path.replace("/", "\\", 1)


def uadfv(root: Path, prefix: str = "") -> dict[str, Any]:
    """UADFV: two real and two forged videos, each in all three splits; returns the JSON's content."""
    splits: dict[str, dict[str, Any]] = {"UADFV_Real": {}, "UADFV_Fake": {}}
    for number in range(2):
        real, fake = f"{number:04d}", f"{number:04d}_fake"
        splits["UADFV_Real"][real] = leaf("UADFV_Real", draw(root, "UADFV/real", real), prefix)
        splits["UADFV_Fake"][fake] = leaf("UADFV_Fake", draw(root, "UADFV/fake", fake), prefix)
    return {"UADFV": {label: dict.fromkeys(("train", "test", "val"), videos) for label, videos in splits.items()}}


def faceforensics(root: Path, prefix: str = "") -> dict[str, Any]:
    """FaceForensics++, two compressions, masks in c23 only; returns the JSON's content."""
    real: dict[str, Any] = {split: {"c23": {}, "c40": {}} for split in ("train", "val", "test")}
    fake: dict[str, Any] = {split: {"c23": {}, "c40": {}} for split in ("train", "val", "test")}
    for split, (a, b) in {"train": ("000", "003"), "val": ("001", "002"), "test": ("004", "005")}.items():
        for level in ("c23", "c40"):
            above = "FaceForensics++/original_sequences/youtube/" + level
            real[split][level][a] = leaf("FF-real", draw(root, above, a), prefix)
            above = "FaceForensics++/manipulated_sequences/Deepfakes/"
            paths = draw(root, above + level, f"{a}_{b}", masks=level == "c23")
            masks = [path.replace(level, "c23").replace("frames", "masks") for path in paths]
            fake[split][level][f"{a}_{b}"] = leaf("FF-DF", paths, prefix, masks)
    return {"FaceForensics++": {"FF-real": real, "FF-DF": fake}}


def imported(folder: Path) -> Path:
    """The folder, with rgb/, FaceForensics++.json and a finished store of it."""
    file = write(folder / "FaceForensics++.json", faceforensics(folder / "rgb"))
    import_deepfakebench([file], folder / "store", rgb=folder / "rgb")
    return folder


def same(a: Path, b: Path) -> bool:
    """Whether two stores hold the same."""
    with FaceStore(a) as first, FaceStore(b) as second:
        return not list(differences(first, second, deep=True))


def splits(store: Path) -> dict[str, str]:
    """Split of each video."""
    with FaceStore(store) as faces:
        return {f"{r['method']}/{r['video']}": r["split"] for r in faces.records()}
