"""The front page shows what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_links_and_pictures_are_there() -> None:
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if "://" not in t]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_the_example_is_the_file() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert shown.strip() in (ROOT / "examples/my_detector.py").read_text(encoding="utf-8")


def test_commands_exist() -> None:
    from typer.main import get_command

    from benchmark.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    named = re.findall(r"^dfgrid ([a-z]+)", README, flags=re.M)
    assert named
    assert set(named) <= set(known)
