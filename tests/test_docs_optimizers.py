"""The code in docs/optimizers.md is the code that runs, and no method is left out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import optimizers.roga
from optimizers import OPTIMIZERS

PAGE = (Path(__file__).parent.parent / "docs" / "optimizers.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^\*\*([a-z, ]+)\*\*(.*?)```python\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL)
BUILT_IN = {"sgd", "adam", "sam", "asam", "gnp", "sagm", "roga", "pim", "dualflat"}


def test_every_method_has_its_section() -> None:
    assert sorted(name for names, _, _ in SECTIONS for name in names.split(", ")) == sorted(BUILT_IN)


@pytest.mark.parametrize(("names", "code"), [(names, code) for names, _, code in SECTIONS])
def test_code_is_that_of_the_rule(names: str, code: str) -> None:
    for name in names.split(", "):
        rule = OPTIMIZERS.get(name)
        method = optimizers.roga.RoGA._term if name == "roga" else rule.gradient
        body = re.sub(r'^.*?"""(.*?)"""\n', "", inspect.getsource(method), count=1, flags=re.DOTALL)
        assert body == code


@pytest.mark.parametrize(("names", "text"), [(names, text) for names, text, _ in SECTIONS])
def test_sources_are_those_of_the_rules(names: str, text: str) -> None:
    for number in re.findall(r"arXiv (\d{4}\.\d{5})", text):
        assert number in (OPTIMIZERS.get(names.split(", ")[0]).__doc__ or "")
