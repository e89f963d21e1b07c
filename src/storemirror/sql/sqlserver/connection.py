"""
Connections to SQL Server, and the driver's errors as ours.

The only module that imports mssql-python.  Its calls block: each connection has a thread of its
own (`Worker`), and is used by one caller at a time.

A transaction is one batch: it is sent whole, and the server runs it to its end or not at all.
SQL Server does not end a transaction that its client leaves idle, so a process that is stopped
must never stand between two statements of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, NewType, TypeVar

import mssql_python
from mssql_python.exceptions import Exception as DriverError
from mssql_python.exceptions import InterfaceError, sqlstate_to_exception

from storemirror.clock import wait_until
from storemirror.errors import (
    ConfigError,
    DatabaseRefused,
    SqlUnavailable,
    StoreMirrorError,
)
from storemirror.sql.sqlserver.address import Target, target_of
from storemirror.sql.sqlserver.errors import (
    NO_LOCK,
    SIGN_IN_STATE,
    TRANSIENT_STATES,
    ServerError,
    number_of_words,
    translated,
)
from storemirror.sql.sqlserver.worker import Worker

#: A batch: a literal, or one that was composed of quoted identifiers and literals.
Sql = NewType("Sql", str)
Row = tuple[Any, ...]
Parameter = str | int
_T = TypeVar("_T")

#: How long a connection may take to be made, and to become free.
CONNECT_TIMEOUT_S: Final = 5.0
#: How long closing waits for connections; one whose server does not answer is left to its thread.
CLOSE_TIMEOUT_S: Final = 3.0
#: How long a batch may take where its caller says nothing else.  Upkeep reads whole tables.
CALL_TIMEOUT_S: Final = 3_600.0
#: How long one statement waits for a lock.  Less than a batch may take, so that what stands in the
#: way is told as such.
LOCK_TIMEOUT_S: Final = 45.0

#: Filtered indexes and computed columns refuse writes of sessions that differ in the first seven.
#: XACT_ABORT: an error, and a client that gives up, end the whole transaction.
_SESSION: Final = """
SET ANSI_NULLS ON;
SET ANSI_PADDING ON;
SET ANSI_WARNINGS ON;
SET ARITHABORT ON;
SET CONCAT_NULL_YIELDS_NULL ON;
SET QUOTED_IDENTIFIER ON;
SET NUMERIC_ROUNDABORT OFF;
SET IMPLICIT_TRANSACTIONS OFF;
SET NOCOUNT ON;
SET XACT_ABORT ON;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCK_TIMEOUT {lock_timeout_ms};
"""
#: Every batch answers with its own results, and when it fails with this one last.
_ENVELOPE: Final = """BEGIN TRY
{batch}
END TRY
BEGIN CATCH
    IF XACT_STATE() <> 0 ROLLBACK TRANSACTION;
    SELECT ERROR_NUMBER() AS StoreMirrorError, ERROR_MESSAGE() AS ErrorMessage,
           ERROR_PROCEDURE() AS ErrorProcedure;
END CATCH;"""
_ERROR_COLUMN: Final = "storemirrorerror"
#: The driver's words -> SQLSTATE, read from its own table: its exceptions keep the words alone.
_STATES: Final = {
    exception.driver_error: state
    for state in (*sorted(TRANSIENT_STATES), SIGN_IN_STATE)
    if (exception := sqlstate_to_exception(state, "")) is not None
}
#: A query took too long; its connection, and those beside it, may be as good as ever.
_TIMEOUT_STATE: Final = "HYT00"
_NOT_LOADED: Final = "Failed to load the driver"

# The pool is ours: a connection of the driver's own would come back with another one's settings.
mssql_python.pooling(enabled=False)


def state_of(exc: DriverError) -> str | None:
    """Give the SQLSTATE of one of the driver's errors; None where it is none that concerns us."""
    return _STATES.get(exc.driver_error)


class LockRefused(Exception):
    """A lock was not given in time; the server's words are its cause."""


@contextlib.contextmanager
def told_locks() -> Iterator[None]:
    """Tell a lock that was not given from all that may go wrong besides."""
    try:
        yield
    except ServerError as exc:
        if exc.number in NO_LOCK:
            raise LockRefused from exc
        raise
    except DriverError as exc:
        if number_of_words(exc.ddbc_error or exc.driver_error, state=state_of(exc)) in NO_LOCK:
            raise LockRefused from exc
        raise


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the server's errors and the driver's into ours.  The original stays as `__cause__`."""
    try:
        yield
    except ServerError as exc:
        raise translated(exc) from exc
    except DriverError as exc:
        raise translated_exception(exc) from exc


def translated_exception(exc: DriverError) -> StoreMirrorError:
    """Give the error of ours for one of the driver's own."""
    words = exc.ddbc_error or exc.driver_error
    if _NOT_LOADED in words:
        return ConfigError(
            "Microsoft's ODBC driver cannot be loaded; on Debian and Ubuntu it needs, as root: "
            "apt-get install libltdl7 libgssapi-krb5-2"
        )
    state = state_of(exc)
    number = number_of_words(words, state=state)
    if number is not None:
        return translated(ServerError(number, words))
    if state in TRANSIENT_STATES or isinstance(exc, InterfaceError):
        return SqlUnavailable(f"the mirror's database: {exc.driver_error}: {words}")
    return DatabaseRefused(f"the mirror's database refused: {exc.driver_error}: {words}")


