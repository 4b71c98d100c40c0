import errno
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.augment import PRESETS, augment
from benchmark.config import ConfigError
from benchmark.data import BalancedBatches, FaceFrames, choose
from benchmark.decoded import CachedImages, cache_problems, resize
from preprocessing.store import FaceStore


def manifest(counts: dict[str, int], frames: int = 2, split: str = "train") -> pd.DataFrame:
    rows = [
        {
            "dataset": "D",
            "method": method,
            "label": int(method != "real"),
            "split": split,
            "video": f"{v:03d}",
            "frame": f,
            "compression": "none",
        }
        for method, videos in counts.items()
        for v in range(videos)
        for f in range(frames)
    ]
    table = pd.DataFrame(rows)
    return table.assign(key=table["method"] + "/" + table["video"] + "/" + table["frame"].astype(str))


def faces(counts: dict[str, int], size: int = 4) -> FaceFrames:
    table = manifest(counts)
    rows, methods = choose(table, "s", [m for m in counts if m != "real"], "train", None)
    images = np.random.default_rng(0).integers(0, 256, (len(table), size, size, 3)).astype(np.uint8)
    return FaceFrames(rows, methods, images)


def test_every_step_holds_every_domain_with_both_classes() -> None:
    batches = BalancedBatches(faces({"real": 7, "A": 5, "B": 3, "C": 4}), batch_size=12, seed=0)
    for step in batches.epoch(0):
        batch = batches.batch(step)
        assert batch.images.shape == (12, 3, 4, 4)
        for domain in range(3):
            assert batch.labels[batch.domains == domain].tolist() == [0, 0, 1, 1]
        rows = batches.frames.rows.iloc[step.reshape(-1)]
        assert rows["label"].tolist() == batch.labels.tolist()
        fake = batch.labels == 1
        assert rows["domain"].to_numpy()[fake.numpy()].tolist() == batch.domains[fake].tolist()


def test_an_epoch_shows_every_fake_of_the_largest_domain() -> None:
    batches = BalancedBatches(faces({"real": 7, "A": 5, "B": 3}), batch_size=8, seed=0)
    assert batches.steps == 5  # 10 frames of A, two in a step
    order = batches.epoch(0)
    assert sorted(order[:, 0, 1].reshape(-1)) == batches.fakes[0].tolist()
    reals = order[:, :, 0].reshape(-1)
    assert sorted(reals[:14]) == batches.reals.tolist()  # all are seen before one is repeated


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return BalancedBatches(faces({"real": 7, "A": 5}), 4, seed).epoch(epoch).reshape(-1).tolist()

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_videos_of_one_name_have_different_ids() -> None:
    batches = BalancedBatches(faces({"real": 1, "A": 1, "B": 1}), batch_size=4, seed=0)
    batch = batches.batch(batches.epoch(0)[0])
    assert len(set(batch.videos.tolist())) == 3


def test_pixels_are_rgb_in_unit_range_and_exact() -> None:
    f = faces({"real": 1, "A": 1})
    pixels = f.pixels(np.array([2]))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels[0].permute(1, 2, 0), torch.from_numpy(f.images[2]).float() / 255)


def test_choosing_frames_is_even() -> None:
    rows, _ = choose(manifest({"real": 1, "A": 1}, frames=10), "s", ["A"], "train", 3)
    assert len(rows) == 6
    picked = rows[rows["method"] == "A"]["frame"].tolist()
    assert np.diff(picked).min() >= 3
    rows, _ = choose(manifest({"real": 1, "A": 1}, frames=2), "s", ["A"], "train", 3)
    assert len(rows) == 4


def test_missing_methods_and_splits_are_named() -> None:
    table = manifest({"real": 1, "A": 1})
    with pytest.raises(ConfigError, match="store s has no faces of 'B'; it has A"):
        choose(table, "s", ["B"], "train", None)
    with pytest.raises(ConfigError, match="no 'A' faces in split 'test'; it has them in train"):
        choose(table, "s", ["A"], "test", None)
    with pytest.raises(ConfigError, match="need real faces too"):
        choose(manifest({"A": 1}), "s", ["A"], "train", None)


def test_the_cache_holds_the_stores_faces(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "stores" / "mini-b", tmp_path / "store", ignore=shutil.ignore_patterns("cache"))
    with FaceStore(tmp_path / "store") as store:
        calls: list[tuple[int, int]] = []
        images = CachedImages(store, 64, lambda done, total: calls.append((done, total))).images
        assert calls[-1] == (len(store.manifest), len(store.manifest))
        keys = store.manifest["key"].tolist()
        for i in (0, len(keys) - 1):
            assert np.array_equal(images[i], resize(store.image(keys[i]), 64))
        calls.clear()
        again = CachedImages(store, 64, lambda done, total: calls.append((done, total))).images
        assert not calls  # made once
        assert np.array_equal(again, images)
        assert np.array_equal(CachedImages(store, 256).images[0], store.image(keys[0]))  # no grey level is lost at full size


@pytest.fixture
def bare(data: Path, tmp_path: Path) -> Path:
    """A store of one's own, without any cache."""
    return shutil.copytree(data / "stores" / "mini-b", tmp_path / "bare", ignore=shutil.ignore_patterns("cache"))


