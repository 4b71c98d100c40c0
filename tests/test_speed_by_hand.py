"""Measurements that somebody starts and waits for: stopped and refused in one sentence, with what is measured by then."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.speed import by_hand
from benchmark.speed import data as speed_data
from benchmark.speed import train as speed_train

SMALL = ("--faces", "8", "--batch-size", "4", "--size", "32", "--rounds", "2")
FEW = ("--batch-size", "8", "--steps", "3", "--rounds", "2", "--size", "32", "--device", "cpu")


def called(module, capsys, monkeypatch, *args):
    """Exit code, what stands on stdout, and on stderr."""
    monkeypatch.setattr(sys, "argv", ["measure", *map(str, args)])
    before, code = signal.getsignal(signal.SIGTERM), 0
    try:
        by_hand.in_sentences(module.main)
    except SystemExit as error:
        code = error.code
    finally:
        signal.signal(signal.SIGTERM, before)
    told = capsys.readouterr()
    said = f"{code}\n" if isinstance(code, str) else ""
    return 1 if said else code, told.out, told.err + said


def stopping(calls, ends):
    """`ends` in a Ctrl-C after so many calls."""
    left = [calls]

    def call(*args, **settings):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return ends(*args, **settings)

    return call


def test_reading_is_measured_and_nothing_but_its_lines_is_printed(data, capsys, monkeypatch):
    code, out, err = called(speed_data, capsys, monkeypatch, data / "stores" / "mini-b", *SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "8 faces of 32 px, batches of 4, one thread; images per second"
    measured = ["faces before augmentation", "normalised tensors", "with the dfb augmentation"]
    assert [line.partition(",")[0] for line in lines[2:8:2]] == measured
    assert [line.partition(" ")[0] for line in lines[8:]] == ["target"] * 3


def test_reading_that_is_stopped_prints_what_is_known(data, capsys, monkeypatch):
    read = speed_data.peer_data.read
    store = data / "stores" / "mini-b"
    # The batch of 4 that warms up, one of the four that are timed, and half of another.
    monkeypatch.setattr(speed_data.peer_data, "read", stopping(10, read))
    code, out, err = called(speed_data, capsys, monkeypatch, store, *SMALL)
    assert code == 1
    assert out.splitlines()[2].startswith("faces before augmentation, warm")
    assert out.splitlines()[3].startswith("target faces from a warm cache >= 20 x the peer: ")
    assert len(out.splitlines()) == 4
    assert err == "Stopped while 'faces before augmentation, warm' was measured; its line is of 1 of 4 batches.\n"
    monkeypatch.setattr(speed_data.peer_data, "read", stopping(2, read))
    code, out, err = called(speed_data, capsys, monkeypatch, store, *SMALL)
    assert (code, len(out.splitlines()), err) == (1, 2, "Stopped before 'faces before augmentation, warm' was measured.\n")
    monkeypatch.setattr(speed_data, "CachedImages", stopping(0, None))
    assert called(speed_data, capsys, monkeypatch, store, *SMALL) == (1, "", "Stopped before anything was measured.\n")


def test_training_that_is_stopped_prints_what_is_known(capsys, monkeypatch):
    loop = speed_train._loop
    monkeypatch.setattr(speed_train, "_loop", stopping(2, loop))  # one warms up
    code, out, err = called(speed_train, capsys, monkeypatch, "resnet10", *FEW)
    assert code == 1
    assert out.splitlines()[2].startswith("resnet10           32 ")
    assert len(out.splitlines()) == 3
    assert err == "Stopped while resnet10 was measured; its line is of 1 of 2 rounds.\n"
    monkeypatch.setattr(speed_train, "_loop", stopping(1, loop))
    code, out, err = called(speed_train, capsys, monkeypatch, "resnet10", *FEW)
    assert (code, len(out.splitlines()), err) == (1, 2, "Stopped before resnet10 was measured.\n")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_is_measured_in_every_precision(capsys, monkeypatch, precision):
    code, out, err = called(speed_train, capsys, monkeypatch, "resnet10", *FEW, "--rounds", "1", "--precision", precision)
    assert (code, err) == (0, "")
    assert f", none, {precision}" in out.splitlines()[0]
    assert out.splitlines()[2].startswith("resnet10           32 ")


@pytest.mark.parametrize(
    ("module", "args", "code", "sentence"),
    [
        (speed_data, ("nowhere",), 1, "Error: no face store at nowhere; make one"),
        (speed_data, ("MINI", "--faces", "3"), 1, "Error: 3 faces are fewer than a batch of 32; take a smaller --batch-size"),
        (speed_data, ("MINI", "--rounds", "0"), 2, "argument --rounds: '0' is no whole number of at least 1"),
        (speed_train, ("meso5",), 1, "Error: unknown detector 'meso5': did you mean 'meso4'?"),
        (speed_train, ("meso4", "--size", "1"), 1, "Error: "),
        (speed_train, ("meso4", "--augment", "dbf"), 2, "argument --augment: invalid choice: 'dbf'"),
        (speed_train, ("meso4", "--batch-size", "12"), 2, "--batch-size is 12: take a multiple of 8, twice the number of domains"),
        (speed_train, ("meso4", "--steps", "one"), 2, "argument --steps: 'one' is no whole number of at least 2"),
    ],
)
def test_mistakes_are_one_sentence(data, capsys, monkeypatch, module, args, code, sentence):
    named = [str(data / "stores" / "mini-b") if arg == "MINI" else arg for arg in args]
    found, out, err = called(module, capsys, monkeypatch, *named)
    assert (found, out) == (code, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize("module", [speed_data, speed_train])
def test_help_tells_every_default(capsys, monkeypatch, module):
    code, out, _ = called(module, capsys, monkeypatch, "--help")
    assert code == 0
    options = " ".join(out.split("options:")[1].split()).split(" --")[1:]
    assert len(options) >= 4
    assert [option for option in options if "default" not in option and "help" not in option] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_sentence(number):
    start = (  # where tests run in the background, Ctrl-C is ignored, and would be here
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('benchmark.speed.train', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-u", "-c", start, "resnet10", *FEW[:4], "--rounds", "9999", *FEW[6:]]
    home = Path(__file__).parent.parent
    settings = {**os.environ, "PYTHONPATH": str(home)}
    with subprocess.Popen(command, cwd=home, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.readline()  # its first line: it is on its way
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert err.startswith("Stopped ")
    assert len(err.splitlines()) == 1


def test_a_bar_is_drawn_by_its_own_call_alone(monkeypatch):
    bars = []
    made = by_hand.progress

    def kept(**settings):
        bars.append(made(**settings))
        return bars[-1]

    monkeypatch.setattr(by_hand, "progress", kept)
    monkeypatch.setattr(by_hand, "console", SimpleNamespace(is_terminal=True))
    with by_hand.shown("rounds", 2, "round") as one_more:
        one_more()
        (bar,) = bars
        (task,) = bar.tasks
        assert (task.completed, task.total, bar.live.auto_refresh, bar.live.transient) == (1, 2, False, True)
