"""`dfgrid` in the process that tests it, which saves the seconds of starting Python and importing torch."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmark.cli import main


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str, str]:
    """Run `dfgrid ARGS`; exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["dfgrid", *map(str, args)])
    capsys.readouterr()
    code: Any = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    return int(code or 0), out, err
