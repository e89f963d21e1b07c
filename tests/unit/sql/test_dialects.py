"""The scheme of the DSN decides the dialect, and nothing above `sql/` does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from storemirror.config.load import load_settings
from storemirror.errors import ConfigError
from storemirror.model.load import load_model
from storemirror.sql.dialects import Dialect, Names, rendered_files, sql_parts
from storemirror.sql.postgres.parts import PostgresParts
from storemirror.sql.sqlserver.parts import SqlServerParts
from storemirror.sql.sqlserver.rendering import DEPLOY_FILE
from storemirror.wiring import Parts

SQLSERVER = "mssql://me:SECRET@db/shop"
POSTGRESQL = "postgresql://me:SECRET@db/shop"
SCRIPT = Path(__file__).parents[3] / "deploy" / DEPLOY_FILE


def names(schema_name: str | None = None) -> Names:
    """What is built in."""
    return Names(model=load_model(), schema_name=schema_name, procedures={})


def parts_of(**variables: str) -> Parts:
    """The parts by these environment variables alone."""
    environment = {"STOREMIRROR_FIRESTORE_PROJECT": "demo", **variables}
    return Parts(load_settings(None, environment))


@pytest.mark.parametrize(
    ("dsn", "kind"), [(SQLSERVER, SqlServerParts), (POSTGRESQL, PostgresParts)]
)
def test_the_scheme_decides_the_adapter(dsn: str, kind: type) -> None:
    """One setting, and everything above it stays as it is."""
    assert type(sql_parts(dsn, names(), project="p", store="s", max_size=2)) is kind


def test_each_dialect_has_a_schema_of_its_own_by_default() -> None:
    """SQL Server's clients look in dbo; a setting that is set holds in both."""
    assert [names().schema_in(dialect) for dialect in Dialect] == ["storemirror", "dbo"]
    assert {names("mine").schema_in(dialect) for dialect in Dialect} == {"mine"}


def test_what_is_rendered_follows_the_dsn_or_the_option() -> None:
    """An administrator gets the script for the database that is meant."""
    on_sqlserver = parts_of(STOREMIRROR_SQL_DSN=SQLSERVER)
    assert list(on_sqlserver.render_schema()) == [DEPLOY_FILE]
    assert list(on_sqlserver.render_schema(dialect=Dialect.POSTGRESQL)) != [DEPLOY_FILE]
    assert list(parts_of().render_schema()) != [DEPLOY_FILE]
    assert list(parts_of().render_schema(dialect=Dialect.SQLSERVER)) == [DEPLOY_FILE]


def test_a_schema_name_that_is_set_holds_on_sql_server_too() -> None:
    """The setting's own default is PostgreSQL's, and must not be taken for a choice."""
    plain = parts_of(STOREMIRROR_SQL_DSN=SQLSERVER)
    named = parts_of(STOREMIRROR_SQL_DSN=SQLSERVER, STOREMIRROR_SQL_SCHEMA_NAME="storemirror")
    assert ':setvar SchemaName "dbo"' in plain.render_schema()[DEPLOY_FILE]
    assert ':setvar SchemaName "storemirror"' in named.render_schema()[DEPLOY_FILE]


def test_a_driver_that_is_not_installed_names_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an extra, and has no wheel for every platform."""
    monkeypatch.setitem(sys.modules, "storemirror.sql.sqlserver.parts", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[sqlserver\]'"):
        sql_parts(SQLSERVER, names(), project="p", store="s", max_size=2)


async def test_a_dsn_that_is_none_is_refused_by_the_name_of_its_setting() -> None:
    """And is not repeated: it holds a password."""
    async with parts_of(STOREMIRROR_SQL_DSN="mssql://me:SECRET@db") as parts:
        with pytest.raises(ConfigError, match=r"sql\.dsn names no database") as caught:
            await parts.mirror()
    assert "SECRET" not in str(caught.value)


def test_the_deployment_script_is_what_is_rendered_today() -> None:
    """An administrator who runs a stale one installs the procedures of last month."""
    assert SCRIPT.read_text() == rendered_files(Dialect.SQLSERVER, names())[DEPLOY_FILE], (
        "run `make docs`"
    )
