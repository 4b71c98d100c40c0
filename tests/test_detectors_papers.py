"""The papers' detectors: their losses against formulas written out, DeepfakeBench's keys, and randomness that replays."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.objective import BatchObjective
from detectors import DETECTORS
from detectors.base import Batch, Prediction
from detectors.contract import faces
from detectors.core import disagreement
from detectors.f3net import FAD, LFS, dct_matrix
from detectors.recce import metric_loss, reconstruction_error
from detectors.spsl import phase_image
from detectors.srm_parts import FeatureResidual, kernels
from detectors.ucf import among_equals, contrast, restyle
from detectors.xception_parts import body
from optimizers.registry import RegistryError

KEYS = Path(__file__).with_name("deepfakebench_paper_keys.csv")
"""Names and shapes of the tensors in the state_dict of DeepfakeBench's detectors (commit 8a4a7bf)."""


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("spsl", "dfb-spsl"),
        ("srm", "dfb-srm"),
        ("core", "core"),
        ("core", "dfb-core"),
        ("recce", "recce"),
        ("recce", "dfb-recce"),
        ("ucf", "ucf"),
        ("f3net", "dfb-f3net"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_key_of_deepfakebench_has_its_place(theirs: str, ours: str, prefix: str) -> None:
    with KEYS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["detector"] == theirs]
    state = {prefix + r["key"]: torch.empty([int(n) for n in r["shape"].split("x") if n], device="meta") for r in rows}
    with torch.device("meta"):
        detector = DETECTORS.build(ours)
    mapped, dropped = type(detector).dfb.apply(state)
    assert {key: value.shape for key, value in mapped.items()} == {k: v.shape for k, v in detector.state_dict().items()}
    assert len(mapped) + len(dropped) == len(rows)


@pytest.mark.parametrize(("name", "other"), [("spsl", "dfb-spsl"), ("srm", "dfb-srm"), ("f3net", "dfb-f3net")])
def test_the_papers_network_names_the_one_that_takes_the_checkpoint(name: str, other: str) -> None:
    with torch.device("meta"), pytest.raises(RegistryError, match=f"belong to '{other}'"):
        DETECTORS.build(name, weights="dfb:x.pth")


def test_core_asks_both_views_for_the_same_features() -> None:
    torch.manual_seed(0)
    detector = DETECTORS.build("core", size=32, consistency=3.0).eval()
    batch = faces(32)
    assert batch.views is not None
    with torch.no_grad():
        first, second = detector(batch.images), detector(batch.views)
        cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(first.features, second.features, strict=True)]
        expected = sum(float(F.cross_entropy(p.logits, batch.labels)) for p in (first, second)) / 2
        expected += 3 * sum((1 - c) ** 2 for c in cosines) / len(cosines)
        assert float(detector.objective(batch)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="second view"):
        detector.objective(Batch(batch.images, batch.labels, batch.domains, batch.videos))
    assert float(disagreement(first.features, first.features)) == pytest.approx(0, abs=1e-10)


def test_am_softmax_takes_the_margin_from_the_true_cosine() -> None:
    cosines = torch.tensor([[0.8, -0.2], [0.1, 0.3]])
    labels = torch.tensor([0, 1])
    batch = Batch(torch.empty(2, 3, 1, 1), labels, labels, labels)
    with torch.device("meta"):
        plain, theirs = DETECTORS.build("srm"), DETECTORS.build("dfb-srm")
    true, other = (cosines[[0, 1], rows] for rows in ([0, 1], [1, 0]))
    expected = torch.log1p(torch.exp(30 * other - 30 * (true - 0.45))).mean()
    assert torch.allclose(plain.loss(Prediction(30 * cosines, cosines), batch), expected)
    assert torch.allclose(theirs.loss(Prediction(cosines, cosines), batch), expected)


