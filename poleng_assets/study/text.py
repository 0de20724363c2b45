"""The text of a study file: its values as written, and their lines.

YAML 1.1 reads ``032`` as 26, ``1:30`` as 90 and ``No`` as false, which would change codes and labels of a
questionnaire. So only numbers, booleans and nulls of YAML 1.2's core schema
(https://yaml.org/spec/1.2.2/#103-core-schema) are recognised, numbers are decimal, and keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

_NOTHING = re.compile(r"~|null|Null|NULL|")
_TRUTH = re.compile(r"true|True|TRUE|false|False|FALSE")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
# LibYAML's parser is five times as fast; wheels have it, other builds may not.
if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"


class _AsWritten(_SafeLoader):
    """Reads plain scalars by the core schema; of older YAML only the merging of mappings is kept."""

    yaml_implicit_resolvers = {"<": [(f"{_PREFIX}merge", re.compile("<<"))]}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Merged keys are put first, in a copy: the parsed tree is not changed.
        node = yaml.MappingNode(node.tag, list(node.value), node.start_mark, node.end_mark)
        self.flatten_mapping(node)
        content: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text or a number", key.start_mark
                )
            content[key.value] = self.construct_object(value, deep=deep)
        return content

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """Return the value of a scalar; with quotes or a tag it is always text."""
        written = self.construct_scalar(node)
        if node.style:
            return written
        if _NOTHING.fullmatch(written):
            return None
        if _TRUTH.fullmatch(written):
            return written.lower() == "true"
        if _WHOLE.fullmatch(written):
            return int(written)
        if _DECIMAL.fullmatch(written):
            return float(written.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return written


for _kind in ("str", "null", "bool", "int", "float", "timestamp"):
    _AsWritten.add_constructor(_PREFIX + _kind, _AsWritten.construct_plain)


class Repeated(NamedTuple):
    """A key that occurs twice in one mapping: the location and line of the later one, and the earlier one."""

    location: tuple[str, ...]
    line: int
    earlier: str
    earlier_line: int


class StudyText:
    """A study file that is YAML.

    Attributes:
        content: of the file: mappings with text keys, lists, and scalar values.
    """

    def __init__(self, text: str) -> None:
        """Parse a text; raises ``yaml.YAMLError`` if it is not YAML."""
        loader = _AsWritten(text)
        try:
            self._tree = loader.get_single_node()
            self.content: Any = None if self._tree is None else loader.construct_document(self._tree)
        finally:
            loader.dispose()

    def line_of(self, location: tuple[str, ...]) -> int:
        """Return the line (from 1) of the deepest node on the way to ``location``."""
        return self._walk(location)[0]

    def written(self, location: tuple[str, ...]) -> str | None:
        """Return the scalar at a location as written; None if there is no scalar."""
        _, node, reached = self._walk(location)
        return node.value if reached and isinstance(node, yaml.ScalarNode) else None

    def repeated_keys(self, same: Callable[[tuple[str, ...], str], object]) -> Iterator[Repeated]:
        """Yield each key that occurs twice in one mapping, of which YAML would use the last one.

        Args:
            same: returns the identity of a key, from the location of its mapping and the key.
        """
        yield from _repeated((), self._tree, same, set())

    def _walk(self, location: tuple[str, ...]) -> tuple[int, Any, bool]:
        node: Any = self._tree
        line = node.start_mark.line + 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                pair = next((p for p in node.value if p[0].value == part), None)
                if pair is None:
                    return line, node, False
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
                node = node.value[int(part)]
                line = node.start_mark.line + 1
            else:
                return line, node, False
        return line, node, True


def _repeated(
    location: tuple[str, ...], node: Any, same: Callable[[tuple[str, ...], str], object], seen_nodes: set[int]
) -> Iterator[Repeated]:
    if id(node) in seen_nodes:  # an alias may be inside its own anchor
        return
    seen_nodes.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[object, tuple[str, int]] = {}
        for key, value in node.value:
            line, identity = key.start_mark.line + 1, same(location, key.value)
            if identity in seen:
                yield Repeated((*location, key.value), line, *seen[identity])
            seen[identity] = key.value, line
            yield from _repeated((*location, key.value), value, same, seen_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated((*location, str(index)), item, same, seen_nodes)
