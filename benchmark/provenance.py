"""Where a number comes from: code, packages, machine. No host name, user or path."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("benchmark", "detectors", "optimizers")
"""The folders whose code a cell's numbers depend on once its stores are made (their fingerprints name those)."""
PACKAGES = (
    "torch",
    "torchvision",
    "efficientnet-pytorch",
    "pretrainedmodels",
    "timm",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "opencv-python-headless",
)


@lru_cache(maxsize=1)
def code_hash() -> str:
    """SHA-256 over the Python files that numbers depend on: names the code also where there is no git, or where it is dirty."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for file in sorted(f for f in (ROOT / room).rglob("*.py") if "cli" not in f.relative_to(ROOT).parts):
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file; read once as long as its size and time stay what they are, since all cells of a grid ask for it."""
    path = Path(path).resolve()
    seen = path.stat()
    return _hash(path, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout and whether it has changes; (None, None) where the code does not run from a git checkout."""
    if not (ROOT / ".git").exists():
        return None, None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return head, bool(status.strip())


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers can depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """The processor's model, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def arithmetic(device: str) -> str:
    """What beside its model decides how a GPU rounds: versions, and where "fp32" is TensorFloat-32; "" for a CPU."""
    if not device.startswith("cuda"):
        return ""
    try:
        import pynvml

        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no package, or a driver that does not tell
        driver = "unknown"
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return (
        f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {driver}, "
        f"TF32 in convolutions {'yes' if convolutions else 'no'}, in matrix products {'yes' if products else 'no'}"
    )


def device_name(device: str) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def inexact(device: str, cpus: Sequence[str] = ()) -> str:
    """Why a run on a device, or on these processors one after the other, may not repeat to the bit; empty where it does."""
    if not device.startswith("cuda"):
        return f"it ran on {', then on '.join(cpus)}, whose kernels may add in another order" if len(cpus) > 1 else ""
    return (
        "torch was asked for deterministic kernels (torch.use_deterministic_algorithms, warn_only), but some CUDA operations have "
        "none, and another GPU, driver or cuDNN adds in another order"
    )


def own_version() -> str:
    """Version of dfgrid."""
    try:
        return version("deepfake-grid")
    except PackageNotFoundError:
        return "not installed"
