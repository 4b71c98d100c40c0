"""Faces per second of the detectors: `python -m benchmark.speed.detectors xception resnet34 --peer FOLDER`.

Training (forward, backward, Adam) and inference, in fp32 and under bf16 autocast, with the channels first or last in memory,
compiled or not, on the CPU and on a GPU where there is one; beside the same backbone of DeepfakeBench, if `--peer` names a checkout
of it. All ways of one detector take turns in every round, so a busy machine is busy for all of them; the median of a way's rounds
counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.config import ConfigError
from benchmark.speed.peer_detectors import RIGID, peer_backbones
from detectors import DETECTORS
from optimizers.registry import RegistryError

DEFAULT = ("meso4", "resnet34", "efficientnet_b4", "xception")


@dataclass(frozen=True)
class Way:
    """One way of running one detector."""

    who: str
    training: bool
    precision: str
    channels_last: bool
    compiled: bool

    def __str__(self) -> str:
        words = ("train" if self.training else "infer", self.precision, "last" if self.channels_last else "first")
        return f"{self.who:5} {' '.join(f'{w:5}' for w in words)} {'compiled' if self.compiled else 'eager'}"


class Logits(nn.Module):
    """A detector whose forward pass gives its logits alone."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 2)."""
        logits: Tensor = self.detector(images).logits
        return logits


class Runner:
    """A network with an Adam of its own, in one memory layout, eager and compiled."""

    def __init__(self, network: nn.Module, device: str, channels_last: bool) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.device = device
        self.adam = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.compiled: Callable[[Tensor], Tensor] | None = None

    def run(self, way: Way, images: Tensor, labels: Tensor) -> None:
        """One step, or one prediction."""
        call: Callable[[Tensor], Tensor] = self.network
        if way.compiled:
            self.compiled = self.compiled or torch.compile(self.network)
            call = self.compiled
        self.network.train(way.training)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=way.precision == "bf16"):
            if not way.training:
                with torch.inference_mode():
                    call(images)
                return
            loss = F.cross_entropy(call(images), labels)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def measure(
    networks: dict[str, Callable[[], nn.Module]],
    ways: list[Way],
    size: int,
    batch: int,
    device: str,
    rounds: int,
    seconds: float,
    report: Callable[[str], None] = lambda line: None,
) -> dict[Way, float]:
    """Median faces per second of every way.

    Args:
        networks: who -> builds it; every network is built once for each memory layout.
        ways: what to measure, taking turns.
        size: side of the faces, px.
        batch: faces at once.
        device: torch's name.
        rounds: turns that each way takes.
        seconds: how long one turn lasts at least.
        report: told what is going on.
    """
    built = {(who, last): Runner(networks[who](), device, last) for who, last in {(way.who, way.channels_last) for way in ways}}
    plain, labels = torch.rand(batch, 3, size, size, device=device), torch.arange(batch, device=device) % 2
    images = {False: plain, True: plain.contiguous(memory_format=torch.channels_last)}
    rates: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(-1, rounds):  # the first turn warms up, and compiles
        for way in ways:
            runner, faces = built[way.who, way.channels_last], images[way.channels_last]
            rate = _turn(runner, way, faces, labels, seconds if number >= 0 else 0.0)
            if number >= 0:
                rates[way].append(rate)
            else:
                report(f"ready: {way}")
    return {way: statistics.median(found) for way, found in rates.items()}


def _turn(runner: Runner, way: Way, images: Tensor, labels: Tensor, seconds: float) -> float:
    """Faces per second."""
    wait = torch.cuda.synchronize if runner.device == "cuda" else lambda: None
    wait()
    began, steps = time.perf_counter(), 0
    while True:
        runner.run(way, images, labels)
        steps += 1
        wait()
        if time.perf_counter() - began >= seconds:
            return steps * len(images) / (time.perf_counter() - began)


def ways_of(who: list[str], compile: bool, precisions: list[str]) -> list[Way]:
    """Every combination; a way that differs in `who` alone stands next to it."""
    switches = itertools.product((True, False), precisions, (False, True), (False, True) if compile else (False,))
    return [Way(name, *switch) for switch in switches for name in who]


def lines(name: str, rates: dict[Way, float]) -> Iterator[str]:
    """The table of one detector: faces per second, and ratios to the plain way and to the peer's same way."""
    yield f"{name}: faces/s | of eager fp32 channels first | of DeepfakeBench's"
    for way, rate in rates.items():
        plain = rates[Way("ours", way.training, "fp32", False, False)]
        peer = rates.get(Way("peer", way.training, way.precision, way.channels_last, way.compiled))
        beside = f"{rate / peer:6.2f}" if peer and way.who == "ours" else "     –"
        yield f"  {way!s:36} {rate:9.1f} {rate / plain:6.2f} {beside}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("detectors", nargs="*", default=DEFAULT)
    parser.add_argument("--peer", type=Path, help="root of a DeepfakeBench checkout")
    parser.add_argument("--device", action="append", choices=("cpu", "cuda"), help="default: the CPU, and a GPU if there is one")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, help="side of the faces in px; default: the detector's own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of one turn")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16"), help="default: both")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too: minutes for every large network")
    parser.add_argument("--json", type=Path, help="write the rates here")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        _run(options)
    except (ConfigError, RegistryError) as error:
        sys.exit(f"Error: {error}")


def _run(options: argparse.Namespace) -> None:
    peers = peer_backbones(options.peer) if options.peer else {}
    found = []
    for device in options.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        title = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        print(f"{title}, torch {torch.__version__}, batch {options.batch}")
        for name in options.detectors:
            settings = {} if options.size is None else {"size": options.size}
            size = DETECTORS.build(name, **settings).size
            networks: dict[str, Callable[[], nn.Module]] = {
                "ours": lambda name=name, settings=settings: Logits(DETECTORS.build(name, **settings))  # type: ignore[misc]
            }
            if name in peers and (size == 256 or name not in RIGID):
                networks["peer"] = peers[name]
            ways = ways_of(list(networks), options.compile, options.precision or ["fp32", "bf16"])
            ways = [way for way in ways if not (way.who == "peer" and way.channels_last and name in RIGID)]
            rates = measure(networks, ways, size, options.batch, device, options.rounds, options.seconds, _progress)
            print("\n".join(lines(f"{name}, {size} px", rates)), flush=True)
            found += [{"device": title, "detector": name, "size": size, **asdict(way), "rate": rate} for way, rate in rates.items()]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
