"""The timing of detectors: every way is measured, in turns, and the peer stands beside ours where it can."""

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark.config import ConfigError
from benchmark.contract import Small
from benchmark.speed import detectors as speed
from benchmark.speed import detectors_page, peer_detectors
from benchmark.speed.peer_detectors import Whole, peers
from benchmark.speed.rates import Measured, Way, compared, geometric, read, write

torch.set_num_threads(1)


class Recorded(speed.Ours):
    """Notes in which mode, memory layout and precision it is called, and whether for its loss."""

    calls: list = []  # noqa: RUF012 - shared by the two copies that are built

    def note(self, images, logits):
        last = images.is_contiguous(memory_format=torch.channels_last)
        self.calls.append((self.training, logits.dtype, last, torch.is_inference_mode_enabled()))

    def forward(self, images):
        assert not self.training
        logits = super().forward(images)
        self.note(images, logits)
        return logits

    def objective(self, batch):
        assert self.training
        prediction = self.detector(batch.images)
        self.note(batch.images, prediction.logits)
        return self.detector.loss(prediction, batch)


def test_every_way_is_run_as_it_says():
    Recorded.calls.clear()
    ways = speed.ways_of(["ours", "peer"], compile=False, precisions=["fp32", "bf16"])
    assert len(ways) == len(set(ways)) == 16
    networks = {who: lambda: Recorded(Small()) for who in ("ours", "peer")}
    rates, launches = speed.measure(networks, ways, size=8, batch=4, device="cpu", rounds=2, seconds=0.0)
    assert list(rates) == ways
    assert all(len(found) == 2 and min(found) > 0 for found in rates.values())
    expected = [
        (way.training, torch.bfloat16 if way.precision == "bf16" else torch.float32, way.channels_last, not way.training)
        for way in ways
    ]
    assert Recorded.calls == expected * 4  # one turn to warm up, and one to count launches
    assert set(launches) == set(ways)


def test_a_compiled_way_calls_what_was_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call: lambda *given: compiled.append(call) or call(*given))
    runner = speed.Runner(speed.Ours(Small()), "cpu", channels_last=True)
    for training in (True, False):
        for _ in range(2):
            runner.run(Way("ours", training, "fp32", True, True), speed.faces(4, 8, "cpu", True))
    assert compiled == [runner.network.objective] * 2 + [runner.network] * 2


def test_the_plain_peer_has_its_channels_first():
    ways = speed.ways_of(["ours", "peer"], compile=True, precisions=["fp32"], plain_peer=True)
    assert [str(way).split() for way in ways if way.who == "peer"] == [
        ["peer", "train", "fp32", "first", "eager"],
        ["peer", "infer", "fp32", "first", "eager"],
    ]
    assert len(ways) == 8 + 2


def test_training_takes_steps_that_move_nothing_and_inference_takes_none():
    runner = speed.Runner(speed.Ours(Small()), "cpu", channels_last=True)
    before = [p.detach().clone() for p in runner.network.parameters()]
    batch = speed.faces(4, 8, "cpu", True)
    runner.run(Way("ours", False, "fp32", True, False), batch)
    assert not runner.adam.state
    runner.run(Way("ours", True, "fp32", True, False), batch)
    assert all(runner.adam.state[p]["exp_avg"].any() for p in runner.network.parameters())
    assert all(torch.equal(p, old) for p, old in zip(runner.network.parameters(), before, strict=True))


class KnowsOneLayout(speed.Ours):
    def forward(self, images):
        images.view(len(images), -1)
        return super().forward(images)


def test_a_peer_that_fails_is_left_out_and_ours_is_not():
    ways = [Way(who, False, "fp32", True, False) for who in ("ours", "peer")]
    said = []
    networks = {"ours": lambda: speed.Ours(Small()), "peer": lambda: KnowsOneLayout(Small())}
    rates, launches = speed.measure(networks, ways, 8, 4, "cpu", 2, 0.0, said.append)
    assert list(launches) == ways[:1]
    assert [len(found) for found in rates.values()] == [2, 0]
    assert said[1].startswith("fails: peer")
    networks = {"ours": lambda: KnowsOneLayout(Small()), "peer": lambda: speed.Ours(Small())}
    with pytest.raises(RuntimeError):
        speed.measure(networks, ways, 8, 4, "cpu", 2, 0.0)


def test_a_ratio_is_of_pairs_and_has_students_interval():
    assert str(geometric([2.0, 8.0], [1.0, 2.0])).startswith("2.83 (")
    found = geometric([2.0, 3.0, 4.0], [1.0, 1.5, 2.0])
    assert (found.ratio, found.low, found.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))
    # logs -1, 0, 1: mean 0, standard error 1 / sqrt(3), and t with 2 degrees of freedom at 0.975 is 4.3027.
    wide = geometric([math.e**-1, 1.0, math.e], [1.0, 1.0, 1.0])
    assert math.log(wide.high) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(geometric([2.0], [1.0]).low)


