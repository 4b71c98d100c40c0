"""Nested settings as text: for what is compared, and for what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `outer.inner` -> text."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
            # Test sets and the like: each goes by its name.
            flat |= flat_settings({str(v.get("name", i)): v for i, v in enumerate(value)}, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            flat[prefix + key] = "/".join(map(str, value)) or "none"
        else:
            flat[prefix + key] = "none" if value is None else str(value)
    return flat


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Nested settings as one line: `epochs 10, batch_size 30, clip none`."""
    return ", ".join(f"{key} {value}" for key, value in flat_settings(settings).items())