def in_envelope(batch: str) -> str:
    """Let a batch answer with its error, number and all."""
    return _ENVELOPE.format(batch=batch)


def session_settings(*, lock_timeout_s: float) -> str:
    """Write what a connection begins with."""
    return _SESSION.format(lock_timeout_ms=round(lock_timeout_s * 1_000))


class Session:
    """One connection, in its thread.  Whatever fails in the driver ends it."""

    def __init__(self, target: Target, worker: Worker, *, lock_timeout_s: float) -> None:
        """Take a thread over; nothing is connected before `connect`."""
        self._target = target
        self._lock_timeout_s = lock_timeout_s
        self._worker = worker
        self._connection: mssql_python.Connection | None = None
        #: Nobody may use it any more.
        self.is_broken = False
        #: The way to the server broke, and not this call alone.
        self.is_cut = False

    async def connect(self) -> None:
        """Connect, and fix what a login or a database may have another default for."""
        await self._call(self._connect)

    async def run(
        self, batch: Sql | LiteralString, parameters: Sequence[Parameter], timeout_s: float
    ) -> list[list[Row]]:
        """
        Run a batch, and give its result sets.

        Raises:
            ServerError: the server refused it; it was rolled back.
            DriverError: no answer came; done or not is unknown.
        """
        return await self._call(self._run, in_envelope(batch), parameters, timeout_s)

    async def run_alone(self, batch: Sql | LiteralString, timeout_s: float) -> list[list[Row]]:
        """
        Run a batch as it is, without parameters: one that must stand alone, as CREATE PROCEDURE.

        An error comes as the driver's own, and a transaction that was open stays so.
        """
        return await self._call(self._run, batch, (), timeout_s)

    def end(self, *, on_ended: Callable[[], object] | None = None) -> None:
        """
        Let go of the connection, once the call that it is in has ended.

        Args:
            on_ended: called in the connection's thread when it is gone.
        """
        self.is_broken = True
        self._worker.end(self._close, on_ended=on_ended)

    async def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        # Whoever is cancelled here leaves a call behind that goes on: nobody may come after it.
        was_broken, self.is_broken = self.is_broken, True
        try:
            result = await self._worker.call(function, *arguments)
        except ServerError:
            self.is_broken = was_broken
            raise
        except DriverError as exc:
            self.is_cut = state_of(exc) != _TIMEOUT_STATE
            raise
        self.is_broken = was_broken
        return result

    def _connect(self) -> None:
        self._connection = mssql_python.connect(
            # An answer is waited for as long as the server is there, and no longer.  A connection
            # that broke is not made anew in silence: locks that it held would be gone.
            f"{self._target.connection_string()};ConnectRetryCount=0;KeepAlive=10;"
            "KeepAliveInterval=5",
            autocommit=True,
            timeout=math.ceil(CONNECT_TIMEOUT_S),
        )
        settings = session_settings(lock_timeout_s=self._lock_timeout_s)
        self._run(settings, (), CONNECT_TIMEOUT_S)

    def _run(self, text: str, parameters: Sequence[Parameter], timeout_s: float) -> list[list[Row]]:
        connection = self._connection
        assert connection is not None, "a session is connected before it is used"
        connection.timeout = math.ceil(timeout_s)
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(text, *([list(parameters)] if parameters else []))
            found: list[list[Row]] = []
            while True:
                if cursor.description is not None:
                    rows = [tuple(row) for row in cursor.fetchall()]
                    if str(cursor.description[0][0]).lower() == _ERROR_COLUMN:
                        number, message, procedure = rows[0]
                        raise ServerError(number, message or "", procedure=procedure or "")
                    found.append(rows)
                if not cursor.nextset():
                    return found

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _Slot:
    """
    A place in a pool, taken as long as anything of it may be in the driver.

    A caller that gives up goes at once, and its batch goes on: were the place free by then, every
    deadline of a slow server would add a connection to those that make it slow.
    """

    def __init__(self, free: asyncio.Semaphore) -> None:
        """Take over a place that was acquired."""
        self._free = free
        self._loop = asyncio.get_running_loop()
        self._holder_count = 1

    def end(self, session: Session) -> None:
        """End a session; it holds the place until its thread is done."""
        self._holder_count += 1
        session.end(on_ended=self._let_go_from_thread)

    def let_go(self) -> None:
        """Hold the place no longer; the last one gives it back."""
        self._holder_count -= 1
        if not self._holder_count:
            self._free.release()

    def _let_go_from_thread(self) -> None:
        # The loop may have been closed meanwhile, and the pool with it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.let_go)


