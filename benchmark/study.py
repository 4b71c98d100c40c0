"""What a grid file holds: one grid, or several that belong together because one table shows them.

A table of a paper is seldom one product. Leave-one-forgery-out has four training sets; a sensitivity table has one optimizer
under many settings; a backbone table has rows with and without augmentation. `parts:` says so: each part is the file's common
content with some keys of its own. A `mini:` block holds what is different on the drawn mini dataset, so that a whole table can
be tried in minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.config import Cell, ConfigError, Grid, load_plugins
from benchmark.reading import parse, read_yaml
from optimizers.registry import did_you_mean

GRIDS = Path(__file__).parent / "grids"


@dataclass(frozen=True)
class Study:
    """Grids under one name, with one folder of runs.

    Attributes:
        name: what `dfgrid table` and the runs' folder call it.
        title: the table's title.
        parts: at least one; a file without `parts:` has a single one, which has no name.
        mini: whether the file's `mini:` block was applied.
    """

    name: str
    title: str
    parts: tuple[Grid, ...]
    mini: bool = False

    def wanted(self) -> list[Cell]:
        """Every cell of every part, in order. Two parts may want the same cell."""
        return [cell for part in self.parts for cell in part.cells()]

    def cells(self) -> list[Cell]:
        """What has to be run: each different cell once.

        Raises:
            ConfigError: a name or setting that no registry has, or a value that a rule or detector refuses.
        """
        different: dict[str, Cell] = {}
        for cell in self.wanted():
            different.setdefault(cell.id, cell)
        return list(different.values())


def study_of(grid: Grid) -> Study:
    """A study with this grid as its only part."""
    return Study(grid.name, grid.title, (grid,))


def grid_names() -> dict[str, Path]:
    """The grids that come with dfgrid: name (as `demo` or `roga/table4`) -> file."""
    return {str(p.relative_to(GRIDS).with_suffix("").as_posix()): p for p in sorted(GRIDS.rglob("*.yaml"))}


def load_grid(source: str | Path, plugins: Iterable[str] = (), mini: bool = False) -> Study:
    """Read a grid file, or the grid of that name that comes with dfgrid.

    Plug-ins (those of the file, relative to it, and those given) are loaded first, so that their names are known.

    Args:
        source: a YAML file, or a name as in `grid_names`.
        plugins: Python files that register more names.
        mini: apply the file's `mini:` block; the study is then called NAME-mini.

    Raises:
        ConfigError: anything the user can mend, as one sentence.
    """
    path = _find(source)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys such as name, train, detectors, optimizers")
    listed = content.get("plugins") or []
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list) or not all(isinstance(p, str) for p in listed):
        raise ConfigError(f"{path}: plugins must be a list of file names, not {listed!r}")
    files = [str((path.parent / p).resolve()) for p in listed] + [str(Path(p).resolve()) for p in plugins]
    load_plugins(files)
    content = {**content, "plugins": list(dict.fromkeys(files))}
    small = content.pop("mini", None)
    parts = content.pop("parts", None)
    if mini:
        if not isinstance(small, dict):
            raise ConfigError(f"{path} has no block `mini:`, which says how the grid is scaled down to the mini dataset")
        own = small.pop("parts", {})
        content = merge({**content, "name": f"{content.get('name')}-mini"}, small)
        parts = _scaled_down(parts, own, path)
    if parts is None:
        grid: Grid = parse(Grid, content, str(path))
        return Study(grid.name, grid.title, (grid,), mini)
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) and isinstance(p.get("part"), str) for p in parts):
        raise ConfigError(f"{path}: parts must be a list of mappings, each with the key `part` (its name) and what differs in it")
    names = [p["part"] for p in parts]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{path}: the part '{twice[0]}' stands there twice; give one of the two another name")
    grids = tuple(parse(Grid, merge(content, p), f"{path}, part {p['part']}") for p in parts)
    return Study(grids[0].name, grids[0].title, grids, mini)


def _scaled_down(parts: Any, own: Any, path: Path) -> Any:
    """The parts, each with what `mini: parts:` says of it by its name."""
    known = [p["part"] for p in parts or [] if isinstance(p, dict) and isinstance(p.get("part"), str)]
    if not isinstance(own, dict) or not all(isinstance(changes, dict) for changes in own.values()):
        raise ConfigError(f"{path}: mini.parts must be a mapping from a part's name to what differs in it")
    for name in own:
        if name not in known:
            raise ConfigError(f"{path}: mini.parts names '{name}', which is no part: {did_you_mean(str(name), known)}")
    return [merge(p, own.get(p.get("part"), {})) if isinstance(p, dict) else p for p in parts] if own else parts


def merge(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`common` with the keys of `own` over it; mappings are merged key by key, lists and values replaced."""
    both = dict(common)
    for key, value in own.items():
        before = both.get(key)
        both[key] = merge(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return both


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.exists():
        return path
    known = grid_names()
    if str(source) in known:
        return known[str(source)]
    if str(source) in (dashed := {name.replace("/", "-"): file for name, file in known.items()}):
        return dashed[str(source)]  # what the grid calls itself, and its folder of runs
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"grid file {source} does not exist; grids that come with dfgrid: {', '.join(known)}")
    raise ConfigError(f"unknown grid '{source}': {did_you_mean(str(source), known)}")
