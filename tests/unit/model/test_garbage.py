"""Whatever stands in a declaration is reported, and never ends in a traceback."""

from __future__ import annotations

import copy
import tomllib
from datetime import date, time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from storemirror.config.toml_lines import TomlLines
from storemirror.model.crosscheck import check_together
from storemirror.model.declared import read_declaration
from tests.unit.model.declarations import SHOP

LINES = TomlLines(SHOP)
ENTITIES = tomllib.loads(SHOP)["entity"]
WORDS = st.sampled_from(
    ["", "a", "Order", "orderId", "a.b", "a:1", "{x}", "x/{y}", "text", "[key]"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just(date.max)
GARBAGE = st.recursive(
    SCALARS | st.just(time.max),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def places_in(value: Any) -> list[tuple[Any, ...]]:
    """List the places of everything within a value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    places: list[tuple[Any, ...]] = []
    for key, inner in parts:
        places.append((key,))
        if isinstance(inner, dict | list):
            places += [(key, *place) for place in places_in(inner)]
    return places


@given(st.data())
def test_garbage_anywhere_is_a_mistake_and_not_a_crash(data: st.DataObject) -> None:
    """The file is a person's: anything may stand anywhere."""
    entities = copy.deepcopy(ENTITIES)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places_in(entities)))
        table = entities
        for key in way:
            table = table[key]
        table[last] = data.draw(GARBAGE)
    declarations, mistakes = [], []
    for index, table in enumerate(e for e in entities if isinstance(e, dict)):
        declaration, found = read_declaration(
            table, file="f", is_builtin=False, index=index, lines=LINES
        )
        declarations.append(declaration)
        mistakes += found
    mistakes += check_together(declarations, are_complete=True)
    assert all(m.what and m.cure and m.where for m in mistakes)