class Database:
    """A pool of connections to one database."""

    def __init__(
        self,
        dsn: str,
        *,
        max_size: int = 8,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        """
        Name the database; nothing is opened before it is used.

        Args:
            dsn: see `storemirror.sql.sqlserver.address`.
            max_size: most connections; one that a caller gave up counts until its batch has ended.
            lock_timeout_s: see `LOCK_TIMEOUT_S`.

        Raises:
            ConfigError: the DSN is none; the message does not repeat it.
        """
        self.target = target_of(dsn)
        self._lock_timeout_s = lock_timeout_s
        self._free = asyncio.Semaphore(max_size)
        self._idle: list[Session] = []
        # Each as long as its thread runs.
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._is_closed = False

    async def open(self) -> None:
        """Let connections be made; none is made yet."""
        self._is_closed = False

    async def aclose(self) -> None:
        """
        Close every connection; one that is in use once it is given back.

        Their threads are waited for: a process that ends while one of them is in the driver is
        aborted (SIGABRT, "terminate called without an active exception"), whatever it had to say.
        """
        self._is_closed = True
        self._end_idle()
        await asyncio.to_thread(wait_until, self._have_ended, CLOSE_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a connection; errors become ours."""
        with translated_errors():
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._free.acquire()
            except TimeoutError as exc:
                raise SqlUnavailable(
                    f"no connection to the mirror's database was free for {CONNECT_TIMEOUT_S:.0f} s"
                ) from exc
            slot = _Slot(self._free)
            try:
                async with self._lent(slot) as session:
                    yield session
            finally:
                slot.let_go()

    async def run(
        self,
        batch: Sql | LiteralString,
        parameters: Sequence[Parameter] = (),
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> list[list[Row]]:
        """
        Run one batch by itself, and give its result sets; the server's errors become ours.

        Args:
            batch: T-SQL, without `GO`; a transaction in it is committed in it.
            parameters: one for each `?`.  None is none: NULL costs the driver a round trip.
            timeout_s: when the server is told to give it up.
        """
        async with self.session() as session:
            return await session.run(batch, parameters, timeout_s)

    async def fetch(
        self, batch: Sql | LiteralString, parameters: Sequence[Parameter] = ()
    ) -> list[Row]:
        """Run one batch by itself, and give the rows of its only result set."""
        [rows] = await self.run(batch, parameters)
        return rows

    @contextlib.asynccontextmanager
    async def _lent(self, slot: _Slot) -> AsyncIterator[Session]:
        session = self._idle.pop() if self._idle else await self._connected(slot)
        try:
            yield session
        finally:
            if not session.is_broken and not self._is_closed:
                self._idle.append(session)
            else:
                slot.end(session)
                if session.is_cut:
                    # What cut one has cut those that lay beside it, most likely.
                    self._end_idle()

    async def _connected(self, slot: _Slot) -> Session:
        session = self._session(self.target)
        try:
            await session.connect()
        except DriverError as exc:
            slot.end(session)
            if state_of(exc) == SIGN_IN_STATE:
                await self._see_whether_it_is_there(exc, slot)
            raise
        except BaseException:
            slot.end(session)
            raise
        return session

    async def _see_whether_it_is_there(self, refusal: DriverError, slot: _Slot) -> None:
        """Tell a database that is not there from a wrong password: the server's answer is one."""
        elsewhere = self._session(replace(self.target, database="master"))
        try:
            # Whoever is let in here has the right password.  Users of one database of Azure's are
            # not let in: then both stay possible.
            with contextlib.suppress(DriverError):
                await elsewhere.connect()
                raise ServerError(
                    4060, f"the user may sign in, and not into database {self.target.database}"
                ) from refusal
        finally:
            slot.end(elsewhere)

    def _session(self, target: Target) -> Session:
        worker = Worker(f"sqlserver {target.database}")
        self._workers.add(worker)
        return Session(target, worker, lock_timeout_s=self._lock_timeout_s)

    def _end_idle(self) -> None:
        while self._idle:
            self._idle.pop().end()

    def _have_ended(self) -> bool:
        return not any(worker.is_running for worker in self._workers)


def composed(template: LiteralString, **parts: str) -> Sql:
    """
    Compose a batch.

    Args:
        template: T-SQL, with the names of parts in braces.
        parts: quoted identifiers from checked declarations, and T-SQL composed of them.  Never a
            value: values are bound.
    """
    return Sql(template.format(**parts))


def in_utc(moment: datetime) -> datetime:
    """Give a DATETIME2 its zone: all of ours are UTC, and none says so."""
    return moment.replace(tzinfo=UTC)
