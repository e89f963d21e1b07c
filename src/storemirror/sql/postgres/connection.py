"""
Connections to PostgreSQL, and psycopg's errors as ours.

The only module that imports psycopg: the mirror, the laptop bus and the embedded document store
all come through here.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from storemirror.errors import (
    BusRefused,
    BusUnavailable,
    ConfigError,
    DatabaseRefused,
    SourceUnavailable,
    SqlUnavailable,
    StoreMirrorError,
    TransientError,
)

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
Cursor: TypeAlias = psycopg.AsyncCursor[TupleRow]
#: A statement: a literal, or one composed of quoted identifiers.
Statement: TypeAlias = LiteralString | sql.SQL | sql.Composed | bytes

#: How long a connection may take to be made, and to come out of the pool.
CONNECT_TIMEOUT_S: Final = 5.0
#: How long the server lets a client keep a transaction open, and with it row locks, without a word
#: (idle), and how long it waits for a client that takes nothing of an answer.  A process that is
#: stopped keeps its connections alive: nothing but these ends what it holds.
STALL_TIMEOUT_S: Final = 60.0

#: SQLSTATEs and classes with which a retry may go through later: the server, or this process that
#: lay idle in a transaction (25P03, 25P04), is in trouble, and not the statement.
_TRANSIENT_CLASSES: Final = ("08", "53", "57", "58")
_TRANSIENT_STATES: Final = ("25006", "25P03", "25P04", "40001", "40P01", "55P03", "55006")
#: Permission denied.
_NO_RIGHT: Final = "42501"
#: What to do about a server in trouble, where its own words leave that open.
_CURES: Final = {
    "25006": "it is read-only, as a standby is: make it writable, or name the one that is",
    "53100": "its disk is full: give it room",
    "53300": "it has no connection left: raise max_connections, or run fewer writers",
}


class Kind:
    """Whose database it is: which errors a caller sees when it fails."""

    def __init__(
        self,
        name: str,
        unavailable: type[TransientError],
        refused: type[StoreMirrorError],
        *,
        pins_views: bool = False,
        rights: str = "",
    ) -> None:
        """
        Name the database for messages.

        Args:
            name: what it is called there.
            unavailable: what its trouble becomes.
            refused: what its refusals become.
            pins_views: whether transactions may lie idle on purpose.
            rights: what to do where a right is missing.
        """
        self.name = name
        self.unavailable = unavailable
        self.refused = refused
        self.pins_views = pins_views
        self.rights = rights


MIRROR: Final = Kind(
    "the mirror's database",
    SqlUnavailable,
    DatabaseRefused,
    rights="the user has not the right: `storemirror schema grants` writes what it needs",
)
BUS: Final = Kind("the bus's database", BusUnavailable, BusRefused)
DOCUMENTS: Final = Kind(
    "the documents' database", SourceUnavailable, DatabaseRefused, pins_views=True
)


def is_transient(exc: psycopg.Error) -> bool:
    """Tell whether the server, not the statement, is in trouble."""
    state = exc.sqlstate
    if state is None:
        return isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _TRANSIENT_STATES or state[:2] in _TRANSIENT_CLASSES


def described(exc: psycopg.Error) -> str:
    """Give the server's own words, without its DETAIL: that quotes rows."""
    message = exc.diag.message_primary or str(exc).strip().split("\n")[0] or type(exc).__name__
    return f"{message} (SQLSTATE {exc.sqlstate})" if exc.sqlstate else message


def _cure(exc: psycopg.Error) -> str:
    """Say what to do, and that it is all there is to do; nothing where we know no better."""
    cure = _CURES.get(exc.sqlstate or "")
    return f"; {cure}, and what waits goes on by itself" if cure else ""


@contextlib.contextmanager
def translated_errors(kind: Kind) -> Iterator[None]:
    """Turn psycopg's errors into ours.  The original stays as `__cause__`."""
    try:
        yield
    except psycopg.Error as exc:
        if is_transient(exc):
            raise kind.unavailable(f"{kind.name}: {described(exc)}{_cure(exc)}") from exc
        cure = f"; {kind.rights}" if exc.sqlstate == _NO_RIGHT and kind.rights else ""
        raise kind.refused(f"{kind.name} refused: {described(exc)}{cure}") from exc


def _settings_of(stall_timeout_ms: str) -> Mapping[str, str]:
    """Fix what a role or a database may have another default for."""
    return {
        "default_transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": stall_timeout_ms,
        "tcp_user_timeout": stall_timeout_ms,
    }


