"""What schedules in each dialect begin with."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from storemirror.sql.postgres.server import EmbeddedServer
from tests.exhaustive.database import Session
from tests.exhaustive.postgres import PostgresSession
from tests.support.databases import lent_database
from tests.support.servers import sqlserver_dsn

_NUMBERS = itertools.count()


@pytest.fixture
def example_count() -> int:
    """How many random schedules a test of them runs."""
    return 150


class Sessions:
    """Makes sessions of one dialect, each in a place of its own; they are gone after the test."""

    def __init__(self, dialect: str, postgres_dsn: str, until_end: contextlib.ExitStack) -> None:
        """Make none yet."""
        self._dialect = dialect
        self._postgres_dsn = postgres_dsn
        self._until_end = until_end

    def make(self, *faults: tuple[str, str]) -> Session:
        """Install the mirror, with faults planted or none."""
        session = self._made(faults)
        self._until_end.callback(session.close)
        return session

    def _made(self, faults: tuple[tuple[str, str], ...]) -> Session:
        if self._dialect == "postgres":
            name = f"schedules_{next(_NUMBERS)}"
            dsn = self._until_end.enter_context(lent_database(self._postgres_dsn, name))
            return PostgresSession(dsn, faults=faults)
        # The driver is an extra, and loaded only where a server is.
        from tests.exhaustive.sqlserver import (  # noqa: PLC0415
            NobodyToHold,
            SqlServerSession,
        )

        try:
            return SqlServerSession(sqlserver_dsn(), faults=faults)
        except NobodyToHold as exc:
            pytest.skip(f"needs SQL Server: {exc}")


@pytest.fixture
def sessions(dialect: str, postgres: EmbeddedServer) -> Iterator[Sessions]:
    """Lend a maker of sessions in each dialect."""
    with contextlib.ExitStack() as until_end:
        yield Sessions(dialect, postgres.dsn("postgres"), until_end)