def test_residual_filters_meet_every_channel() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 9, 9)
    for each in (True, False):
        residual = FeatureResidual(4, each)
        seen = {(row // 3, filter_of(kernel)) for row, kernel in enumerate(residual.kernel)}  # three rows a channel
        assert len(seen) == (12 if each else 6)
        assert residual(x).shape == x.shape
    assert torch.allclose(kernels().sum(dim=(1, 2, 3)), torch.zeros(3), atol=1e-6)  # flat regions leave no residual


def filter_of(kernel: Tensor) -> int:
    return next(i for i, known in enumerate(kernels()) if torch.equal(known, kernel))


def test_metric_loss_compares_real_faces_with_real_and_fake_ones() -> None:
    torch.manual_seed(0)
    maps, real = torch.randn(5, 6, 3, 3), torch.tensor([True, False, True, True, False])
    unit = F.normalize(maps.mean(dim=(2, 3)))

    def likeness(pairs: list[tuple[int, int]]) -> float:
        return sum((float(unit[i] @ unit[j]) + 1) / 2 for i, j in pairs) / len(pairs)

    expected = 1 - likeness([(0, 2), (0, 3), (2, 3)]) + likeness([(i, j) for i in (0, 2, 3) for j in (1, 4)])
    assert float(metric_loss((maps, maps), real)) == pytest.approx(2 * max(0.0, expected), abs=1e-5)


def test_only_real_faces_are_reconstructed() -> None:
    images, other = torch.zeros(3, 3, 4, 4), torch.tensor([1.0, 5.0, 2.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert float(reconstruction_error(other, images, torch.tensor([True, False, True]))) == pytest.approx(1.5)
    assert float(reconstruction_error(other, images, torch.zeros(3, dtype=torch.bool))) == 0


def test_recce_adds_up() -> None:
    torch.manual_seed(0)
    detector = DETECTORS.build("recce", size=32, reconstruction=0.5, metric=0.25, flood=0.0).eval()
    batch = faces(32)
    with torch.no_grad():
        run = detector.run(detector.normalize(batch.images))
        expected = F.cross_entropy(run.prediction.logits, batch.labels)
        expected += 0.5 * (run.reconstruction[::2] - detector.normalize(batch.images)[::2]).abs().mean()
        expected += 0.25 * metric_loss(run.embeddings, batch.labels == 0)
        assert torch.allclose(detector.objective(batch), expected)


def test_faces_change_places_among_equals() -> None:
    groups = torch.tensor([0, 2, 0, 1, 2, 2, 0, 1])
    torch.manual_seed(0)
    orders = [among_equals(groups) for _ in range(50)]
    for order in orders:
        assert torch.equal(groups[order], groups)
        assert sorted(order.tolist()) == list(range(8))
    assert len({tuple(order.tolist()) for order in orders}) > 20


def test_contrast_pulls_equals_together_and_pushes_others_apart() -> None:
    kind, method = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    assert float(contrast(apart, apart, kind, method, margin=3.0)) == 0
    assert float(contrast(apart * 0, apart, kind, method, margin=3.0)) == pytest.approx(2 * 3.0, abs=1e-4)
    assert float(contrast(apart / 9, apart / 9, kind, method, margin=3.0)) == pytest.approx(4 * 2.0, abs=1e-4)


def test_a_restyled_map_has_the_styles_statistics() -> None:
    torch.manual_seed(0)
    content, style = torch.randn(2, 3, 5, 5), 4 + 2 * torch.randn(2, 3, 5, 5)
    found, wanted = (torch.var_mean(x, dim=(2, 3)) for x in (restyle(content, style), style))
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found, wanted, strict=True))


def test_ucf_refuses_a_batch_that_is_not_in_pairs() -> None:
    detector = DETECTORS.build("ucf", size=64)
    with pytest.raises(ValueError, match="2 real and 1 fake"):
        detector.objective(faces(64).only(torch.tensor([0, 1, 2])))


def test_phase_image_forgets_amplitudes() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(phase_image(images), phase_image(5 * images), atol=1e-5)
    assert torch.allclose(torch.fft.fft2(phase_image(images)).abs(), torch.ones(2, 1, 16, 16), atol=1e-4)


def test_bands_of_an_image_add_up() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    fad = FAD(32, whole=True)
    with torch.no_grad():
        for weight in fad.filters:
            weight.learnable.zero_()
        low, middle, high, whole = fad(images).chunk(4, dim=1)
    assert torch.allclose(whole, images, atol=1e-4)
    total = torch.arange(32).view(-1, 1) + torch.arange(32)
    shared = ((total == 11) | (total == 16)).float()  # the bands include both their edges, at 32 / 2.82 and 32 / 2
    matrix = fad.dct
    twice = matrix.T @ ((matrix @ images @ matrix.T) * shared) @ matrix
    assert torch.allclose(low + middle + high - twice, images, atol=1e-4)


def test_local_statistics_are_sums_over_a_windows_dct() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 32, 32)
    lfs = LFS(6).requires_grad_(False)
    grey = 255 * (0.299 * images[0, 0] + 0.587 * images[0, 1] + 0.114 * images[0, 2])
    window = F.pad(grey, (4,) * 4)[10:20, 6:16]  # row 5, column 3 of windows with steps of 2
    matrix = dct_matrix(10).float()
    expected = [float((matrix @ window @ matrix.T * weight()).abs().sum().log10()) for weight in lfs.filters]
    found = lfs(images)
    assert found.shape == (1, 6, 16, 16)
    assert found[0, :, 5, 3].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["ucf", "dfb-core", "recce"])
