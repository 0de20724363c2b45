"""The fields of a study in words, from the models that validate it: what the reference must say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from poleng_assets.study.schema import Study

_SIMPLE = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}


@dataclass(frozen=True)
class Field:
    """One key of the study file: the section that it stands in, its name, and what it may be."""

    section: str
    name: str
    words: str


def fields() -> list[Field]:
    """Return every key of a study file."""
    schema = Study.model_json_schema()
    return list(_fields(schema, schema["$defs"], "study"))


def _fields(model: dict[str, Any], models: dict[str, Any], section: str) -> Iterator[Field]:
    for name, described in model["properties"].items():
        reference = described.get("$ref") or described.get("items", {}).get("$ref")
        inner = models[reference.rsplit("/", 1)[-1]] if reference else {}
        if inner and inner["title"] != "Budget":
            below = name if section == "study" else f"{section}.{name}"
            yield from _fields(inner, models, below)
        else:
            yield Field(section, name, _words(inner or described))


def _words(described: dict[str, Any]) -> str:
    if "anyOf" in described:
        return " or ".join(_words(one) for one in described["anyOf"])
    if "enum" in described:
        return f"one of {', '.join(f'`{one}`' for one in described['enum'])}"
    kind = described["type"]
    if kind == "null":
        return "`null`"
    if kind in ("object", "array"):
        return _words_of_many(described)
    return _SIMPLE[kind] + _bounds(described)


def _words_of_many(described: dict[str, Any]) -> str:
    if "properties" in described:
        inside = (f"`{name}`: {_words(one)}" for name, one in described["properties"].items())
        return f"mapping ({'; '.join(inside)})"
    if "prefixItems" in described:
        return f"pair of {_words(described['prefixItems'][0])}"
    return f"list of {_words(described['items'])}" if "items" in described else "mapping of codes to texts"


def _bounds(described: dict[str, Any]) -> str:
    low, above = described.get("minimum"), described.get("exclusiveMinimum")
    high, below = described.get("maximum"), described.get("exclusiveMaximum")
    words = []
    if low is not None and high is not None:
        words.append(f"{_number(low)} to {_number(high)}")
    else:
        words += [f"at least {_number(low)}"] if low is not None else []
        words += [f"at most {_number(high)}"] if high is not None else []
    words += [f"above {_number(above)}"] if above is not None else []
    words += [f"below {_number(below)}"] if below is not None else []
    return f", {' and '.join(words)}" if words else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
