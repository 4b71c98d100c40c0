"""YAML and settings as their user wrote them; every complaint about them is one sentence in the user's words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from optimizers.registry import did_you_mean


class ConfigError(ValueError):
    """A user's mistake in a grid or on the command line: one sentence that says what to do."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text, where researchers mean a number; and of a key that stands there twice it takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key.value}' stands there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_PLAIN = {
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "dict_type": "must be a mapping of keys and values",
    "model_type": "must be a mapping of keys and values",
    "model_attributes_type": "must be a mapping of keys and values",
    "too_short": "must have at least one entry",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
}
"""Where pydantic speaks of Python's types: the same in YAML's words, by type of the error; in braces what pydantic fills in."""

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: missing, unreadable or not YAML; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The content of some YAML, whose numbers may be written as researchers write them (2e-4).

    Args:
        text: the YAML.
        source: where it stands, for the message.

    Raises:
        ConfigError: not YAML; names source and line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{source}, line {line}: no valid YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError) as error:  # PyYAML lets a ValueError through for a date that does not exist
        raise ConfigError(f"{source}: no valid YAML ({str(error).splitlines()[0]})") from error


def parse(model: type[Any], content: dict[str, Any], source: str) -> Any:
    """`content` as a `model`; every complaint of pydantic's in the user's words.

    Raises:
        ConfigError: names source, key and value, with the nearest key where one is unknown.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors()
        # One bad entry of a list makes pydantic also say that the list is too short.
        told = [e for e in found if e["type"] != "too_short" or not any(len(o["loc"]) > len(e["loc"]) for o in found)]
        raise ConfigError(f"{source}: {'; '.join(_sentence(model, e) for e in told[:3])}") from error


def _sentence(model: type[BaseModel], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        parent = model
        for part in error["loc"][:-1]:
            parent = _child(parent, part)
        return f"unknown key '{where}', {did_you_mean(str(error['loc'][-1]), parent.model_fields)}"
    if error["type"] == "missing":
        return f"the key '{where}' is missing"
    plain = _PLAIN.get(error["type"])
    message = plain.format_map(error.get("ctx", {})) if plain else error["msg"].removeprefix("Value error, ")
    if not where:
        return message
    shown = json.dumps(error.get("input"), default=str)
    return f"{where}: {message}" + (f", not {shown}" if len(shown) < 60 else "")


def _child(model: Any, part: str | int) -> Any:
    """The model class behind a field, through tuples."""
    if isinstance(part, int):
        return model
    annotation = model.model_fields[part].annotation
    for candidate in [annotation, *getattr(annotation, "__args__", ())]:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model