def test_the_second_pass_draws_what_the_first_did(name: str) -> None:
    torch.manual_seed(0)
    detector = DETECTORS.build(name, size=DETECTORS.get(name).smallest).train()
    objective = BatchObjective(detector, [faces(detector.size)])
    first, second = objective.gradient(), objective.gradient()
    assert float((first - second).norm()) <= 1e-6 * float(first.norm())
    other = BatchObjective(detector, [faces(detector.size)])
    other.gradient()
    assert float(other.loss) != float(objective.loss)


@pytest.fixture(scope="module", params=["fc", "last_linear"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like xception-b5690688.pth: pretrainedmodels's keys, 1 x 1 convolutions as matrices, 1000 classes; drawn values.

    Or like a model of the library, saved, which calls its 1000-class layer otherwise.
    """
    generator = torch.Generator().manual_seed(0)
    state = body().state_dict()
    state = {key: torch.rand(value.shape, generator=generator) for key, value in state.items() if "num_batches" not in key}
    state = {key: value[..., 0, 0] if "pointwise" in key else value for key, value in state.items()}
    state |= {f"{request.param}.weight": torch.zeros(1000, 2048), f"{request.param}.bias": torch.zeros(1000)}
    file = tmp_path_factory.mktemp("weights") / "xception.pth"
    torch.save(state, file)
    return file


@pytest.mark.parametrize(
    ("name", "bodies", "channels"),
    [
        ("spsl", [""], [4]),
        ("dfb-spsl", [""], [4]),
        ("core", [""], [3]),
        ("srm", ["rgb.", "noise."], [3, 3]),
        ("dfb-srm", ["rgb.", "noise."], [3, 3]),
        ("recce", [""], [3]),
        ("dfb-recce", [""], [3]),
        ("ucf", ["forgery.body.", "content.body."], [3, 3]),
        ("f3net", ["fad.", "lfs."], [9, 6]),
        ("dfb-f3net", [""], [12]),
    ],
)
def test_every_xception_starts_from_imagenet(name: str, bodies: list[str], channels: list[int], published: Path) -> None:
    state = DETECTORS.build(name, size=DETECTORS.get(name).smallest, weights=published).state_dict()
    there = torch.load(published, weights_only=True)
    for prefix, count in zip(bodies, channels, strict=True):
        stem = state[f"backbone.{prefix}conv1.weight"]
        assert stem.shape[1] == count
        scale = count / 3 if name.startswith("spsl") or name == "dfb-spsl" else 1  # the mean over RGB, four times
        assert torch.allclose(stem.sum(dim=1), scale * there["conv1.weight"].sum(dim=1), rtol=1e-4)
        for key in ("block3.rep.1.pointwise.weight", "block12.skip.weight", "conv4.pointwise.weight", "bn4.running_var"):
            assert torch.equal(state[f"backbone.{prefix}{key}"].flatten(), there[key].flatten())


def test_a_file_that_is_not_whole_is_refused_by_the_shallow_network_too(published: Path, tmp_path: Path) -> None:
    state = torch.load(published, weights_only=True)
    torch.save({**{k: v for k, v in state.items() if k != "bn2.bias"}, "block4.extra": torch.zeros(1)}, tmp_path / "short.pth")
    with pytest.raises(RegistryError, match=r"1 missing \(bn2.bias\)"):
        DETECTORS.build("spsl", size=32, weights=tmp_path / "short.pth")
