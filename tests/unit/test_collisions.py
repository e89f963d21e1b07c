"""Settings that would have the mirror written into what StoreMirror watches."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from storemirror.config.collisions import OWN_SCHEMAS, collisions

ONE = {"sql.dsn": "db", "documents.dsn": "db", "bus.dsn": "db"}


@pytest.mark.parametrize(("dsn", "schema"), OWN_SCHEMAS.items())
def test_a_mirror_in_a_schema_of_our_own_is_refused(dsn: str, schema: str) -> None:
    """Its rows would be watched documents, or events: each one calls for the next."""
    (problem,) = collisions(places=ONE, schema_name=schema, procedures={})
    assert "sql.schema_name" in problem
    assert dsn in problem


@pytest.mark.parametrize(("dsn", "schema"), OWN_SCHEMAS.items())
def test_a_procedure_in_a_schema_of_our_own_is_refused(dsn: str, schema: str) -> None:
    """It could take the place of a routine of ours."""
    procedures = {"SQL_PROC_UPSERT_DM_MESSAGE": f"{schema}.publish"}
    (problem,) = collisions(places=ONE, schema_name="storemirror", procedures=procedures)
    assert "SQL_PROC_UPSERT_DM_MESSAGE" in problem
    assert dsn in problem


def test_one_database_with_a_schema_each_is_no_collision() -> None:
    """Small deployments have one database."""
    procedures = {"SQL_PROC_UPSERT_DM_MESSAGE": "mine.bus", "SQL_PROC_DELETE_DM_MESSAGE": "bus"}
    assert collisions(places=ONE, schema_name="storemirror", procedures=procedures) == []


@pytest.mark.parametrize("schema", OWN_SCHEMAS.values())
def test_a_database_of_its_own_may_have_any_schema(schema: str) -> None:
    """There is nothing of ours to collide with."""
    places = ONE | {"sql.dsn": "other"}
    assert collisions(places=places, schema_name=schema, procedures={}) == []
    assert collisions(places={"sql.dsn": "db"}, schema_name=schema, procedures={}) == []


def test_without_a_mirror_nothing_collides() -> None:
    """The trigger receiver knows no SQL database."""
    assert collisions(places={"bus.dsn": "db"}, schema_name="bus", procedures={}) == []


def test_the_schemas_are_those_that_the_scripts_create() -> None:
    """A guard for another name than the real one guards nothing."""
    scripts = [
        resources.files("storemirror.bus") / "postgres_sql" / "1_tables.sql",
        resources.files("storemirror.source") / "embedded_schema.sql",
    ]
    created = {
        schema
        for script in scripts
        for schema in re.findall(r"CREATE SCHEMA IF NOT EXISTS (\w+)", script.read_text())
    }
    assert created == set(OWN_SCHEMAS.values())
