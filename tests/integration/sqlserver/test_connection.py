"""The real driver against a stand-in: what comes of answers, errors, cuts and silence."""

from __future__ import annotations

import asyncio
import ctypes.util
from collections.abc import AsyncIterator

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import DatabaseRefused, SqlUnavailable, StoreMirrorError
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.errors import ServerError
from tests.standins.tds import Answer, Cut, Silence, TdsStandIn, error, rows, running

pytestmark = [
    pytest.mark.skipif(
        ctypes.util.find_library("ltdl") is None,
        reason="needs SQL Server's driver to load: as root, apt-get install libltdl7",
    ),
]

CAUGHT = ("StoreMirrorError", "ErrorMessage", "ErrorProcedure")


@pytest.fixture
async def stand_in() -> AsyncIterator[TdsStandIn]:
    """A server that lets everybody in, and answers nothing yet."""
    async with running(TdsStandIn()) as one:
        yield one


@pytest.fixture
async def database(stand_in: TdsStandIn) -> AsyncIterator[Database]:
    """The pool under test, with two connections."""
    dsn = f"mssql://me:secret@127.0.0.1:{stand_in.port}/db?encrypt=no"
    one = Database(dsn, max_size=2)
    yield one
    await one.aclose()


def to(needle: str, answer: bytes | type[Exception]) -> Answer:
    """Make an answer to batches that hold a word; others are answered with nothing."""

    def answered(batch: str) -> bytes:
        if needle not in batch:
            return b""
        if isinstance(answer, bytes):
            return answer
        raise answer

    return answered


async def test_result_sets_come_in_order(database: Database, stand_in: TdsStandIn) -> None:
    """With and without parameters, and NULL among the values."""
    answer = rows(("A", "B"), ("x", 1), (None, 2)) + rows(("C",), ("y",))
    stand_in.answer = to("ASKED", answer)
    expected = [[("x", 1), (None, 2)], [("y",)]]
    assert await database.run("ASKED") == expected
    assert await database.run("ASKED ?, ?", ("é" * 5_000, 7)) == expected
    assert stand_in.connection_count == 1


async def test_a_session_begins_with_the_settings_that_filtered_indexes_need(
    database: Database, stand_in: TdsStandIn
) -> None:
    """A login may have others by default; then every write would be refused."""
    await database.run("ASKED")
    first = stand_in.batches[0]
    for word in ("QUOTED_IDENTIFIER", "ANSI_NULLS", "ARITHABORT ON", "XACT_ABORT ON", "45000"):
        assert word in first


async def test_an_error_of_the_server_s_comes_with_its_number(
    database: Database, stand_in: TdsStandIn
) -> None:
    """After whatever results came before it; the connection is used again."""
    answer = rows(("A",), ("x",)) + rows(CAUGHT, (1205, "deadlocked", None))
    stand_in.answer = to("ASKED", answer)
    async with database.session() as session:
        with pytest.raises(ServerError) as caught:
            await session.run("ASKED", (), 5.0)
    assert (caught.value.number, caught.value.message) == (1205, "deadlocked")
    with pytest.raises(SqlUnavailable, match="error 1205"):
        await database.run("ASKED")
    assert stand_in.connection_count == 1


@pytest.mark.parametrize("answer", [error(596, "killed", severity=21), Cut])
async def test_a_connection_that_broke_is_not_used_again(
    answer: bytes | type[Exception], database: Database, stand_in: TdsStandIn
) -> None:
    """Its transaction is gone with it; the next call has a new one."""
    stand_in.answer = to("ASKED", answer)
    with pytest.raises(SqlUnavailable):
        await database.run("ASKED")
    assert await database.run("OTHER") == []
    assert stand_in.connection_count == 2


async def test_what_broke_one_connection_ends_those_that_lie_idle(
    database: Database, stand_in: TdsStandIn
) -> None:
    """Else each of them would cost a lane its batch after a failover."""
    async with database.session() as one, database.session() as two:
        await asyncio.gather(one.run("A", (), 5.0), two.run("A", (), 5.0))
    stand_in.answer = to("ASKED", Cut)
    with pytest.raises(SqlUnavailable):
        await database.run("ASKED")
    await asyncio.gather(database.run("B"), database.run("B"))
    assert stand_in.connection_count in (3, 4)


async def test_a_query_that_takes_too_long_leaves_idle_connections_alone(
    database: Database, stand_in: TdsStandIn
) -> None:
    """One user's slow page would make every other reader sign in anew (issue 6)."""
    async with database.session() as one, database.session() as two:
        await asyncio.gather(one.run("A", (), 5.0), two.run("A", (), 5.0))
    stand_in.answer = to("ASKED", Silence)
    with pytest.raises(SqlUnavailable, match="imeout"):
        await database.run("ASKED", timeout_s=1.0)
    assert await database.run("B") == []
    assert stand_in.connection_count == 2


