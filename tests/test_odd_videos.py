"""Every kind of video that a dataset or a phone holds, as a real file: each sampled frame ends in the ledger with a status."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from preprocessing_material import SMALL, Squares, clip, encode, frame
from test_preprocessing_frames import turn

from preprocessing.errors import PreprocessingError
from preprocessing.faces import Box
from preprocessing.frames import index_frames, read_frames
from preprocessing.layouts import Video, read_layout
from preprocessing.pipeline import Settings, preprocess
from preprocessing.probe import Probe, probe
from preprocessing.sheet import contact_sheet
from preprocessing.store import FaceStore
from preprocessing.strip import Tile, score_strip

COUNT = 12
ALL = {0: "face", 3: "face", 7: "face", 11: "face"}
"""Four frames of twelve, evenly spread."""


class Bright(Squares):
    """A detector of bright squares, for films without colour."""

    def boxes(self, image: NDArray[np.uint8], upsample: int) -> list[Box]:
        rows, columns = (np.nonzero((image.min(axis=-1) > 180).any(axis=axis))[0] for axis in (1, 0))
        return [Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))] if len(rows) else []


def irregular(path: Path, times: Sequence[int]) -> Path:
    """A video whose frame n is shown at times[n] milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def patch(path: Path, tag: bytes, offset: int, value: int, order: str) -> None:
    """Write a 32-bit number `offset` bytes behind the first `tag`."""
    data = bytearray(path.read_bytes())
    at = data.index(tag) + len(tag) + offset
    struct.pack_into(f"{order}I", data, at, value)
    path.write_bytes(data)


def avi_that_promises(path: Path, count: int) -> Path:
    clip(path, COUNT)
    for tag, offset in ((b"avih", 4 + 16), (b"strh", 4 + 32)):
        patch(path, tag, offset, count, "<")
    return path


def mp4_that_promises(path: Path, count: int, box: bytes = b"stts") -> Path:
    """`stts` counts the frames' durations, `stsz` their sizes."""
    clip(path, COUNT)
    patch(path, box, {b"stts": 8, b"stsz": 8}[box], count, ">")
    return path


def truncated(path: Path) -> Path:
    encode(path, [frame(n) for n in range(COUNT)], header_first=True, g="1", preset="ultrafast")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 4 // 5])
    return path


def turned(path: Path, degrees: int) -> Path:
    turn(clip(path, COUNT), degrees)
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def still(path: Path) -> Path:
    """A picture under the name of a film."""
    return written(path, cv2.imencode(".png", frame(0)[..., ::-1])[1].tobytes())


def grey(path: Path) -> Path:
    images = []
    for number in range(COUNT):
        image = np.full((96, 128, 3), 60, np.uint8)
        image[20:68, 20 + 2 * number : 68 + 2 * number] = 230
        images.append(image)
    return encode(path, images, pixels="gray", preset="ultrafast")


def ten_bit(path: Path) -> Path:
    return encode(path, [frame(n) for n in range(COUNT)], pixels="yuv420p10le")


