"""What is rendered for PostgreSQL, and what is refused before anything is opened."""

from __future__ import annotations

import re

import pytest

from storemirror.errors import ConfigError
from storemirror.model.crosscheck import RESERVED_TABLES
from storemirror.model.load import load_model
from storemirror.sql.names import snake_case
from storemirror.sql.postgres.rendering import Rendering, quoted


def rendering(schema_name: str = "storemirror", **procedures: str) -> Rendering:
    """The built-in entities."""
    return Rendering(load_model(), schema_name=schema_name, procedures=procedures)


def test_rendering_is_the_same_each_time() -> None:
    """Else the deployment script would never be fresh."""
    assert rendering().deploy_sql() == rendering().deploy_sql()


def test_nothing_is_ever_dropped_but_what_is_made_anew() -> None:
    """Tables, columns and data outlive every deployment."""
    text = rendering().deploy_sql().upper()
    drops = set(re.findall(r"\bDROP\s+\w+", text))
    assert drops == {"DROP CONSTRAINT", "DROP DEFAULT", "DROP INDEX"}
    assert "TRUNCATE" not in text


def test_the_text_ends_lines_cleanly_and_keeps_its_indent() -> None:
    """Database administrators read it; a loop in the template must leave no traces."""
    text = rendering().deploy_sql()
    assert "{%" not in text
    assert "{{" not in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    body = re.sub(r"(?ms)^CREATE TABLE.*?^\)", "", text)
    strays = [line for line in body.splitlines() if re.match(r'["a-z]', line)]
    assert strays == []


def test_another_schema_has_locks_of_its_own() -> None:
    """Two mirrors in one database must not hold each other up."""
    locks = {
        frozenset(re.findall(r"advisory_xact_lock\w*\((\d+)\)", rendering(name).deploy_sql()))
        for name in ("storemirror", "other")
    }
    assert len(locks) == 2
    assert not frozenset.intersection(*locks)


def test_a_name_is_quoted() -> None:
    """Declared names may be words of SQL."""
    assert quoted('a"b') == '"a""b"'


@pytest.mark.parametrize("name", ["x" * 64, "é" * 32])
def test_a_name_that_postgresql_would_cut_is_refused(name: str) -> None:
    """It counts bytes; cut, two names could become one."""
    with pytest.raises(ConfigError, match="at most 63 bytes"):
        rendering(SQL_PROC_UPSERT_DM_MESSAGE=name)
    with pytest.raises(ConfigError, match="at most 63 bytes"):
        rendering(name)


def test_a_name_with_and_without_the_schema_is_one_name() -> None:
    """The second procedure would silently replace the first."""
    with pytest.raises(ConfigError, match="UpsertDmMessage and of DeleteDmMessage"):
        rendering(SQL_PROC_UPSERT_DM_MESSAGE="storemirror.same", SQL_PROC_DELETE_DM_MESSAGE="same")


@pytest.mark.parametrize("name", ["a.b.c", ".a", "a.", ""])
def test_a_name_of_no_procedure_is_refused(name: str) -> None:
    """One schema and one name, or a name alone."""
    with pytest.raises(ConfigError, match="no name of a procedure"):
        rendering(SQL_PROC_UPSERT_DM_MESSAGE=name)


def test_no_entity_can_be_called_as_a_table_of_ours() -> None:
    """Its rows would lie among the book-keeping."""
    rendering = Rendering(load_model(), schema_name="storemirror", procedures={})
    # Names of entities stand in quotes.
    own = re.findall(r'CREATE TABLE IF NOT EXISTS "storemirror"\.(\w+) ', rendering.tables_sql())
    assert sorted(own) == sorted(snake_case(name) for name in RESERVED_TABLES)
