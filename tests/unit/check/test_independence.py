"""The checker's reading of a document is its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import storemirror.check

FORBIDDEN = {"storemirror.model.mapping", "storemirror.event.digest"}
HERE = Path(storemirror.check.__file__).parent


def imported_modules(source: str) -> set[str]:
    """Give every module, and every name in a module, that a source file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", ["decode.py", "compare.py"])
def test_the_checker_imports_neither_mapping_nor_digest(name: str) -> None:
    """A mistake in the mapping would show on both sides and never be seen."""
    assert not imported_modules((HERE / name).read_text()) & FORBIDDEN


@pytest.mark.parametrize(
    "source",
    [
        "import storemirror.model.mapping",
        "from storemirror.model import mapping",
        "def f():\n    from storemirror.event.digest import digest_of",
    ],
)
def test_the_guard_sees_every_way_to_import(source: str) -> None:
    """A guard nobody has seen fail is not a guard."""
    assert imported_modules(source) & FORBIDDEN
