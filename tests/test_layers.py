"""Who may import whom: the four rooms know neither each other nor benchmark, which knows them all."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("preprocessing", "detectors", "optimizers", "results")
SHARED = {"detectors": ("optimizers.registry",)}  # the named exception: both rooms keep their table of names in one class


def imports(source: str, package: str) -> list[str]:
    """The dotted names that a module of `package` imports, with what is imported from where; relative ones made absolute."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            found += [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
    return found


def violations(source: str, package: str) -> list[str]:
    """The imports of a module of `package` that its room may not make."""
    room = package.split(".")[0]
    others = {"benchmark", "tests", "examples", *ROOMS} - {room}
    shared = SHARED.get(room, ())
    bad = [
        n for n in imports(source, package) if n.split(".")[0] in others and not f"{n}.".startswith(tuple(f"{s}." for s in shared))
    ]
    if room == "optimizers":
        known = {"torch", "optimizers", *sys.stdlib_module_names}
        bad += [name for name in imports(source, package) if name.split(".")[0] not in known and name not in bad]
    return bad


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_it_may_not(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = {}
    for file in files:
        package = ".".join(file.relative_to(ROOT).parent.parts)
        if bad := violations(file.read_text(encoding="utf-8"), package):
            found[str(file.relative_to(ROOT))] = bad
    assert not found


@pytest.mark.parametrize(
    ("package", "line", "bad"),
    [
        ("detectors", "import benchmark.train", ["benchmark.train"]),
        ("detectors", "from optimizers.registry import Registry", []),
        ("detectors", "from optimizers import registry", []),
        ("detectors", "from optimizers import OPTIMIZERS", ["optimizers.OPTIMIZERS"]),
        ("detectors", "import optimizers", ["optimizers"]),
        ("detectors", "from optimizers.registry_of_others import x", ["optimizers.registry_of_others.x"]),
        ("detectors", "from ..optimizers.sam import SAM", ["optimizers.sam.SAM"]),
        ("detectors", "from .base import Batch", []),
        ("detectors", "def late():\n    import results.record", ["results.record"]),
        ("preprocessing.layouts", "from .. import store", []),
        ("preprocessing", "from optimizers.registry import Registry", ["optimizers.registry.Registry"]),
        ("results", "from preprocessing.store import FaceStore", ["preprocessing.store.FaceStore"]),
        ("optimizers", "import torch.nn, math, optimizers.vector", []),
        ("optimizers", "import numpy as np", ["numpy"]),
        ("optimizers", "from detectors.base import Batch", ["detectors.base.Batch"]),
    ],
)
def test_the_rule_tells_right_from_wrong(package, line, bad):
    assert violations(line, package) == bad