READABLE: dict[str, tuple[Callable[[Path], Path], dict[int, str]]] = {
    "plain.mp4": (lambda p: clip(p, COUNT), ALL),
    "ünï 码 'quoted' #1.mp4": (lambda p: clip(p, COUNT), ALL),
    "truncated.mp4": (truncated, {**ALL, 11: "unreadable"}),
    "nobody.mp4": (lambda p: clip(p, COUNT, face=lambda n: False), dict.fromkeys(ALL, "no_face")),
    "late.mp4": (lambda p: clip(p, COUNT, face=lambda n: n > 5), {**ALL, 0: "no_face", 3: "no_face"}),
    "phone90.mp4": (lambda p: turned(p, 90), ALL),
    "phone180.mp4": (lambda p: turned(p, 180), ALL),
    "phone270.mp4": (lambda p: turned(p, 270), ALL),
    "irregular.mp4": (lambda p: irregular(p, [0, 40, 41, 43, 500, 501, 900, 1000, 1003, 1500, 4000, 9000]), ALL),
    "irregular.mkv": (lambda p: irregular(p, [7, 40, 41, 43, 500, 501, 900, 1000, 1003, 1500, 4000, 9000]), ALL),
    "ten_bit.mp4": (ten_bit, ALL),
    "grey.mp4": (grey, ALL),
    "promises_1000.avi": (lambda p: avi_that_promises(p, 1000), ALL),
    "promises_5.avi": (lambda p: avi_that_promises(p, 5), ALL),
    "promises_none.avi": (lambda p: avi_that_promises(p, 0), ALL),
    "promises_1000.mp4": (lambda p: mp4_that_promises(p, 1000), ALL),
    "promises_5.mp4": (lambda p: mp4_that_promises(p, 5), ALL),
    "promises_20_sizes.mp4": (lambda p: mp4_that_promises(p, 20, b"stsz"), ALL),
    "lists_5.mp4": (lambda p: mp4_that_promises(p, 5, b"stsz"), dict.fromkeys((0, 1, 2, 4), "face")),
    "still.mp4": (still, {0: "face"}),
    "two_frames.mp4": (lambda p: clip(p, 2), {0: "face", 1: "face"}),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_sampled_frame_has_a_status(name: str, tmp_path: Path) -> None:
    make, wanted = READABLE[name]
    path = make(tmp_path / name)
    detector = Bright() if name.startswith("grey") else Squares()
    video = Video("toy", "real", 0, "none", "", "v", path, "none")
    summary = preprocess([video], tmp_path / "store", SMALL, detector=detector)
    assert summary.errors == []
    with FaceStore(tmp_path / "store") as store:
        assert dict(zip(store.ledger["frame"], store.ledger["status"], strict=True)) == wanted
        assert len(store.ledger) == len(wanted)
        assert set(store.manifest["frame"]) == {n for n, status in wanted.items() if status == "face"}
        assert store.verify() == []
    if "phone" not in name and "still" not in name:  # the frame under number n is the nth: its square stands at 20 + 2n
        for number, image in read_frames(path, index_frames(path), [n for n, status in wanted.items() if status == "face"]):
            assert image is not None
            assert abs(detector.boxes(image, 0)[0].right - (67 + 2 * number)) <= 1


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero.mp4": (lambda p: written(p, b""), "the file is empty"),
    "text.mp4": (lambda p: written(p, b"<html>404 not found</html>" * 99), "cannot be opened: Invalid data found"),
    "head_only.mp4": (lambda p: written(p, clip(p, COUNT).read_bytes()[:200]), "cannot be opened: Invalid data found"),
    "sound.mp4": (sound, "no video stream"),
    "gone.mp4": (lambda p: None, "cannot be opened: No such file"),
    "folder.mp4": (folder, "cannot be opened: Is a directory"),
    "promises_none.mp4": (lambda p: mp4_that_promises(p, 0, b"stsz"), "no video frames"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_video_without_frames_is_one_row_with_a_reason(name: str, tmp_path: Path) -> None:
    make, reason = UNREADABLE[name]
    make(tmp_path / name)
    good = Video("toy", "real", 0, "none", "", "good", clip(tmp_path / "good.mp4", COUNT), "none")
    odd = Video("toy", "real", 0, "none", "", "odd", tmp_path / name, "none")
    summary = preprocess([odd, good], tmp_path / "store", SMALL, detector=Squares())
    ((key, said),) = summary.errors
    assert key == "toy/none/real/odd"
    assert said.startswith(reason)
    with FaceStore(tmp_path / "store") as store:
        rows = [(r.video, r.frame, r.status) for r in store.ledger.itertuples()]
        assert rows == [*(("good", n, "face") for n in ALL), ("odd", -1, "unreadable")]
        assert store.ledger["reason"].iloc[-1] == said


@pytest.mark.parametrize("switches", [{}, {"frame_count": "header", "after_damage": "stop"}], ids=["strict", "as OpenCV"])
@pytest.mark.parametrize("name", ["12:30.mp4", "12:30.avi", "concat:b.mp4"])
def test_a_name_with_a_colon_is_a_file_in_any_folder(
    name: str, switches: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg takes what stands before a colon for a protocol, "concat:b.mp4" for what lies under "b.mp4"."""
    clip(tmp_path / "v" / name, COUNT)
    settings = Settings(frames=4, size=64, switches=switches)
    prints = set()
    for folder, root in ((tmp_path, Path("v")), (tmp_path / "v", Path())):
        monkeypatch.chdir(folder)
        found = read_layout(root, "folder", name="toy")
        summary = preprocess(found, tmp_path / f"store-{len(prints)}", settings, detector=Squares())
        assert summary.counts["frames"]["face"] == 4
        assert probe(found[0].path) == Probe(frames=COUNT)
        prints.add(summary.fingerprint)
    assert len(prints) == 1


def test_a_name_with_a_line_break_is_drawn(tmp_path: Path) -> None:
    path = clip(tmp_path / "set/two\nlines\t.mp4", COUNT)
    preprocess(read_layout(tmp_path / "set", "folder", name="toy"), tmp_path / "store", SMALL, detector=Squares())
    with FaceStore(tmp_path / "store") as store:
        contact_sheet(store, tmp_path / "sheet.png")
    for length in (1, 99):  # one that fits, and one that is cut
        score_strip(tmp_path / "strip.png", path.name * length, "no\nscore", [Tile("frame 0", "no_face")])


def test_names_that_are_no_text_are_refused_in_words(tmp_path: Path) -> None:
    """Linux allows any bytes in a name; a key must be text."""
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        clip(tmp_path / "videos" / "ok.mp4", 2).rename(tmp_path / "videos" / name)
    except OSError:
        pytest.skip("this file system has names of text only")
    with pytest.raises(PreprocessingError, match=r"'.*caf\\udce9.*' is no valid UTF-8; rename"):
        read_layout(tmp_path / "videos", "folder", name="toy")


def test_all_of_them_at_once(tmp_path: Path) -> None:
    """The whole cabinet as one folder: the same statuses, and one worker or two make one store."""
    (tmp_path / "videos").mkdir()
    wanted: dict[tuple[str, int], str] = {}
    for name, (make, content) in {**READABLE, **UNREADABLE}.items():
        if not name.startswith(("grey", "gone", "folder")):
            stem, suffix = name.rsplit(".", 1)
            path = tmp_path / "videos" / f"{stem}_{suffix}.{suffix}"  # two may share a stem
            make(path)
            rows = content if isinstance(content, dict) else {-1: "unreadable"}
            wanted |= {(path.stem, frame): status for frame, status in rows.items()}
    found = read_layout(tmp_path / "videos", "folder", name="toy")
    prints = {preprocess(found, tmp_path / f"store{w}", SMALL, workers=w, detector=Squares()).fingerprint for w in (1, 2)}
    assert len(prints) == 1
    with FaceStore(tmp_path / "store2") as store:
        assert {(r.video, r.frame): r.status for r in store.ledger.itertuples()} == wanted
