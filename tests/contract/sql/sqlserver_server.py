"""A T-SQL endpoint for the contract suite: each test has a schema of its own in one database."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping

from storemirror.errors import StoreMirrorError
from storemirror.model.entity import Model
from storemirror.sql.sqlserver.connection import CALL_TIMEOUT_S, Database, Sql, composed
from storemirror.sql.sqlserver.facts import read_facts
from storemirror.sql.sqlserver.locks import text
from storemirror.sql.sqlserver.naming import quoted
from tests.contract.sql.sqlserver import SqlServerInstalled

_NUMBERS = itertools.count(1)
_ABSENT = "absent"
#: Tables first: what refers to them goes with them, and no procedure holds one back.
_OBJECTS = """
SELECT o.name, RTRIM(o.type) FROM sys.objects AS o
JOIN sys.schemas AS s ON s.schema_id = o.schema_id
WHERE s.name = {schema} AND RTRIM(o.type) IN (N'U', N'V', N'P') AND o.parent_object_id = 0;
"""
_WORDS = {"U": "TABLE", "V": "VIEW", "P": "PROCEDURE"}


class SqlServerServer:
    """See `Server`: one database; a new schema in it stands for a new database."""

    def __init__(self, dsn: str, until_end: contextlib.AsyncExitStack) -> None:
        self._dsn = dsn
        self._until_end = until_end

    async def new_database(self) -> str:
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        self._until_end.push_async_callback(self._drop, name)
        await self._drop(name)
        return name

    def schema_name(self, address: str) -> str:
        return address

    async def absent_database(self) -> str:
        return _ABSENT

    async def opened(
        self,
        address: str,
        model: Model,
        *,
        project: str = "demo",
        store: str = "(default)",
        procedures: Mapping[str, str] | None = None,
    ) -> SqlServerInstalled:
        is_absent = address == _ABSENT
        dsn = in_database(self._dsn, "storemirror_absent") if is_absent else self._dsn
        installed = SqlServerInstalled(
            model, dsn, address, project=project, store=store, procedures=procedures or {}
        )
        self._until_end.push_async_callback(installed.database.aclose)
        return installed

    async def installed(self, model: Model) -> SqlServerInstalled:
        made = await self.opened(await self.new_database(), model)
        await made.schema.apply()
        await made.mirror.verify_schema()
        async with made.database.session() as session:
            made.honours_locks = (await read_facts(session)).is_microsofts
        return made

    async def _drop(self, schema: str) -> None:
        """Drop a schema with all that is in it."""
        database = Database(self._dsn, max_size=1)
        try:
            found = await database.fetch(composed(_OBJECTS, schema=text(schema)))
            async with database.session() as session:
                for name, kind in found:
                    drop = f"DROP {_WORDS[kind]} {quoted(schema)}.{quoted(name)};"
                    await session.run_alone(Sql(drop), CALL_TIMEOUT_S)
                is_there = f"SELECT COUNT(*) FROM sys.schemas WHERE name = {text(schema)};"
                if await session.run(Sql(is_there), (), CALL_TIMEOUT_S) != [[(0,)]]:
                    drop = f"DROP SCHEMA {quoted(schema)};"
                    await session.run_alone(Sql(drop), CALL_TIMEOUT_S)
        finally:
            await database.aclose()


def _said_ways(dsn: str) -> tuple[str, ...]:
    """Give the DSN as it is, and, when it says nothing of encryption, without proof and without."""
    weaker = ("trust_server_certificate=yes", "encrypt=no")
    return (dsn,) if "?" in dsn else (dsn, *(f"{dsn}?{option}" for option in weaker))


async def working_dsn(dsn: str) -> str:
    """Find how a test server is reached: it has seldom a certificate that anybody vouches for."""
    for said in _said_ways(dsn):
        database = Database(said, max_size=1)
        try:
            await database.fetch("SELECT 1;")
        except StoreMirrorError:
            if said == _said_ways(dsn)[-1]:
                raise
        else:
            return said
        finally:
            await database.aclose()
    raise AssertionError("there is one way at least")


def in_database(dsn: str, name: str) -> str:
    """Give the DSN of another database on the same server."""
    place, _, options = dsn.partition("?")
    base = place.rpartition("/")[0]
    return f"{base}/{name}{f'?{options}' if options else ''}"