def has_news(conn: Connection) -> bool:
    """Tell whether a connection on which nothing was asked has ended, or has something to say."""
    if conn.closed:
        return True
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Pool(AsyncConnectionPool[Connection]):
    """
    A pool that lends no connection which was cut while it lay there.

    After an outage each of them would cost a caller an error.  The pool's own `check` asks the
    server at each call, and waits a second after one that was cut.
    """

    async def getconn(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the pool has it
    ) -> Connection:
        """See `AsyncConnectionPool.getconn`."""
        # One that was cut makes room for a new one: they come to an end.
        for _ in range(self.max_size):
            conn = await super().getconn(timeout)
            # Only one that may have ended is asked, which costs a round trip.
            if not has_news(conn) or await self._answers(conn):
                return conn
        return await super().getconn(timeout)

    async def _answers(self, conn: Connection) -> bool:
        """Ask the server on a connection, and give it back when nobody answers."""
        try:
            await self.check_connection(conn)
        except psycopg.Error:
            await self.putconn(conn)
            return False
        except BaseException:
            await self.putconn(conn)
            raise
        return True


class Database:
    """A pool of connections to one database.

    Connections are in autocommit: a transaction is opened where one is meant.
    """

    def __init__(
        self,
        dsn: str,
        kind: Kind,
        *,
        max_size: int = 8,
        application_name: str = "storemirror",
        options: str = "",
        session: Mapping[str, str] | None = None,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        """
        Name the database; nothing is opened before `open`.

        Args:
            dsn: a libpq connection string or URI.
            kind: which errors its failures become.
            max_size: most connections.
            application_name: shown in `pg_stat_activity`.
            options: libpq `options`, such as "-c statement_timeout=5s".
            session: settings that every connection begins with: name -> value.
            stall_timeout_s: see `STALL_TIMEOUT_S`; of no effect where views are pinned.
        """
        self.kind = kind
        stall_timeout_ms = 0 if kind.pins_views else round(stall_timeout_s * 1_000)
        self._session = {**_settings_of(str(stall_timeout_ms)), **(session or {})}
        try:
            psycopg.conninfo.conninfo_to_dict(dsn)
        except psycopg.Error:
            # The parser's own message quotes the text, and with it the password.
            raise ConfigError(
                f"the address of {kind.name} is no libpq connection string or URI"
            ) from None
        self._dsn = dsn
        self._pool = Pool(
            dsn,
            open=False,
            min_size=0,
            max_size=max_size,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=0,
            kwargs={
                "autocommit": True,
                "row_factory": tuple_row,
                "application_name": application_name,
                "connect_timeout": int(CONNECT_TIMEOUT_S),
                "options": options,
                # A peer that is gone without a word is noticed in half a minute, not in hours.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
            },
            configure=self._configure,
            name=application_name,
        )

    async def _configure(self, conn: Connection) -> None:
        """Begin with settings of our own."""
        await conn.execute(
            "SELECT set_config(s.name, s.value, false)"
            " FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
            (list(self._session), list(self._session.values())),
        )

    async def open(self) -> None:
        """Let connections be made; none is made yet."""
        await self._pool.open()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit; psycopg's errors become the kind's."""
        with translated_errors(self.kind):
            try:
                async with self._pool.connection() as conn:
                    yield conn
            except PoolTimeout:
                await self._reveal_cause()
                raise

    async def _reveal_cause(self) -> None:
        """Connect once past the pool, which keeps the server's words to itself."""
        conn = await psycopg.AsyncConnection.connect(
            self._dsn, connect_timeout=int(CONNECT_TIMEOUT_S)
        )
        await conn.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end, rolled back on error."""
        async with self.connection() as conn, conn.transaction():
            yield conn

    async def fetch(self, statement: Statement, parameters: Sequence[Any] = ()) -> list[TupleRow]:
        """Run one statement by itself and give its rows."""
        async with self.connection() as conn:
            cursor = await conn.execute(statement, parameters)
            return await cursor.fetchall()

    async def fetch_prepared(
        self, statement: bytes, parameters: Mapping[str, Any]
    ) -> list[TupleRow]:
        """Run a statement that is run often, prepared once on each connection."""
        with translated_errors(self.kind):
            # Lent by hand: as a block the pool's connection ends a transaction, which in
            # autocommit there is none of, and costs a read of the gateway a tenth.
            conn = await self._lent()
            try:
                cursor = await conn.execute(statement, parameters, prepare=True)
                return await cursor.fetchall()
            except psycopg.errors.FeatureNotSupported:
                # A column has got another type since: what was prepared answers never again here.
                cursor = await conn.execute(statement, parameters, prepare=False)
                rows = await cursor.fetchall()
                await conn.close()
                return rows
            finally:
                await self._pool.putconn(conn)

    async def _lent(self) -> Connection:
        """Take a connection out of the pool; the caller puts it back."""
        try:
            return await self._pool.getconn()
        except PoolTimeout:
            await self._reveal_cause()
            raise


__all__ = [
    "BUS",
    "DOCUMENTS",
    "MIRROR",
    "Connection",
    "Cursor",
    "Database",
    "Kind",
    "PoolTimeout",
    "Statement",
    "described",
    "is_transient",
    "psycopg",
    "sql",
    "translated_errors",
]