def test_from_nine_rounds_on_a_hiccup_does_not_widen_a_ratio():
    ours = [2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 0.01]
    assert compared(ours[-8:], [1.0] * 8) == geometric(ours[-8:], [1.0] * 8)
    found = compared(ours, [1.0] * 9)
    assert (found.ratio, found.low, found.high) == (2.3, 2.0, 2.6)  # the second and the eighth of nine


def test_the_table_gives_the_ratios():
    ways = speed.ways_of(["ours", "peer"], compile=False, precisions=["fp32"])
    rates = dict(zip(ways, ([r] for r in (10.0, 5.0, 30.0, 20.0, 100.0, 80.0, 50.0, 100.0)), strict=True))
    rates[ways[7]] = []
    shown = list(speed.lines("net", rates, {ways[0]: 17}))
    assert shown[1].split()[5:] == ["10.00", "17", "1.00", "(nan–nan)", "2.00", "(nan–nan)", "2.00", "(nan–nan)"]
    assert shown[2].split()[5:] == ["5.00", "–", "0.50", "(nan–nan)", "–", "–"]
    assert shown[3].split()[5:] == ["30.00", "–", "3.00", "(nan–nan)", "1.50", "(nan–nan)", "6.00", "(nan–nan)"]
    assert shown[8].split()[-1] == "fails"


def test_the_table_of_one_precision_has_no_ratio_to_the_other():
    ways = speed.ways_of(["ours"], compile=False, precisions=["bf16"])
    shown = list(speed.lines("net", {way: [10.0] for way in ways}, {}))
    assert [line.split()[5:] for line in shown[1:]] == [["10.00", "–", "–", "–", "–"]] * len(ways)


class Theirs(nn.Module):
    """A detector as DeepfakeBench has them: a dict in, a dict out."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, told, inference=False):
        assert inference is not self.training
        return {"cls": self.head(told["image"].mean(dim=(2, 3)))}

    def get_losses(self, told, found):
        assert told["label"].tolist() == [0, 0, 1, 1]
        assert told["label_spe"].tolist() == [0, 0, 1, 2]
        return {"overall": F.cross_entropy(found["cls"], told["label"])}


def test_one_of_its_detectors_is_given_what_its_trainer_gives():
    batch = speed.faces(4, 8, "cpu", False)
    whole = Whole(Theirs())
    logits = whole.train(False)(batch.images)
    assert logits.shape == (4, 2)
    assert whole.train().objective(batch).item() == pytest.approx(F.cross_entropy(logits, batch.labels).item())


def test_its_package_stands_for_ours_inside_only(tmp_path, monkeypatch):
    from detectors import DETECTORS

    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "registry.py").write_text("DETECTOR = {}\n")
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / "mine.py").write_text("from detectors import DETECTOR\nDETECTOR['mine'] = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with peer_detectors._their_package(tmp_path / "detectors"):
        assert peer_detectors._imported("detectors.mine", tmp_path).DETECTOR == {"mine": 3}
        with pytest.raises(ConfigError, match=r"DeepfakeBench's detectors\.yours in .* does not import here"):
            peer_detectors._imported("detectors.yours", tmp_path)
    assert "detectors.mine" not in sys.modules
    assert sys.modules["detectors"].DETECTORS is DETECTORS
    sys.modules.pop("metrics.registry")
    sys.modules.pop("metrics")


def test_what_was_measured_is_kept(tmp_path):
    rows = [
        Measured("net", 8, 4, Way(who, True, "fp32", last, False), rates, "a CPU, 2 threads", "2.0", "2026-01-01")
        for who, last, rates in (("ours", True, (30.0, 33.0)), ("ours", False, (20.0, 22.0)), ("peer", False, (10.0, 11.0)))
    ]
    write(tmp_path / "rates.csv", rows[:2])
    write(tmp_path / "rates.csv", rows[2:])
    assert read(tmp_path / "rates.csv") == rows
    text = detectors_page.page(rows)
    assert "a CPU, 2 threads" in text
    assert "| `net` | 31.5 | 3.00 (3.00–3.00) | 1.50 (1.50–1.50) |" in text


def test_the_page_is_fresh():
    expected = detectors_page.page(read(detectors_page.RATES))
    assert detectors_page.PAGE.read_text(encoding="utf-8") == expected, "run python -m benchmark.docs"


def test_mistakes_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="holds no training/networks"):
        peers(tmp_path)
    for words, said in (
        (["meso4", "--peer", str(tmp_path)], r"Error: .* holds no training/networks"),
        (["meso4", "--batch", "3"], "Error: --batch is 3"),
        (["meso4", "--rounds", "0"], "Error: --rounds is 0"),
        (["meso4", "--csv", str(tmp_path)], r"Error: --csv .* is a folder"),
        (["meso4", "--csv", str(tmp_path / "none" / "rates.csv")], "Error: --csv .* there is no folder .*none"),
    ):
        monkeypatch.setattr(sys, "argv", ["speed", *words])
        with pytest.raises(SystemExit, match=said):
            speed.main()
