"""The reference of declarations is true: its examples load, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storemirror.model.crosscheck import MAX_KEY_LENGTH, RESERVED_COLUMNS, RESERVED_TABLES
from storemirror.model.declared import MAX_NAME_LENGTH, DeclaredEntity
from storemirror.model.types import ColumnType
from tests.unit.model.declarations import model_of

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "declarations.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_reference_loads(tmp_path: Path, example: str) -> None:
    """It is what a newcomer copies."""
    names = re.findall(r'^name +.*"(\w+)"', example, re.MULTILINE)
    model = model_of(tmp_path, example, with_builtin=True)
    assert set(names) - {"OrderReader"} <= {e.name for e in model}


def test_the_reference_names_every_type_key_and_reserved_name() -> None:
    """What is not in it does not exist for its readers."""
    kinds = [t.value for t in ColumnType]
    keys = ["name", "check", "path", "category", "audit", "raw", "replace", "key_length"]
    assert set(keys) < set(DeclaredEntity.model_fields)
    for word in (*kinds, *keys, *RESERVED_COLUMNS, *RESERVED_TABLES):
        assert f"`{word}`" in TEXT
    assert f"at most {MAX_NAME_LENGTH} characters" in TEXT
    assert f"at most {MAX_KEY_LENGTH}:" in TEXT
