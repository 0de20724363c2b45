"""The differences of two studies, field by field; comments, spaces and number formats are ignored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poleng_assets.study.schema import Study

_SHOWN = 8


@dataclass(frozen=True)
class Difference:
    """One field that differs between two studies.

    Attributes:
        field: its path, such as ``policies.overseer.min_rows`` or ``features.sex.codes.1``.
        before: in the first study, None if the field is missing.
        after: in the second study, None if the field is missing.
    """

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.field}: new, {self.after!r}"
        if self.after is None:
            return f"{self.field}: removed, was {self.before!r}"
        return f"{self.field}: {self.before!r} becomes {self.after!r}"


def differences(before: Study, after: Study) -> list[Difference]:
    """Return the fields that differ between two studies, in the order of the study file."""
    if before == after:
        return []
    first, second = _fields(before), _fields(after)
    return [
        Difference(field, first.get(field), second.get(field))
        for field in {**first, **second}
        if first.get(field) != second.get(field)
    ]


def listed(differing: Sequence[Difference]) -> str:
    """Return the names of the first differing fields, for a message."""
    names = ", ".join(difference.field for difference in differing[:_SHOWN])
    return names + (f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else "")


def _fields(study: Study) -> dict[str, Any]:
    """Return every field by its path: a feature by its name, a code by its number."""
    content = study.model_dump()
    content["features"] = {feature.pop("name"): feature for feature in content["features"]}
    content["features"]["(order)"] = study.feature_names
    return dict(_leaves("", content))


def _leaves(path: str, content: Any) -> list[tuple[str, Any]]:
    if not isinstance(content, dict):
        return [(path, content)]
    return [leaf for key, value in content.items() for leaf in _leaves(f"{path}.{key}".lstrip("."), value)]
