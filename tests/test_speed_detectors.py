"""The timing of detectors: every way is measured, in turns, and the peer stands beside ours where it can."""

import sys

import pytest
import torch

from benchmark.config import ConfigError
from benchmark.contract import Small
from benchmark.speed import detectors as speed
from benchmark.speed.peer_detectors import peer_backbones

torch.set_num_threads(1)


class Recorded(speed.Logits):
    """Notes in which mode, memory layout and precision it is called."""

    calls: list = []  # noqa: RUF012 - shared by the two copies that are built

    def forward(self, images):
        logits = super().forward(images)
        last = images.is_contiguous(memory_format=torch.channels_last)
        self.calls.append((self.training, logits.dtype, last, torch.is_inference_mode_enabled()))
        return logits


def test_every_way_is_run_as_it_says():
    Recorded.calls.clear()
    ways = speed.ways_of(["ours", "peer"], compile=False, precisions=["fp32", "bf16"])
    assert len(ways) == len(set(ways)) == 16
    networks = {who: lambda: Recorded(Small()) for who in ("ours", "peer")}
    rates = speed.measure(networks, ways, size=8, batch=4, device="cpu", rounds=2, seconds=0.0)
    assert list(rates) == ways
    assert all(rate > 0 for rate in rates.values())
    expected = [
        (way.training, torch.bfloat16 if way.precision == "bf16" else torch.float32, way.channels_last, not way.training)
        for way in ways
    ]
    assert Recorded.calls == expected * 3  # one turn to warm up


def test_training_moves_the_weights_and_inference_does_not():
    runner = speed.Runner(speed.Logits(Small()), "cpu", channels_last=True)
    before = [p.detach().clone() for p in runner.network.parameters()]
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4) % 2
    runner.run(speed.Way("ours", False, "fp32", True, False), images, labels)
    assert all(torch.equal(p, old) for p, old in zip(runner.network.parameters(), before, strict=True))
    runner.run(speed.Way("ours", True, "fp32", True, False), images, labels)
    assert all(not torch.equal(p, old) for p, old in zip(runner.network.parameters(), before, strict=True))


def test_the_table_gives_both_ratios():
    ways = speed.ways_of(["ours", "peer"], compile=False, precisions=["fp32"])
    rates = dict(zip(ways, (10.0, 5.0, 30.0, 20.0, 100.0, 80.0, 50.0, 100.0), strict=True))
    shown = list(speed.lines("net", rates))
    assert shown[1].split()[-3:] == ["10.0", "1.00", "2.00"]
    assert shown[2].split()[-3:] == ["5.0", "0.50", "–"]
    assert shown[7].split()[-3:] == ["50.0", "0.50", "0.50"]


def test_a_folder_without_the_peer_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="holds no training/networks"):
        peer_backbones(tmp_path)
    monkeypatch.setattr(sys, "argv", ["speed", "meso4", "--peer", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"Error: .* holds no training/networks"):
        speed.main()
