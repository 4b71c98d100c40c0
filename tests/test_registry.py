"""Names, settings and plug-ins; a mistake is one sentence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from optimizers import OPTIMIZERS
from optimizers import registry as module
from optimizers.registry import Registry, RegistryError, did_you_mean, load_plugin

ROOT = Path(__file__).parent.parent


@dataclass
class Entry:
    size: int
    rho: float = 0.1

    def __post_init__(self) -> None:
        if self.rho < 0:
            raise ValueError("rho must not be negative")


@pytest.fixture
def table() -> Registry:
    found = Registry("thing", {"first": "optimizers.sam:SAM", "other": "does.not:Exist"}, "dfgrid.nothing")
    found.register("entry")(Entry)
    return found


def test_names_and_lazy_import(table: Registry) -> None:
    assert table.names() == ["entry", "first", "other"]  # 'other' cannot be imported, and need not be
    assert table.get("first").__name__ == "SAM"
    assert table.get("entry") is Entry
    assert table.build("entry", size=3, rho=0.2) == Entry(3, 0.2)
    assert table.settings("entry") == {"size": Registry.NO_DEFAULT, "rho": 0.1}


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("entri", {}, "unknown thing 'entri': did you mean 'entry'\\? Known: entry, first, other"),
        ("zzz", {}, "unknown thing 'zzz': Known: entry, first, other"),
        ("entry", {"size": 1, "roh": 0.1}, "thing 'entry' has no setting 'roh': did you mean 'rho'\\? Known: rho, size"),
        ("entry", {"size": 1, "rho": -1}, "thing 'entry': rho must not be negative"),
        ("entry", {}, "thing 'entry'.*size"),
    ],
)
def test_mistakes(table: Registry, name: str, settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(RegistryError, match=sentence):
        table.build(name, **settings)


def test_did_you_mean() -> None:
    assert did_you_mean("sma", ["sam", "adam"]) == "did you mean 'sam'? Known: adam, sam"
    assert did_you_mean("qqq", ["sam", "adam"]) == "Known: adam, sam"


@pytest.mark.parametrize("name", ["entry", "first"])
def test_a_taken_name_is_refused(table: Registry, name: str) -> None:
    class Another:
        pass

    with pytest.raises(RegistryError, match=f"thing name '{name}' is already taken"):
        table.register(name)(Another)
    table.register("entry")(Entry)  # the same class again is no conflict


def test_installed_packages_add_names(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("extra", "optimizers.gnp:GNP", "dfgrid.test"), EntryPoint("mine", "x:Y", "dfgrid.test")]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "dfgrid.test" else [])
    table = Registry("thing", {"mine": "optimizers.sam:SAM"}, "dfgrid.test")
    assert table.names() == ["extra", "mine"]
    assert table.get("extra").__name__ == "GNP"
    assert table.get("mine").__name__ == "SAM"  # an installed package does not take a built-in name


def test_an_installed_package_that_announces_a_function_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("extra", "optimizers.registry:load_plugin", "dfgrid.test")]
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    table = Registry("thing", {}, "dfgrid.test")
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"thing 'extra' is the function load_plugin \(.*:load_plugin\), not a class"):
            table.build("extra")


PLUGIN = """
from dataclasses import dataclass
from optimizers import OPTIMIZERS
from optimizers.base import Rule

@OPTIMIZERS.register("{name}")
@dataclass
class Mine(Rule):
    rho: float = 0.5

    def gradient(self, objective):
        return objective.gradient()
"""


def test_plugin(tmp_path: Path) -> None:
    for folder, name in (("a", "from_a"), ("b", "from_b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(PLUGIN.format(name=name))
        load_plugin(tmp_path / folder / "mine.py")
    load_plugin(tmp_path / "a" / "mine.py")  # a second time does nothing
    assert {"from_a", "from_b"} <= set(OPTIMIZERS.names())
    assert OPTIMIZERS.build("from_a", rho=0.2).rho == 0.2
    with pytest.raises(RegistryError, match=r"optimizer 'from_a' has no setting 'r': .*rho"):
        OPTIMIZERS.build("from_a", r=1)


def test_plugin_that_takes_a_name(tmp_path: Path) -> None:
    (tmp_path / "sam.py").write_text(PLUGIN.format(name="sam"))
    with pytest.raises(RegistryError, match="optimizer name 'sam' is already taken"):
        load_plugin(tmp_path / "sam.py")
    assert OPTIMIZERS.get("sam").__module__ == "optimizers.sam"


@pytest.mark.parametrize("when", ["once", "again"])
def test_what_one_test_registers_is_gone_in_the_next(tmp_path_factory: pytest.TempPathFactory, when: str) -> None:
    file = tmp_path_factory.getbasetemp() / "forgotten.py"  # one path for both: a module that stayed would not be loaded again
    file.write_text(PLUGIN.format(name="forgotten"))
    assert "forgotten" not in OPTIMIZERS.names(), when
    load_plugin(file)
    assert "forgotten" in OPTIMIZERS.names(), when


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "plug-in file .*mine.py does not exist"),
        ("import nothing_of_this_name", "mine.py fails to load: ModuleNotFoundError: .*nothing_of_this_name"),
        ("def broken(:", "mine.py fails to load: SyntaxError"),
        ("raise KeyError('x')", "mine.py fails to load: KeyError"),
    ],
)
def test_plugin_that_fails(tmp_path: Path, content: str | None, sentence: str) -> None:
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(RegistryError, match=sentence):
            load_plugin(file)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("@OPTIMIZERS.register('mine')\ndef build(): ...", "mine.py: optimizer 'mine' is the function build, not a class"),
        (
            "@OPTIMIZERS.register\nclass Mine: ...",
            r"mine.py: every optimizer needs a name: write register\(\"NAME\"\) above the class Mine",
        ),
        ("OPTIMIZERS.register('mine')(3)", "mine.py: optimizer 'mine' is the int 3, not a class"),
    ],
)
def test_plugin_that_registers_no_named_class(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "mine.py").write_text(f"from optimizers import OPTIMIZERS\n{line}\n")
    names = OPTIMIZERS.names()
    with pytest.raises(RegistryError, match=sentence):
        load_plugin(tmp_path / "mine.py")
    assert OPTIMIZERS.names() == names


def test_plugin_that_is_no_python_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x = 1")
    with pytest.raises(RegistryError, match=r"must end in \.py"):
        load_plugin(tmp_path / "mine.txt")


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from optimizers import OPTIMIZERS; from detectors import DETECTORS; "
        "print(len(OPTIMIZERS.names()) > 8, len(DETECTORS.names()) > 3, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_every_built_in_name_leads_to_a_class() -> None:
    from optimizers.base import Rule

    for name, spec in OPTIMIZERS._specs.items():
        if isinstance(spec, type) or spec.startswith("optimizers."):
            assert issubclass(OPTIMIZERS.get(name), Rule)


def test_a_family_of_names_is_made_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def family(rest: str) -> type:
        made.append(rest)
        if rest == "none":
            raise RegistryError("no such member")
        return type(rest, (Entry,), {})

    monkeypatch.setattr(module, "made_for_this_test", family, raising=False)
    table = Registry("thing", {}, "dfgrid.nothing", families={"lib/": "optimizers.registry:made_for_this_test"})
    assert table.names() == []
    assert table.get("lib/one") is table.get("lib/one")
    assert table.build("lib/one", size=2).size == 2
    assert made == ["one"]
    with pytest.raises(RegistryError, match="no such member"):
        table.get("lib/none")
    with pytest.raises(RegistryError, match=r"unknown thing 'lob/one': .*Known: lib/<name>"):
        table.get("lob/one")
