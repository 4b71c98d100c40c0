"""A plug-in is known by its content: what was made with one is not taken for what another makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_cell import cell, grid

from benchmark.config import ConfigError, load_plugins
from benchmark.launch import run_cells
from benchmark.run import run_cell
from benchmark.train import Stopped
from detectors import DETECTORS

OWN = """
from detectors import DETECTORS
from detectors.meso import Meso4

@DETECTORS.register("own")
class Own(Meso4):
    pass
"""


def test_a_changed_plug_in_is_refused(data: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("# nothing yet\n")
    with pytest.raises(Stopped):
        run_cell(cell(plugins=[str(plugin)]), tmp_path / "c", data, should_stop=lambda: True)
    plugin.write_text("# another\n")
    with pytest.raises(ConfigError, match=r"another plug-in plugin\.py"):
        run_cell(cell(plugins=[str(plugin)]), tmp_path / "c", data)


def test_a_changed_plug_in_under_another_name_is_refused(data: Path, tmp_path: Path) -> None:
    """The registered name is the same; an added plug-in, or one that was renamed only, is nothing to refuse."""
    files = {name: tmp_path / f"{name}.py" for name in ("first", "renamed", "added", "changed")}
    files["first"].write_text(OWN)
    files["renamed"].write_text(OWN)
    files["added"].write_text("# nothing yet\n")
    files["changed"].write_text(OWN.replace("pass", "scale = 2"))

    def done(*names: str) -> list[str]:
        DETECTORS._specs.pop("own", None)
        for name in [name for name in sys.modules if name.startswith("dfgrid_plugin_")]:
            del sys.modules[name]
        plugins = [str(files[name]) for name in names]
        load_plugins(plugins)
        own = cell(detectors=[{"name": "own", "size": 32}], optimizers=["sgd"], plugins=plugins)
        return run_cells([own], tmp_path / "runs", data).skipped

    assert done("first") == []
    for names in (("first",), ("renamed",), ("first", "added")):
        assert len(done(*names)) == 1
    with pytest.raises(
        ConfigError, match=r"with another detector 'own' than that of .*changed\.py; give .* made with \(first\.py\)"
    ):
        done("changed")


def test_two_plug_ins_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a/mine\.py and .*b/mine\.py have one file name"):
        grid(plugins=[str(tmp_path / "a" / "mine.py"), str(tmp_path / "b" / "mine.py")])
