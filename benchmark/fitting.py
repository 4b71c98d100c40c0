"""Whether detector, optimizer and protocol of each cell fit each other: asked of them alone, before any data are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmark.config import Cell, ConfigError
from benchmark.needs import check_needs
from benchmark.specs import DetectorSpec, OptimizerSpec
from detectors import DETECTORS
from detectors.base import Detector
from optimizers import OPTIMIZERS
from optimizers.registry import RegistryError


def check_fit(
    cells: Iterable[Cell], weights: bool = True, told: Callable[[int, int], None] = lambda done, total: None
) -> list[str]:
    """Build every detector once, on the CPU, and let each rule that it meets get to know it.

    Rules that differ in numbers alone (rho, alpha) ask the same of a detector, so one of them is enough.

    Args:
        cells: which are to run.
        weights: read the detectors' first weights, too, from their files.
        told: (detectors looked at, detectors), as it goes on.

    Returns:
        Sentences about the first weights that were read: of which file, how many tensors, and what stays at its random start.

    Raises:
        RegistryError: a detector that cannot be built so: a setting, a weights file.
        ConfigError: a detector or domains that a rule refuses, or a detector that needs what the protocol does not give. One
            sentence names both.
    """
    of: dict[str, tuple[DetectorSpec, list[Cell]]] = {}
    for cell in cells:
        of.setdefault(cell.detector.model_dump_json(), (cell.detector, []))[1].append(cell)
    loaded = []
    for number, (spec, its) in enumerate(of.values()):
        told(number, len(of))
        detector: Detector = DETECTORS.build(spec.name, **(spec.settings if weights else spec.without_weights))
        if detector.loaded is not None:
            loaded.append(f"first weights of {spec.title}: {detector.loaded}")
        for cell in {f"{cell.protocol} {cell.train.methods}": cell for cell in its}.values():
            check_needs(spec.name, detector, cell.protocol, len(cell.train.methods))
        for cell in {f"{_kind(cell.optimizer)} {cell.train.methods}": cell for cell in its}.values():
            try:
                rule = OPTIMIZERS.build(cell.optimizer.name, **cell.optimizer.settings)
                rule.check(detector)
                rule.check_domains(cell.train.methods)
                rule.attach(detector)
            except RegistryError as error:
                raise ConfigError(f"optimizer '{cell.optimizer.title}': {error}") from error
    told(len(of), len(of))
    return loaded


def _kind(spec: OptimizerSpec) -> str:
    return f"{spec.name} { {key: value for key, value in spec.settings.items() if not isinstance(value, float)} }"
