"""Which versions of other libraries are installed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("av", "opencv-python-headless", "dlib-bin", "dlib", "lmdb", "numpy", "pandas", "pillow", "pyarrow")


def library_versions() -> dict[str, str]:
    """Versions of what content depends on, as installed; recorded, not part of the fingerprint."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
