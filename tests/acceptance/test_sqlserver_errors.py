"""What an operator reads when SQL Server says no: by the real commands and the real driver.

The server is a stand-in that speaks its protocol and knows no SQL.
"""

from __future__ import annotations

import ctypes.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Operator
from tests.standins.tds import TdsStandIn, error, rows, running

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("ltdl") is None,
    reason="needs SQL Server's driver to load: as root, apt-get install libltdl7",
)

FACTS = ("IsMicrosofts", "Level", "Name", "HasSnapshots")
CAUGHT = ("StoreMirrorError", "ErrorMessage", "ErrorProcedure")


@pytest.fixture
async def stand_in() -> AsyncIterator[TdsStandIn]:
    """A server that lets everybody in."""
    async with running(TdsStandIn()) as one:
        yield one


@pytest.fixture
def operator(stand_in: TdsStandIn, tmp_path: Path) -> Operator:
    """A deployment whose mirror is there."""
    return Operator(
        {
            "STOREMIRROR_FIRESTORE_PROJECT": "demo",
            "STOREMIRROR_SQL_DSN": f"mssql://me:SECRET@127.0.0.1:{stand_in.port}/db?encrypt=no",
        },
        tmp_path,
    )


def empty_schema(batch: str, *, version: int = 1, level: int = 150) -> bytes:
    """Answer as a database in which a schema is registered and nothing of it is there."""
    answers = {
        "compatibility_level": rows(FACTS, (1, level, "db", 1)),
        "sp_getapplock": rows(("Granted",), (1,)),
        "OBJECT_ID(w.Name)": rows(("Place", "Id")),
        "sys.sql_modules": rows(("A",)) * 6,
        "SELECT SchemaVersion": rows(("V", "P", "D"), (version, "demo", "(default)")),
    }
    return next((answer for words, answer in answers.items() if words in batch), b"")


async def test_a_wrong_password_is_named(operator: Operator, stand_in: TdsStandIn) -> None:
    """And not repeated."""
    stand_in.refusal = lambda _: error(18456, "Login failed for user 'me'.", severity=14)
    found = await operator.runs("schema", "status")
    assert found.status == 5
    assert "user or password in STOREMIRROR_SQL_DSN are wrong" in found.err
    assert "SECRET" not in found.err


async def test_a_database_that_is_not_there_is_named(
    operator: Operator, stand_in: TdsStandIn
) -> None:
    """It is not the password that is to be changed."""
    refused = error(4060, 'Cannot open database "db".', severity=11)
    refused += error(18456, "Login failed for user 'me'.", severity=14)
    stand_in.refusal = lambda name: refused if name == "db" else b""
    found = await operator.runs("schema", "status")
    assert found.status == 5
    assert "may sign in, and not into database db" in found.err


async def test_a_right_that_is_missing_leads_to_the_grants(
    operator: Operator, stand_in: TdsStandIn
) -> None:
    """The server says which, the page says how."""
    words = "The EXECUTE permission was denied on the object 'sp_getapplock'."
    stand_in.answer = lambda batch: (
        rows(CAUGHT, (229, words, None)) if "sp_getapplock" in batch else b""
    )
    found = await operator.runs("schema", "apply")
    assert found.status == 5
    assert words in found.err
    assert "docs/howto/sql-server.md" in found.err


async def test_a_low_compatibility_level_names_the_statement_that_sets_it(
    operator: Operator, stand_in: TdsStandIn
) -> None:
    """Before anything is made that could not be called."""
    stand_in.answer = lambda batch: empty_schema(batch, level=120)
    for command in (("schema", "status"), ("schema", "apply")):
        found = await operator.runs(*command)
        assert found.status == 5
        assert "has compatibility level 120" in found.err
        assert "ALTER DATABASE [db] SET COMPATIBILITY_LEVEL = 130" in found.err
    assert not any("CREATE TABLE" in batch for batch in stand_in.batches)


async def test_a_schema_of_another_version_is_left_alone(
    operator: Operator, stand_in: TdsStandIn
) -> None:
    """An old release must not put its procedures over those of a new one."""
    stand_in.answer = lambda batch: empty_schema(batch, version=99)
    told = await operator.runs("schema", "status")
    assert told.status == 1
    assert "schema version 99 is installed, this code works on 1" in told.out
    refused = await operator.runs("schema", "apply")
    assert refused.status == 6
    assert "schema version 99 is installed, later than this code's" in refused.err
    assert not any("CREATE TABLE" in batch for batch in stand_in.batches)


async def test_a_server_that_is_not_there_is_waited_for_by_name(tmp_path: Path) -> None:
    """Status 5, as of any outage, and what to look at."""
    operator = Operator(
        {
            "STOREMIRROR_FIRESTORE_PROJECT": "demo",
            "STOREMIRROR_SQL_DSN": "mssql://me:SECRET@127.0.0.1:1/db",
        },
        tmp_path,
    )
    found = await operator.runs("schema", "status")
    assert found.status == 5
    assert "the mirror's database" in found.err
    assert "SECRET" not in found.err


async def test_a_dsn_that_cannot_be_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """With the name of the setting."""
    operator = Operator(
        {"STOREMIRROR_FIRESTORE_PROJECT": "demo", "STOREMIRROR_SQL_DSN": "mssql://me:SECRET@db"},
        tmp_path,
    )
    found = await operator.runs("schema", "status")
    assert found.status == 4
    assert "sql.dsn names no database" in found.err
    assert "SECRET" not in found.err
