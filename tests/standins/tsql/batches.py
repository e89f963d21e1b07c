"""Runs the batches that the SQL Server adapter sends, on PostgreSQL; see the package."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from storemirror.sql.sqlserver.connection import translated_errors
from storemirror.sql.sqlserver.errors import ServerError
from tests.standins.tsql.reading import statements_of, tokens_of
from tests.standins.tsql.server import Thrown, TsqlServer, Variables

#: What the adapter asks of a server and this one cannot tell: the batch has it -> the answer.
_KNOWN: tuple[tuple[str, list[list[tuple[Any, ...]]]], ...] = (
    ("compatibility_level", [[(0, 150, "db", 1)]]),
)
_UPDATEABILITY = "CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS NVARCHAR(20))"
#: Of SQLSTATEs the number that SQL Server gives.
_NUMBERS = {"23514": 547, "23502": 515, "22007": 241, "22008": 241, "22P02": 8114, "22003": 8115}


_RESOURCE = re.compile(r"@Resource = N'([^']*)'")


class BatchServer(TsqlServer):
    """Takes whole batches with parameters, and gives each result set apart."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        *,
        leaves_escapes: bool = False,
        is_copy: bool = False,
    ) -> None:
        super().__init__(
            conn,
            honours_hints=not leaves_escapes,
            leaves_escapes=leaves_escapes,
            is_copy=is_copy,
        )
        self._results: list[list[tuple[Any, ...]]] = []

    def run(self, batch: str, parameters: Sequence[object]) -> list[list[tuple[Any, ...]]]:
        """
        Run a batch in a transaction of its own.

        Raises:
            ServerError: it threw, or PostgreSQL refused it.
        """
        for words, answer in _KNOWN:
            if words in batch:
                return answer
        batch = batch.replace(_UPDATEABILITY, "'READ_WRITE'")
        variables = self._variables()
        for number, value in enumerate(parameters):
            batch = batch.replace("?", f"@P{number}", 1)
            variables[f"@p{number}"] = value
        batch = re.sub(r"SET TRANSACTION ISOLATION LEVEL [A-Z ]+;", "", batch)
        if (resource := _RESOURCE.search(batch)) is not None:
            variables["@resourcename"] = resource[1]
            batch = _RESOURCE.sub("@Resource = @ResourceName", batch)
        self._results = []
        try:
            with self.conn.transaction():
                self._run_all(statements_of(_one_declared_each(batch)), variables)
        except Thrown as exc:
            raise ServerError(exc.number, str(exc).partition(": ")[2]) from exc
        except psycopg.Error as exc:
            number = _NUMBERS.get(exc.sqlstate or "", 0)
            raise ServerError(number, exc.diag.message_primary or str(exc)) from exc
        return self._results

    def _execute(self, text: str, variables: Variables) -> None:
        count = len(self.rows)
        super()._execute(text, variables)
        if text.startswith("SELECT"):
            self._results.append([_as_driver_gives(row) for row in self.rows[count:]])


class BatchDatabase:
    """Stands where the adapter's connection pool is."""

    def __init__(self, server: BatchServer) -> None:
        self.server = server
        self.is_broken = False

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[BatchDatabase]:
        with translated_errors():
            yield self

    async def run(
        self, batch: str, parameters: Sequence[object] = (), timeout_s: float = 0
    ) -> list[list[tuple[Any, ...]]]:
        del timeout_s
        return self.server.run(batch, parameters)

    async def run_alone(self, batch: str, timeout_s: float) -> list[list[tuple[Any, ...]]]:
        return await self.run(batch, (), timeout_s)

    async def fetch(self, batch: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with translated_errors():
            [rows] = await self.run(batch, parameters)
        return rows


def _one_declared_each(batch: str) -> str:
    """Write `DECLARE @A INT = 1, @B INT` as two statements."""

    def apart(found: re.Match[str]) -> str:
        parts, depth = [""], 0
        for token in tokens_of(found[1]):
            depth += {"(": 1, ")": -1}.get(token, 0)
            if token == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += token
        return "".join(f"DECLARE {part.strip()};\n" for part in parts)

    return re.sub(r"DECLARE ([^;]*);", apart, batch)


def _as_driver_gives(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give moments as the driver does: without a zone."""
    return tuple(
        value.astimezone(UTC).replace(tzinfo=None)
        if isinstance(value, datetime) and value.tzinfo is not None
        else value
        for value in row
    )