def test_a_cache_that_was_killed_does_not_take_the_room_of_the_next(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for one and a half: neither Ctrl-C nor kill -9 leaves anything that stands in the way."""
    with FaceStore(bare) as store:
        count = len(store.manifest)
        part = bare / "cache" / f"32px-{store.fingerprint[:16]}.part"
        room = int(1.5 * count * 32 * 32 * 3)

        def usage(folder: Path) -> SimpleNamespace:
            return SimpleNamespace(free=room - (part.stat().st_size if part.exists() else 0))

        def interrupted(done: int, total: int) -> None:
            if done > 0.8 * total:
                raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "disk_usage", usage)
        with pytest.raises(KeyboardInterrupt):
            CachedImages(store, 32, interrupted)
        assert not part.exists()
        part.write_bytes(bytes(int(0.8 * count * 32 * 32 * 3)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert isinstance(CachedImages(store, 32).images, np.memmap)
        assert not part.exists()


def refused(*args: object, **settings: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_finished_cache_needs_no_writing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only disk: neither lock nor folder is made. (Rights stop nobody who tests as root.)"""
    with FaceStore(bare) as store:
        made = CachedImages(store, 32).images[:]
        for way in ("FileLock", "Path.mkdir", "Path.unlink"):
            monkeypatch.setattr(f"benchmark.decoded.{way}", refused)
        told: list[str] = []
        images = CachedImages(store, 32, tell=told.append).images
        assert isinstance(images, np.memmap)
        assert np.array_equal(images, made)
        assert told == []


def test_a_cache_of_other_faces_is_made_again(bare: Path) -> None:
    """Inverted from its middle on, as by a copy that went wrong, or by another way to resize."""
    told: list[str] = []
    with FaceStore(bare) as store:
        made = np.array(CachedImages(store, 32, tell=told.append).images)
        path = bare / "cache" / f"32px-{store.fingerprint[:16]}.u8"
        whole = np.memmap(path, dtype=np.uint8, mode="r+", shape=made.shape)
        whole[len(made) // 2 :] ^= 255
        whole.flush()
        (problem,) = cache_problems(store)
        assert f"{len(made) - len(made) // 2} of {len(made)} decoded faces are not the store's" in problem
        assert np.array_equal(CachedImages(store, 32, tell=told.append).images, made)
        assert told == [f"{path} does not hold its store's faces and is made again: it is damaged, or of another OpenCV"]
        assert list(cache_problems(store)) == []


def test_verify_looks_at_every_decoded_face(bare: Path, dfgrid: Any) -> None:
    with FaceStore(bare) as store:
        images = CachedImages(store, 32).images
        path = bare / "cache" / f"32px-{store.fingerprint[:16]}.u8"
        assert dfgrid("store", "verify", bare)[0] == 0
        with path.open("r+b") as file:
            file.seek(images[0].nbytes + 5)
            file.write(bytes([images[1].reshape(-1)[5] ^ 1]))
        code, said = dfgrid("store", "verify", bare)
        assert code == 1
        assert f"1 of {len(images)} decoded faces are not the store's, the first is {store.manifest['key'].iloc[1]}; delete" in said


def cannot_be_written(monkeypatch: pytest.MonkeyPatch, store: Path) -> str:
    monkeypatch.setattr("benchmark.decoded.FileLock", refused)
    return "Read-only file system"


def in_the_way(monkeypatch: pytest.MonkeyPatch, store: Path) -> str:
    (store / "cache").touch()
    return "File exists"


def no_room(monkeypatch: pytest.MonkeyPatch, store: Path) -> str:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    return f"{len(FaceStore(store).manifest) * 32 * 32 * 3 / 1000:.1f} kB are needed and 1.0 kB free"


@pytest.mark.parametrize("spoil", [cannot_be_written, in_the_way, no_room])
def test_without_a_cache_faces_come_from_the_store(
    bare: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch, Path], str]
) -> None:
    with FaceStore(bare) as store:
        cached = CachedImages(store, 32).images
        shutil.rmtree(bare / "cache")
        reason = spoil(monkeypatch, bare)
        told: list[str] = []
        images = CachedImages(store, 32, tell=told.append).images
        rows = store.manifest.reset_index(drop=True).rename_axis("index").reset_index()
        positions = np.array([3, 0, 3, len(rows) - 1])
        for way in (FaceFrames.levels, FaceFrames.pixels):
            one, other = (way(FaceFrames(rows, (), found), positions) for found in (images, cached))
            assert torch.equal(one, other)
            assert one.stride() == other.stride()
        (sentence,) = told
        assert sentence.startswith(f"{bare / 'cache'} cannot hold decoded faces ({reason}): they are decoded from the store")


@pytest.mark.parametrize("preset", PRESETS)
def test_augmentation_keeps_shape_and_range_and_repeats(preset: str) -> None:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    first = augment(preset, images, seed=1, epoch=2, step=3)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, augment(preset, images, seed=1, epoch=2, step=3))
    assert torch.equal(images, before)
    if preset == "none":
        assert torch.equal(first, images)
    else:
        assert not torch.equal(first, augment(preset, images, seed=1, epoch=2, step=4))
        assert not torch.equal(first, augment(preset, images, seed=2, epoch=2, step=3))


def test_rows_beyond_the_images_are_refused(data: Path) -> None:
    with FaceStore(data / "stores" / "mini-b") as store:
        images = CachedImages(store, 32).images
        rows = store.manifest.reset_index(drop=True).rename_axis("index").reset_index()
    frames = FaceFrames(rows.assign(index=rows["index"] + 1), (), images)
    with pytest.raises(IndexError, match=f"rows name images 1 to {len(images)}, and there are {len(images)}"):
        frames.levels(np.array([0]))
