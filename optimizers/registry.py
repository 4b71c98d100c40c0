"""One table of names: built in, registered by a plug-in file, or announced by an installed package.

Shared by the rooms `detectors` and `optimizers` (the one import between rooms that CONTRIBUTING.md names).
Importing this module imports neither torch nor any detector or optimizer.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class RegistryError(ValueError):
    """A user's mistake about a name or a setting: one sentence that says what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, and all of them.

    >>> did_you_mean("sma", ["adam", "sam"])
    "did you mean 'sam'? Known: adam, sam"
    """
    names = sorted(known)
    if not names:
        return "there are none"
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(names)}"


class Registry:
    """Names to classes, imported only when asked for.

    Args:
        kind: what an entry is called in a message, e.g. ``"detector"``.
        builtin: name -> ``"module:Class"``.
        group: entry-point group through which installed packages add names.
        families: first part of a name -> ``"module:function"``, for names that are too many to list. The function is given the
            rest of the name and returns the class, or raises a RegistryError.
    """

    NO_DEFAULT: ClassVar[Any] = inspect.Parameter.empty

    def __init__(self, kind: str, builtin: dict[str, str], group: str, families: dict[str, str] | None = None) -> None:
        self.kind = kind
        self.group = group
        self.families = families or {}
        self._members: dict[str, type] = {}
        self._builtin = tuple(sorted(builtin))
        self._specs: dict[str, str | type] = dict(builtin)
        self._installed = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Decorator: add a class under `name`.

        Raises:
            RegistryError: no name in front of the class, something else than a class, or a name that another class has taken.
        """
        if not isinstance(name, str):
            raise RegistryError(f'every {self.kind} needs a name: write register("NAME") above {_called(name)}')

        def add(cls: type[T]) -> type[T]:
            if not isinstance(cls, type):
                raise RegistryError(f"{self.kind} '{name}' is {_called(cls)}, not a class; register the class that it builds")
            taken = self._specs.get(name)
            # A plug-in file may be loaded twice (by the parent and by a worker, or by two grids): its own entry may be renewed.
            same = isinstance(taken, type) and (taken.__module__, taken.__qualname__) == (cls.__module__, cls.__qualname__)
            if taken is not None and not same:
                raise RegistryError(f"{self.kind} name '{name}' is already taken by {taken}; register under another name")
            self._specs[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """All known names, sorted, without those of `families`."""
        self._load_installed()
        return sorted(self._specs)

    def builtin(self) -> tuple[str, ...]:
        """The names that come with the project, sorted."""
        return self._builtin

    def get(self, name: str) -> type:
        """The class behind `name`.

        Raises:
            RegistryError: if no such name is known; the sentence holds the nearest name. If what an installed package announces
                under it is no class.
        """
        self._load_installed()
        if name not in self._specs:
            return self._member(name)
        spec = self._specs[name]
        if isinstance(spec, str):
            found = _imported(spec)
            if not isinstance(found, type):
                raise RegistryError(
                    f"{self.kind} '{name}' is {_called(found)} ({spec}), not a class; announce the class that it builds"
                )
            spec = self._specs[name] = found
        return spec

    def _member(self, name: str) -> type:
        family = next((prefix for prefix in self.families if name.startswith(prefix)), None)
        if family is None:
            known = [*self._specs, *(f"{prefix}<name>" for prefix in self.families)]
            raise RegistryError(f"unknown {self.kind} '{name}': {did_you_mean(name, known)}")
        if name not in self._members:
            self._members[name] = _imported(self.families[family])(name.removeprefix(family))
        return self._members[name]

    def settings(self, name: str) -> dict[str, Any]:
        """The settings that `name` takes, with their defaults (`Registry.NO_DEFAULT` where there is none)."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        return {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    def build(self, name: str, **settings: Any) -> Any:
        """Construct the entry.

        Raises:
            RegistryError: unknown name or setting (with the nearest one), or a value that the class refuses.
        """
        cls = self.get(name)
        known = self.settings(name)
        for key in settings:
            if key not in known:
                raise RegistryError(f"{self.kind} '{name}' has no setting '{key}': {did_you_mean(key, known)}")
        try:
            return cls(**settings)
        except RegistryError:
            raise
        except (ValueError, TypeError) as error:
            raise RegistryError(f"{self.kind} '{name}': {' '.join(str(error).split())}") from error

    def _load_installed(self) -> None:
        if not self._installed:
            self._installed = True
            for point in entry_points(group=self.group):
                self._specs.setdefault(point.name, point.value)


def _called(thing: Any) -> str:
    """A thing in words, e.g. "the function build"."""
    kind = "class" if isinstance(thing, type) else type(thing).__name__
    return f"the {kind} {thing.__name__}" if hasattr(thing, "__name__") else f"the {kind} {thing!r}"


def _imported(spec: str) -> Any:
    module, _, attribute = spec.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_plugin(path: str | Path) -> None:
    """Execute a Python file from outside the project, whose decorators add names to the registries.

    Raises:
        RegistryError: if the file is missing or fails to import; the sentence names file and error.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise RegistryError(f"plug-in file {path} " + ("is a folder" if file.is_dir() else "does not exist"))
    # The module name depends on the path, so two plug-ins that are both called "mine.py" do not replace each other.
    name = f"dfgrid_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RegistryError(f"plug-in file {path} is no Python file (it must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except RegistryError as error:
        del sys.modules[name]
        raise RegistryError(f"plug-in file {path}: {error}") from error
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        told = " ".join(str(error).split())  # one sentence, whatever the file says
        raise RegistryError(f"plug-in file {path} fails to load: {type(error).__name__}: {told}") from error
