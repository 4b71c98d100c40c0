"""Faces per second of the detectors: `python -m benchmark.speed.detectors xception resnet34 --peer FOLDER`.

Training (the detector's own loss, backward, Adam) and inference, in fp32 and under bf16 autocast, with the channels first or last
in memory, compiled or not, on the CPU and on a GPU where there is one; beside the same backbone or detector of DeepfakeBench, if
`--peer` names a checkout of it. All ways of one detector take turns in every round, so a busy machine is busy for all of them.
Rates are medians over the rounds; a ratio is taken within each round, and given as the geometric mean with its 95 % interval, from
nine rounds on as the median with its own.
Beside each rate of an eager way stands what its passes ask of the device, which no noise moves: operators of torch on the CPU, and
kernels on a GPU, where networks of many small layers wait for the host to launch them. Adam's own are left out.
`--csv` adds the rates to a file; docs/detectors_speed.md is made of such a file.

Both are given faces in [0, 1]. Ours normalise them themselves; DeepfakeBench's loader does, by a function of torchvision, which is
called here for its networks, on the whole batch.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.allocator import keep_memory
from benchmark.cli.options import check_device
from benchmark.config import ConfigError
from benchmark.provenance import cpu
from benchmark.seeding import seed_everything
from benchmark.speed.counting import count
from benchmark.speed.peer_detectors import RIGID, peers
from benchmark.speed.rates import Measured, Way, compared, write
from detectors import DETECTORS, layout
from detectors.base import Batch, Detector
from optimizers.registry import RegistryError

DEFAULT = ("meso4", "resnet34", "efficientnet_b4", "xception")
DOMAINS = 4
"""Forgery methods that the fake faces come from."""


class Ours(nn.Module):
    """A detector whose forward pass gives its logits alone."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 2)."""
        logits: Tensor = self.detector(images).logits
        return logits

    def objective(self, batch: Batch) -> Tensor:
        """The detector's own."""
        return self.detector.objective(batch)


class Runner:
    """A network with an Adam of its own, in one memory layout, eager and compiled."""

    def __init__(self, network: nn.Module, device: str, channels_last: bool) -> None:
        self.network = network.to(device)
        objective: Any = network.objective
        if channels_last:
            layout.channels_last(network)
        self.device = device
        # At a learning rate of zero all steps do the same. A network that learns its few faces by heart may come to gradients that
        # are too small for normal numbers, with which a CPU takes many times as long.
        self.adam = torch.optim.Adam(self.network.parameters(), lr=0.0)
        self.calls: dict[tuple[bool, bool], Callable[..., Tensor]] = {
            (True, False): objective,
            (False, False): self.network,
        }

    def run(self, way: Way, batch: Batch) -> None:
        """One step, or one prediction."""
        self.passes(way, batch)
        if way.training:
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)

    def passes(self, way: Way, batch: Batch) -> None:
        """The forward pass, and in training the backward pass, which leaves its gradients."""
        if (way.training, way.compiled) not in self.calls:
            self.calls[way.training, True] = torch.compile(self.calls[way.training, False])
        call = self.calls[way.training, way.compiled]
        self.network.train(way.training)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=way.precision == "bf16"):
            if not way.training:
                with torch.inference_mode():
                    call(batch.images)
                return
            loss = call(batch)
        loss.backward()


def faces(number: int, size: int, device: str, channels_last: bool) -> Batch:
    """Noise: as many real as fake faces, those of `DOMAINS` methods, with a second view of each."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    draw = torch.Generator().manual_seed(0)
    images, views = (torch.rand(number, 3, size, size, generator=draw).contiguous(memory_format=order) for _ in range(2))
    index = torch.arange(number)
    return Batch(images, index % 2, index // 2 % DOMAINS, index, views=views).to(device)


def measure(
    networks: dict[str, Callable[[], nn.Module]],
    ways: list[Way],
    size: int,
    batch: int,
    device: str,
    rounds: int,
    seconds: float,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[Way, list[float]], dict[Way, int]]:
    """Faces per second of every way in every round, none where the peer fails; and what the passes of each eager way launch.

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
    batches = {last: faces(batch, size, device, last) for last in {way.channels_last for way in ways}}
    rates: dict[Way, list[float]] = {way: [] for way in ways}
    failed: set[Way] = set()
    for number in range(-1, rounds):  # the first turn warms up, and compiles
        for way in ways:
            if way in failed:
                continue
            runner, faces_ = built[way.who, way.channels_last], batches[way.channels_last]
            try:
                rate = _turn(runner, way, faces_, seconds if number >= 0 else 0.0)
            except Exception as error:
                if way.who == "ours":
                    raise
                failed.add(way)  # its reshapes may know channels first only, and its UCF cannot be tested in bfloat16
                report(f"fails: {way}: {str(error).splitlines()[0]}")
                continue
            if number >= 0:
                rates[way].append(rate)
            else:
                report(f"ready: {way}")
    return rates, {
        way: _launches(built[way.who, way.channels_last], way, batches[way.channels_last])
        for way in ways
        if way not in failed and not way.compiled
    }


