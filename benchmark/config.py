"""A grid as its user writes it (YAML), checked; its product is the cells.

Config stops at `benchmark.run` and `benchmark.build`: below them there are only constructor arguments.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, StrictInt, field_validator, model_validator

from benchmark.by_detector import augmentation_of
from benchmark.protocol import Protocol, Strict
from benchmark.reading import ConfigError
from benchmark.specs import NO_SPLIT, DetectorSpec, Named, OptimizerSpec, TestSet, TrainData
from detectors import DETECTORS
from optimizers import OPTIMIZERS
from optimizers.base import Rule
from optimizers.bases import BASES
from optimizers.registry import RegistryError, did_you_mean, load_plugin

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a grid may be called: its runs lie in a folder of that name."""

Part = TypeVar("Part", bound=Strict)


def one_name_each(plugins: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse plug-ins of which a record, which knows them by their files' names, would name but one.

    Raises:
        ValueError: names the two.
    """
    known: dict[str, str] = {}
    for file in plugins:
        other = known.setdefault(Path(file).name, file)
        if other != file:
            raise ValueError(f"{other} and {file} have one file name, by which a record knows a plug-in; rename one of the two")
    return plugins


Plugins = Annotated[tuple[str, ...], AfterValidator(one_name_each)]
"""Plug-in files, each of another name."""


class Cell(Strict):
    """One training run: a detector under an optimizer with a seed. Fully resolved: defaults are written out."""

    grid: str
    part: str = ""
    detector: DetectorSpec
    optimizer: OptimizerSpec
    base: Named
    seed: int
    train: TrainData
    tests: tuple[TestSet, ...]
    protocol: Protocol
    plugins: Plugins = ()

    @property
    def id(self) -> str:
        """Readable slug and a short hash of the resolved settings.

        Plug-in paths do not count, since they differ between machines, nor does how often one looks at the gradients.
        """
        settings = self.model_dump(
            mode="json", exclude={"plugins": True, "grid": True, "part": True, "protocol": {"diagnostics_every"}}
        )
        parts = [(self.train, settings["train"]), (self.protocol, settings["protocol"])]
        for part, said in [*parts, *zip(self.tests, settings["tests"], strict=True)]:
            for name in part.younger_defaults():
                said.pop(name, None)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        slug = re.sub(r"[^a-z0-9]+", "-", f"{self.detector.title} {self.optimizer.title} s{self.seed}".lower()).strip("-")
        return f"{slug}-{digest}"

    def stores(self) -> list[str]:
        """Names of every store that the cell reads, the training store first."""
        return list(dict.fromkeys([self.train.store, *(t.store for t in self.tests)]))


class Grid(Strict):
    """Detectors x optimizers x seeds over one protocol, one training set and some test sets."""

    name: str = Field(pattern=NAME)
    title: str = ""
    part: str = Field("", pattern=rf"^$|{NAME}", description="name of this part of a study of several; see `benchmark.study`")
    train: TrainData
    tests: tuple[TestSet, ...] = Field(min_length=1)
    detectors: tuple[DetectorSpec, ...] = Field(min_length=1)
    optimizers: tuple[OptimizerSpec, ...] = Field(min_length=1)
    bases: dict[str, dict[str, Any]] = Field(default_factory=dict, description="settings of the base optimizers, by name")
    seeds: tuple[StrictInt, ...] = Field(min_length=1)
    protocol: Protocol
    plugins: Plugins = ()

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(s < 0 or s >= 2**32 for s in seeds) or len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be distinct and between 0 and 2**32 - 1")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        for key, settings in [*self.bases.items(), *(item for d in self.detectors for item in d.bases.items())]:
            if key not in BASES:
                raise ValueError(f"bases.{key}: unknown base optimizer, {did_you_mean(key, BASES)}")
            try:
                BASES[key].resolve(**settings)
            except RegistryError as error:
                raise ValueError(f"bases.{key}: {error}") from error
        for what, titles in (
            ("detectors", [d.title for d in self.detectors]),
            ("optimizers", [o.title for o in self.optimizers]),
            ("tests", [t.name for t in self.tests]),
        ):
            twice = sorted({t for t in titles if titles.count(t) > 1})
            if twice:
                raise ValueError(f"{what}: '{twice[0]}' stands there twice; give one of the two another label")
        domains = len(self.train.methods)
        if len(set(self.train.methods)) < domains:
            raise ValueError("train.methods: a method stands there twice")
        if self.train.val_split == self.train.train_split != NO_SPLIT:
            raise ValueError(f"train.val_split: '{self.train.val_split}' is the training split; validation needs faces of its own")
        given: list[tuple[str, TrainData | TestSet]] = [("train", self.train), *((f"tests: '{t.name}'", t) for t in self.tests)]
        for where, part in ((where, under(self.protocol, part)) for where, part in given):
            if part.frame_pick != "uniform" and part.frames is None:
                raise ValueError(
                    f"{where}: frame_pick '{part.frame_pick}' needs frames, such as 32; without it every face is taken"
                )
        for test in self.tests:
            self._check_test(test)
        if self.protocol.class_balance == "domains" and self.protocol.batch_size % (2 * domains):
            below = self.protocol.batch_size // (2 * domains) * 2 * domains
            raise ValueError(
                f"protocol.batch_size: {self.protocol.batch_size} faces cannot be split into {domains} domains of as many real as "
                f"fake faces; take a multiple of {2 * domains}, such as {max(below, 2 * domains)}"
            )
        return self

    def _check_test(self, test: TestSet) -> None:
        """A test set is what its role says, and shares no split with training or validation."""
        if test.name == "val":
            raise ValueError("tests: the name 'val' belongs to the validation set; take another")
        if test.store != self.train.store:
            if test.role != "cross-dataset":
                raise ValueError(f"tests: '{test.name}' is of another store than the training data: its role is cross-dataset")
            return
        if test.split in (self.train.train_split, self.train.val_split) and test.split != NO_SPLIT:
            raise ValueError(f"tests: '{test.name}' is split '{test.split}', on which the cells are trained or validated")
        known = set(self.train.methods)
        if test.role == "cross-dataset":
            raise ValueError(f"tests: '{test.name}' is of the training store: its role is in-domain or held-out")
        if test.methods is None:
            raise ValueError(f"tests: '{test.name}' is of the training store; name its methods, so that its role can be checked")
        if test.role == "in-domain" and not known.issuperset(test.methods):
            raise ValueError(f"tests: '{test.name}' is in-domain, but {min(set(test.methods) - known)} is no training method")
        if test.role == "held-out" and not known.isdisjoint(test.methods):
            raise ValueError(f"tests: '{test.name}' is held-out, but {min(known & set(test.methods))} is a training method")

    def cells(self) -> list[Cell]:
        """The product, detectors outermost, seeds innermost; every setting resolved.

        Raises:
            ConfigError: a name or setting that no registry has, or a value that a rule or detector refuses.
        """
        cells = []
        for detector in self.detectors:
            full_detector = _resolve(detector, DETECTORS).model_copy(update={"bases": {}})
            augment = augmentation_of(self.protocol.augment, detector.name)
            for optimizer in self.optimizers:
                full_optimizer, base = self._resolve_optimizer(optimizer, detector)
                for seed in self.seeds:
                    cells.append(
                        Cell(
                            grid=self.name,
                            part=self.part,
                            detector=full_detector,
                            optimizer=full_optimizer,
                            base=base,
                            seed=seed,
                            train=under(self.protocol, self.train),
                            tests=tuple(under(self.protocol, test) for test in self.tests),
                            protocol=self.protocol.model_copy(update={"augment": augment}),
                            plugins=self.plugins,
                        )
                    )
        return cells

    def _resolve_optimizer(self, spec: OptimizerSpec, detector: DetectorSpec) -> tuple[OptimizerSpec, Named]:
        full = _resolve(spec, OPTIMIZERS)
        try:
            OPTIMIZERS.build(full.name, **full.settings)
            wanted = spec.base if spec.base is not None else default_base(spec.name)
            base = dict(wanted) if isinstance(wanted, dict) else {"name": wanted}
            if "name" not in base:
                raise ConfigError(f"optimizer '{spec.title}': base has settings and no name; write base: {{name: adam, lr: ...}}")
            name = base.pop("name")
            if not isinstance(name, str):
                raise ConfigError(
                    f"optimizer '{spec.title}': the base's name is {name!r}, but it must be one of {', '.join(BASES)}"
                )
            if name not in BASES:
                raise ConfigError(f"optimizer '{spec.title}': unknown base optimizer '{name}', {did_you_mean(str(name), BASES)}")
            if spec.name in BASES and name != spec.name:
                raise ConfigError(
                    f"optimizer '{spec.title}' is {spec.name} itself; it cannot be spent by the base optimizer '{name}'"
                )
            # The optimizer's own settings go before the detector's, and these before the grid's.
            settings = BASES[name].resolve(**{**self.bases.get(name, {}), **detector.bases.get(name, {}), **base})
        except RegistryError as error:
            prefix = f"optimizer '{spec.title}': "
            raise ConfigError(prefix + str(error).removeprefix(prefix)) from error
        return full.model_copy(update={"base": None}), Named(name=name, **settings)


def under(protocol: Protocol, part: Part) -> Part:
    """A data set with the protocol's `frames` and `frame_pick` where it says none of its own."""
    said = part.model_fields_set
    return part.model_copy(update={name: getattr(protocol, name) for name in ("frames", "frame_pick") if name not in said})


def default_base(optimizer: str) -> str:
    """Name of the base optimizer that a rule takes where the user names none."""
    rule: type[Rule] = OPTIMIZERS.get(optimizer)
    return rule.base


def _resolve(spec: Any, registry: Any) -> Any:
    """The spec with every setting of its class written out, so that a later change of a default cannot pass unseen."""
    try:
        known = registry.settings(spec.name)
    except RegistryError as error:
        raise ConfigError(str(error)) from error
    for key in spec.settings:
        if key not in known:
            owner = next((base for base in BASES.values() if key in base.defaults), None) if registry is OPTIMIZERS else None
            where = f"the base has it, as in base: {{name: {owner.name}, {key}: ...}}" if owner else did_you_mean(key, known)
            raise ConfigError(f"{registry.kind} '{spec.name}' has no setting '{key}': {where}")
    missing = [key for key, default in known.items() if default is registry.NO_DEFAULT and key not in spec.settings]
    if missing:
        raise ConfigError(f"{registry.kind} '{spec.name}' needs the setting '{missing[0]}'")
    fields = {key: getattr(spec, key) for key in type(spec).model_fields}
    return type(spec)(**fields, **{key: spec.settings.get(key, default) for key, default in known.items()})


def load_plugins(files: Iterable[str]) -> None:
    """Load plug-in files; a failure is a ConfigError."""
    for file in files:
        try:
            load_plugin(file)
        except RegistryError as error:
            raise ConfigError(str(error)) from error
