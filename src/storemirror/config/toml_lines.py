"""
Where each key of a TOML file stands.

`tomllib` gives values without their places; tree-sitter gives the places.  Pure.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Final

import tree_sitter
import tree_sitter_toml

#: Names and indexes from the root to a value: ("entity", 0, "columns", "sentAt").
Place = tuple[str | int, ...]

_LANGUAGE: Final = tree_sitter.Language(tree_sitter_toml.language())
_TABLES: Final = ("table", "table_array_element")


class TomlLines(Mapping[Place, int]):
    """The line, from 1, of each table, pair and array element of one file."""

    def __init__(self, text: str) -> None:
        """Read the places of a text that `tomllib` has accepted."""
        self._lines: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}
        root = tree_sitter.Parser(_LANGUAGE).parse(text.encode()).root_node
        for node in root.named_children:
            if node.type == "pair":
                self._add_pair((), node)
            elif node.type in _TABLES:
                self._add_table(node)

    def __getitem__(self, place: Place) -> int:
        """Give the line of exactly this place; see `nearest` for one that may not be there."""
        return self._lines[place]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def nearest(self, place: Place) -> int:
        r"""Give the line of this place, else of what it would stand in; 0 for the whole file.

        >>> lines = TomlLines('[bus]\ntopic = "x"')
        >>> lines.nearest(("bus", "topic")), lines.nearest(("bus", "dsn")), lines.nearest(("sql",))
        (2, 1, 0)
        """
        for end in range(len(place), 0, -1):
            line = self._lines.get(place[:end])
            if line is not None:
                return line
        return 0

    def _add(self, place: Place, node: tree_sitter.Node) -> None:
        self._lines.setdefault(place, node.start_point.row + 1)

    def _add_table(self, node: tree_sitter.Node) -> None:
        header = node.named_children[0]
        place = self._resolved(_names(header), node, is_element=node.type == _TABLES[1])
        for child in node.named_children[1:]:
            if child.type == "pair":
                self._add_pair(place, child)

    def _resolved(self, names: list[str], node: tree_sitter.Node, *, is_element: bool) -> Place:
        """Put into a header's names the index of the array element that is being filled."""
        place: Place = ()
        for index, name in enumerate(names):
            place = (*place, name)
            self._add(place, node)
            is_last = index == len(names) - 1
            if is_last and is_element:
                self._counts[place] = self._counts.get(place, 0) + 1
            if place in self._counts:
                place = (*place, self._counts[place] - 1)
                self._add(place, node)
        return place

    def _add_pair(self, place: Place, node: tree_sitter.Node) -> None:
        key, value = node.named_children[0], node.named_children[-1]
        for name in _names(key):
            place = (*place, name)
            self._add(place, node)
        self._add_value(place, value)

    def _add_value(self, place: Place, node: tree_sitter.Node) -> None:
        children = [child for child in node.named_children if child.type != "comment"]
        if node.type == "inline_table":
            for child in children:
                if child.type == "pair":
                    self._add_pair(place, child)
        elif node.type == "array":
            for index, child in enumerate(children):
                self._add((*place, index), child)
                self._add_value((*place, index), child)


def _names(key: tree_sitter.Node) -> list[str]:
    """Give the names of a dotted, quoted or bare key."""
    if key.type == "dotted_key":
        return [name for child in key.named_children for name in _names(child)]
    text = (key.text or b"").decode()
    return [next(iter(tomllib.loads(f"{text} = 0")))] if key.type == "quoted_key" else [text]


def syntax_mistake(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    r"""
    Give the line of a syntax error, and what is wrong there.

    >>> text = "[a]\nb = "
    >>> try:
    ...     _ = tomllib.loads(text)
    ... except tomllib.TOMLDecodeError as error:
    ...     print(syntax_mistake(text, error))
    (2, 'Invalid value')
    """
    what, _, where = str(error).rpartition(" (at ")
    if where.startswith("line "):
        return int(where.removeprefix("line ").partition(",")[0]), what
    return max(1, len(text.splitlines())), what or str(error)