def _launches(runner: Runner, way: Way, batch: Batch) -> int:
    """Operators, or kernels, of one pass forward, and in training of one backward."""

    def work() -> None:
        runner.passes(way, batch)
        runner.adam.zero_grad(set_to_none=True)

    return sum(count(work, torch.device(runner.device)).launches.values())


def _turn(runner: Runner, way: Way, batch: Batch, seconds: float) -> float:
    """Faces per second. The host does not wait for a GPU before the turn is over, as it does not in training."""
    wait = torch.cuda.synchronize if runner.device == "cuda" else lambda: None
    wait()
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        runner.run(way, batch)
        steps += 1
    wait()
    return steps * len(batch) / (time.perf_counter() - began)


def ways_of(who: list[str], compile: bool, precisions: list[str], plain_peer: bool = False) -> list[Way]:
    """Every combination; a way that differs in `who` alone stands next to it. The plain peer has its channels first."""
    switches = itertools.product((True, False), precisions, (False, True), (False, True) if compile else (False,))
    ways = [Way(name, *switch) for switch in switches for name in who]
    return [way for way in ways if way.who == "ours" or not plain_peer or not (way.channels_last or way.compiled)]


def lines(name: str, rates: dict[Way, list[float]], launches: dict[Way, int]) -> Iterator[str]:
    """The table of one detector: faces per second, launches of the passes, and ratios to the plain way, to the peer's same way and
    to the peer's plain way of the same precision, which is how its trainer runs it; – where one of the two was not measured."""
    yield f"{name}: faces/s | launches | of eager fp32 channels first | of DeepfakeBench's same way | of its plain way"
    for way, found in rates.items():
        if not found:
            yield f"  {way!s:36} fails"
            continue
        plain = rates.get(replace(way, who="ours", precision="fp32", channels_last=False, compiled=False))
        columns = [str(compared(found, plain)) if plain else "–"]
        for theirs in (replace(way, who="peer"), replace(way, who="peer", channels_last=False, compiled=False)):
            there = way.who == "ours" and rates.get(theirs)
            columns.append(str(compared(found, rates[theirs])) if there else "–")
        rate, launched = statistics.median(found), launches.get(way, "–")
        yield f"  {way!s:36} {rate:9.2f} {launched:>7} {' '.join(f'{column:>19}' for column in columns)}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("detectors", nargs="*", default=DEFAULT)
    parser.add_argument("--peer", type=Path, help="root of a DeepfakeBench checkout")
    parser.add_argument(
        "--plain-peer", action="store_true", help="it with its channels first and eager alone, as its trainer runs it"
    )
    parser.add_argument("--device", action="append", choices=("cpu", "cuda"), help="default: the CPU, and a GPU if there is one")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, help="side of the faces in px; default: the detector's own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of one turn")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16"), help="default: both")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too: minutes for every large network")
    parser.add_argument("--csv", type=Path, help="add the rates to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        _run(options)
    except (ConfigError, RegistryError) as error:
        sys.exit(f"Error: {error}")


def _run(options: argparse.Namespace) -> None:
    if options.batch < 2 or options.batch % 2:
        raise ConfigError(f"--batch is {options.batch}, but UCF learns from pairs; take an even number of faces")
    if options.rounds < 1:
        raise ConfigError(f"--rounds is {options.rounds}, but a rate needs a turn of each way; take at least 1")
    if options.csv and (options.csv.is_dir() or not options.csv.parent.is_dir()):
        missing = "is a folder" if options.csv.is_dir() else f"cannot be written: there is no folder {options.csv.parent}"
        raise ConfigError(f"--csv {options.csv} {missing}; name a file in a folder that is there")
    keep_memory()
    seed_everything(0)  # with the kernels that cells ask for
    for device in options.device or ():
        check_device(device)
    theirs = peers(options.peer) if options.peer else {}
    for device in options.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        title = torch.cuda.get_device_name() if device == "cuda" else f"{cpu()}, {torch.get_num_threads()} threads"
        print(f"{title}, torch {torch.__version__}, batch {options.batch}")
        for name in options.detectors:
            settings = {} if options.size is None else {"size": options.size}
            size = DETECTORS.build(name, **settings).size
            networks: dict[str, Callable[[], nn.Module]] = {
                "ours": lambda name=name, settings=settings: Ours(DETECTORS.build(name, **settings))  # type: ignore[misc]
            }
            if name in theirs and (size == 256 or name not in RIGID):
                networks["peer"] = lambda name=name, size=size: theirs[name](size)  # type: ignore[misc]
            ways = ways_of(list(networks), options.compile, options.precision or ["fp32", "bf16"], options.plain_peer)
            rates, launches = measure(networks, ways, size, options.batch, device, options.rounds, options.seconds, _progress)
            print("\n".join(lines(f"{name}, {size} px", rates, launches)), flush=True)
            if options.csv:
                made = date.today().isoformat()
                write(
                    options.csv,
                    [
                        Measured(name, size, options.batch, way, tuple(found), title, torch.__version__, made)
                        for way, found in rates.items()
                    ],
                )


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