async def test_a_server_that_does_not_answer_is_given_up(
    database: Database, stand_in: TdsStandIn
) -> None:
    """The server is told so, and ends the transaction; the lane goes on."""
    stand_in.answer = to("ASKED", Silence)
    with pytest.raises(SqlUnavailable, match="imeout"):
        await database.run("ASKED", timeout_s=1.0)


async def test_a_caller_that_is_cancelled_leaves_no_connection_to_the_next(
    database: Database, stand_in: TdsStandIn
) -> None:
    """Its batch goes on: whoever came next would read its answer."""
    stand_in.answer = to("ASKED", Silence)
    await give_up(stand_in, database, count=1)
    assert await database.run("OTHER") == []
    assert stand_in.connection_count == 2


async def give_up(
    stand_in: TdsStandIn, database: Database, *, count: int, timeout_s: float = 3.0
) -> None:
    """Ask as many times at once, and be called off when the server has heard all of it."""
    clock, heard_before = SystemClock(), heard(stand_in)
    asking = [asyncio.create_task(database.run("ASKED", timeout_s=timeout_s)) for _ in range(count)]
    async with asyncio.timeout(30):
        while heard(stand_in) < heard_before + count:
            await clock.sleep(0.005)
    for one in asking:
        one.cancel()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * count


def heard(stand_in: TdsStandIn) -> int:
    return sum("ASKED" in batch for batch in stand_in.batches)


async def test_batches_that_were_given_up_hold_their_places_until_they_end(
    database: Database, stand_in: TdsStandIn
) -> None:
    """Else each deadline adds a session to a server that is slow already (issue 6)."""
    stand_in.answer = to("ASKED", Silence)
    for _ in range(3):
        await give_up(stand_in, database, count=2)
    assert await database.run("OTHER") == []
    assert stand_in.most_open_count == 2


async def test_a_pool_full_of_batches_that_were_given_up_says_so(
    database: Database, stand_in: TdsStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader is told at once, and goes to Firestore."""
    stand_in.answer = to("ASKED", Silence)
    await give_up(stand_in, database, count=2, timeout_s=60.0)
    monkeypatch.setattr("storemirror.sql.sqlserver.connection.CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(SqlUnavailable, match="was free"):
        await database.run("OTHER")
    assert stand_in.connection_count == 2
    await stand_in.aclose()


@pytest.mark.parametrize("name", ["db", "master"])
async def test_places_come_back_after_sign_ins_that_failed(
    name: str, database: Database, stand_in: TdsStandIn
) -> None:
    """Whether the second look for the database fails as well or not."""
    refusal = error(18456, "Login failed for user 'me'.", severity=14)
    stand_in.refusal = lambda asked: refusal if asked in ("db", name) else b""
    for _ in range(3):
        with pytest.raises(DatabaseRefused):
            await database.run("ASKED")
    stand_in.refusal = lambda _: b""
    await asyncio.gather(database.run("ASKED"), database.run("ASKED"))


async def test_a_wrong_password_is_told(database: Database, stand_in: TdsStandIn) -> None:
    """Both the sign-in to the database and the one to the server are refused."""
    stand_in.refusal = lambda _: error(18456, "Login failed for user 'me'.", severity=14)
    with pytest.raises(DatabaseRefused, match="user or password") as caught:
        await database.run("ASKED")
    assert "secret" not in str(caught.value)


async def test_a_database_that_is_not_there_is_told_from_a_wrong_password(
    database: Database, stand_in: TdsStandIn
) -> None:
    """The driver gives only the last of the two errors, which is the same for both."""

    def refused(name: str) -> bytes:
        if name != "db":
            return b""
        first = error(4060, 'Cannot open database "db" requested by the login.', severity=11)
        return first + error(18456, "Login failed for user 'me'.", severity=14)

    stand_in.refusal = refused
    with pytest.raises(DatabaseRefused, match="may sign in, and not into database db"):
        await database.run("ASKED")


async def test_rights_that_are_missing_are_told(database: Database, stand_in: TdsStandIn) -> None:
    """With the page that lists them."""
    words = "The EXECUTE permission was denied on the object 'x'."
    stand_in.answer = to("ASKED", rows(CAUGHT, (229, words, None)))
    with pytest.raises(DatabaseRefused, match=r"docs/howto/sql-server\.md"):
        await database.run("ASKED")


async def test_a_pool_that_is_empty_says_so(
    database: Database, stand_in: TdsStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for a connection."""
    monkeypatch.setattr("storemirror.sql.sqlserver.connection.CONNECT_TIMEOUT_S", 0.2)
    del stand_in
    async with database.session(), database.session():
        with pytest.raises(SqlUnavailable, match="was free"):
            await database.run("ASKED")


async def test_a_port_that_nobody_listens_on_is_unavailable() -> None:
    """The same error as of a server that is down, and no word of the password."""
    database = Database("mssql://me:secret@127.0.0.1:1/db?encrypt=no")
    with pytest.raises(StoreMirrorError) as caught:
        await database.run("ASKED")
    assert isinstance(caught.value, SqlUnavailable)
    assert "secret" not in str(caught.value)
    await database.aclose()
