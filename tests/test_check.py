"""`dfgrid check`: a good detector and a good optimizer pass, a bad one is told what is wrong and ends in exit code 1."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
from in_process import command
from torch import nn

from benchmark import contract
from detectors.base import Detector, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Rule
from optimizers.registry import RegistryError, load_plugin
from optimizers.vector import Vector

torch.set_num_threads(1)
EXAMPLES = Path(__file__).parents[1] / "examples"
load_plugin(EXAMPLES / "my_optimizer.py")

BAD = '''"""A detector that looks at the whole batch, and a rule that forgets to put the weights back."""
from dataclasses import dataclass

import torch
from torch import nn

from detectors import DETECTORS
from detectors.base import Detector, Prediction
from optimizers import OPTIMIZERS
from optimizers.base import Rule


@DETECTORS.register("bad_detector")
class BadDetector(Detector):
    """8 px."""

    size = 8
    shallow = ("conv",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, images):
        features = self.conv(images - images.mean(dim=0)).square().mean(dim=(2, 3))
        return Prediction(self.head(features), features)


@OPTIMIZERS.register("bad_optimizer")
@dataclass
class BadOptimizer(Rule):
    base = "sgd"

    def attach(self, detector):
        self.weights = [p for p in detector.parameters() if p.requires_grad]

    def gradient(self, objective):
        g = objective.gradient()
        with torch.no_grad():
            for p in self.weights:
                p.add_(g.parts[p], alpha=0.1)
        return g
'''


@pytest.fixture
def dfgrid(capsys, monkeypatch):
    return partial(command, capsys, monkeypatch, "check")


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path / "bad.py"


def test_the_examples_pass(dfgrid):
    code, out, err = dfgrid("detector", "my_detector", "--plugin", EXAMPLES / "my_detector.py", "--set", "size=16")
    assert (code, err) == (0, "")
    assert "pass  PIM with Delta = 0" in out
    assert "pass  under roga" in out
    assert "pass  torch.compile (eager)" in out
    assert "fail" not in out
    code, out, err = dfgrid("optimizer", "my_optimizer", "--plugin", EXAMPLES / "my_optimizer.py", "--set", "rho=1e-1")
    assert (code, err) == (0, "")
    assert "my_optimizer: 8 of 8 checks without a problem" in out


def test_a_bad_detector_and_a_bad_optimizer_fail(dfgrid, bad):
    code, out, _ = dfgrid("detector", "bad_detector", "--plugin", bad)
    assert code == 1
    assert "fail  evaluation\n      in eval mode a face's logits depend on the other faces of its batch" in out
    assert "skip  all other checks: they build on the one that failed\nbad_detector: 4 of 5 checks" in out
    code, out, _ = dfgrid("optimizer", "bad_optimizer", "--plugin", bad)
    assert code == 1
    assert "fail  nothing left behind\n      the weights first.0.weight are not what they were, to the bit" in out
    assert "pass  gradient" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("detector", "meso5"), "did you mean 'meso4'"),
        (("optimizer", "sma"), "did you mean 'sam'"),
        (("optimizer", "sam", "--set", "rhoo=1"), "did you mean 'rho'"),
        (("optimizer", "sam", "--set", "rho"), "write KEY=VALUE"),
        (("detector", "meso4", "--set", "size=["), "no valid YAML"),
    ],
)
def test_a_mistake_is_one_sentence(dfgrid, args, said):
    code, _, err = dfgrid(*args)
    assert code == 2
    assert said in " ".join(err.split())


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_keeps_the_contract(name):
    assert [found for found in contract.check_optimizer(name, {}) if found.problems or found.skipped] == []


@dataclass
class Spoilt(Rule):
    """Plain descent with one fault."""

    fault: str = ""
    _sum: Vector = field(default_factory=lambda: Vector({}), init=False)

    base = "sgd"

    def gradient(self, objective):
        g = objective.gradient()
        if self.fault == "forgets":
            self._sum = self._sum + g
            return self._sum
        if self.fault == "waits":
            return g if float(g.norm()) > 0 else 2 * g
        if self.fault == "climbs":
            return -1 * g
        if self.fault == "partial":
            return Vector(dict(list(g.parts.items())[:1]))
        return g


@pytest.mark.parametrize(
    ("fault", "title", "said"),
    [
        ("forgets", "memory", "not in state_dict()"),
        ("waits", "waiting", "wait for the device"),
        ("climbs", "learning", "the loss goes from"),
        ("partial", "gradient", "other tensors than the detector's weights"),
    ],
)
def test_a_spoilt_rule_is_told_what_is_wrong(fault, title, said, monkeypatch):
    monkeypatch.setitem(OPTIMIZERS._specs, "spoilt", Spoilt)
    found = {outcome.title: outcome.problems for outcome in contract.check_optimizer("spoilt", {"fault": fault})}
    assert any(said in problem for problem in found[title])


class Jumps(Detector):
    """8 px. What it predicts depends on whether somebody listens to its shallow module."""

    size = 8
    shallow = ("conv",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, images):
        features = self.conv(images).mean(dim=(2, 3)) + len(self.conv._forward_hooks)
        return Prediction(self.head(features), features)


def test_a_push_by_zero_that_changes_something_is_seen():
    assert any("without a push" in problem for problem in contract.pushed_by_zero(Jumps()))
    assert list(contract.pushed_by_zero(contract.Small())) == []


def test_a_detector_without_shallow_modules_skips_pim():
    detector = contract.Small()
    detector.shallow = ()
    assert contract.outcome("push", lambda: contract.pushed_by_zero(detector)).skipped


def test_a_wrong_setting_of_an_optimizer_is_told_once():
    with pytest.raises(RegistryError, match="rho must be"):
        next(contract.check_optimizer("sam", {"rho": -1}))
