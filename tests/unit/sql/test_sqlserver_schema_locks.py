"""`schema apply` stands in nobody's way for long, on SQL Server."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SchemaLocked
from storemirror.model.load import load_model
from storemirror.sql.patience import LockPatience
from storemirror.sql.plan import SchemaPlan
from storemirror.sql.sqlserver.connection import Database, told_locks, translated_errors
from storemirror.sql.sqlserver.errors import NO_LOCK, ServerError
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.schema import SqlServerSchema
from storemirror.sql.sqlserver.wanted import wanted_schema
from tests.unit.sql.test_sqlserver_catalogue import Babelfish, Rows

BRIEF = LockPatience(wait_s=0.25, pause_s=0.0, try_count=2)


class Server(Babelfish):
    """Where all is installed; what is sent besides is kept, and may be refused a lock."""

    def __init__(self, rendering: Rendering) -> None:
        super().__init__(rendering, wanted_schema(rendering, project="demo", store="(default)"))
        self.is_broken = False
        self.sent: list[str] = []
        #: Batches with these words are not given their lock, by this number.
        self.refused: tuple[str, int] | None = None
        #: What it tells of who holds the tables; a number: with which it refuses to.
        self.holders: Rows | int = [(53, "nightly backup"), (60, "")]

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Server]:
        with translated_errors():
            yield self

    async def run(
        self, batch: str, parameters: Sequence[object] = (), timeout_s: float = 0
    ) -> list[Rows]:
        if "compatibility_level" in batch:
            return [[(0, 150, "db", 1)]]
        if "dm_tran_locks" in batch:
            self.sent.append(batch)
            if isinstance(self.holders, int):
                raise ServerError(self.holders, "VIEW SERVER STATE permission was denied.")
            return [self.holders]
        if "sp_getapplock" in batch or "sp_releaseapplock" in batch or "@Declarations = ?" in batch:
            self._keep(batch)
            return [[(1,)]]
        return await super().run(batch, parameters, timeout_s)

    async def run_alone(self, batch: str, timeout_s: float) -> list[Rows]:
        del timeout_s
        self._keep(batch)
        return []

    def _keep(self, batch: str) -> None:
        self.sent.append(batch)
        if self.refused is not None and self.refused[0] in batch:
            raise ServerError(self.refused[1], "Lock request time out period exceeded.")


class Microsofts(Server):
    """SQL Server as its catalogue tells of what is installed; messages by an earlier index."""

    def __init__(self, rendering: Rendering) -> None:
        super().__init__(rendering)
        #: Names of the messages' indexes that hold no sender.
        self.earlier = ["ix_dmmessage_latest"]
        #: Of those that do, beside it.
        self.built: list[str] = []

    async def run(
        self, batch: str, parameters: Sequence[object] = (), timeout_s: float = 0
    ) -> list[Rows]:
        if "compatibility_level" in batch:
            return [[(1, 150, "db", 1)]]
        found = await super().run(batch, parameters, timeout_s)
        if "sys.check_constraints" not in batch.replace("[", "").replace("]", ""):
            return found
        kinds, columns, indexes, checks, keys, texts = found
        return [
            kinds,
            [tuple("Latin1_General_100_BIN2" if v == "bbf_unicode_bin2" else v for v in row)
             for row in columns],
            [*self._told(indexes)],
            [(*row[:2], re.sub(r"\((\w+)(\)::| IS NOT)", r"([\1]\2", row[2])) for row in checks],
            keys,
            texts,
        ]  # fmt: skip

    def _told(self, indexes: Rows) -> Iterator[tuple[Any, ...]]:
        for place, name, is_unique, _, is_disabled, column, down, is_included in indexes:
            bare = name[:19] if name.startswith("ix_dmmessage_latest") else name
            row = (place, bare, is_unique, int(not is_unique), is_disabled, column, down)
            if not (is_included and bare in self.earlier):
                yield (*row, is_included)
            if bare == "ix_dmmessage_latest":
                yield from ((place, other, *row[2:], is_included) for other in self.built)


@pytest.fixture
def server() -> Server:
    """The built-in entities, installed."""
    return Server(Rendering(load_model(), schema_name="dbo", procedures={}))


def schema_of(server: Server) -> SqlServerSchema:
    """Make what applies, with little patience."""
    return SqlServerSchema(
        cast("Database", server),
        Rendering(load_model(), schema_name="dbo", procedures={}),
        project="demo",
        store="(default)",
        patience=BRIEF,
        clock=SystemClock(),
    )


def spoil(server: Server) -> None:
    """Let a procedure be another one than is wanted."""
    name = min(server.texts)
    server.texts[name] = server.texts[name].replace("SET NOCOUNT ON", "SET NOCOUNT  ON", 1)


async def test_nothing_to_do_changes_nothing_and_keeps_writers_out_for_no_moment(
    server: Server,
) -> None:
    """A pipeline applies at each deployment; lock and tables are others' to use meanwhile."""
    told: list[SchemaPlan] = []
    await schema_of(server).apply(on_planned=told.append)
    assert told[0].is_empty
    assert [batch for batch in server.sent if "TRANSACTION" in batch or "ALTER" in batch] == []


async def test_no_lock_is_waited_for_without_end(server: Server) -> None:
    """Readers queue behind a change that waits: it gives way, the writers' lock included."""
    spoil(server)
    await schema_of(server).apply()
    waits = [b for b in server.sent if "SET LOCK_TIMEOUT" in b]
    assert waits == 2 * ["SET LOCK_TIMEOUT 250;", "SET LOCK_TIMEOUT 45000;"]
    [lock, *_] = [b for b in server.sent if "@LockMode = N'Exclusive'" in b and "Transaction" in b]
    assert "@LockTimeout = 250;" in lock


@pytest.mark.parametrize("number", sorted(NO_LOCK))
async def test_a_change_gives_way_and_names_who_holds_the_tables(
    server: Server, number: int
) -> None:
    """Without the name nobody knows whom to ask."""
    spoil(server)
    server.refused = ("CREATE TABLE", number)
    with pytest.raises(SchemaLocked, match="nothing was changed") as caught:
        await schema_of(server).apply()
    named = "in the hands of session 53 (nightly backup), session 60 (without a name);"
    assert named in str(caught.value)
    asked = [b for b in server.sent if "dm_tran_locks" in b]
    assert "OBJECT_ID(N'[dbo].[DmMessage]')" in asked[0]
    assert "CHARINDEX(N'[storemirror.purge:dbo', l.resource_description)" in asked[0]
    assert server.sent.count("BEGIN TRANSACTION;") == BRIEF.try_count


@pytest.mark.parametrize("number", [262, 297, 300, 208])
async def test_a_user_who_may_not_see_the_holder_is_told_which_right_is_missing(
    server: Server, number: int
) -> None:
    """The change gives way all the same; Babelfish has no such view, whoever asks."""
    spoil(server)
    server.refused = ("CREATE TABLE", 1222)
    server.holders = number
    words = r"right VIEW SERVER STATE is missing .* nothing was changed"
    with pytest.raises(SchemaLocked, match=words):
        await schema_of(server).apply()
    assert server.sent.count("BEGIN TRANSACTION;") == BRIEF.try_count


async def test_whoever_has_let_go_by_then_is_not_named(server: Server) -> None:
    """Sessions that came after the wait had nothing to do with it."""
    spoil(server)
    server.refused = ("CREATE TABLE", 1222)
    server.holders = []
    with pytest.raises(SchemaLocked, match="whoever had it has let go by now"):
        await schema_of(server).apply()


async def test_what_was_changed_before_the_lock_is_told(server: Server) -> None:
    """Tables come first, and stay; who reads "nothing was changed" would look no further."""
    spoil(server)
    server.refused = ("@Declarations = ?", 1222)
    with pytest.raises(SchemaLocked, match=r"name\); tables and procedures are changed"):
        await schema_of(server).apply()


async def test_an_index_is_built_before_the_tables_are_locked() -> None:
    """What is built within the transaction of the tables goes with each try that is refused."""
    server = Microsofts(Rendering(load_model(), schema_name="dbo", procedures={}))
    server.refused = ("CREATE TABLE", 1222)
    schema = schema_of(server)
    with pytest.raises(SchemaLocked, match="nothing was changed"):
        await schema.apply()
    sent = [b for b in server.sent if "ONLINE = ON" in b or b == "BEGIN TRANSACTION;"]
    assert ["ONLINE = ON" in batch for batch in sent] == [True, False, False]
    [swap] = {b for b in server.sent if "sp_rename" in b}
    assert "[IX_DmMessage_Latest_Next]', @newname = N'IX_DmMessage_Latest'" in swap
    assert server.sent.index(swap) > server.sent.index("BEGIN TRANSACTION;")


async def test_a_build_that_is_refused_is_tried_again_and_told() -> None:
    """A writer may stand where the build begins."""
    server = Microsofts(Rendering(load_model(), schema_name="dbo", procedures={}))
    server.refused = ("ONLINE = ON", 1222)
    with pytest.raises(SchemaLocked, match="nothing was changed"):
        await schema_of(server).apply()
    assert sum("ONLINE = ON" in batch for batch in server.sent) == BRIEF.try_count
    assert "BEGIN TRANSACTION;" not in server.sent


async def test_what_is_built_and_not_swapped_is_told() -> None:
    """Whoever finds the index wonders whose it is."""
    server = Microsofts(Rendering(load_model(), schema_name="dbo", procedures={}))
    assert (await schema_of(server).status()).under_way == ()
    server.built = ["IX_DmMessage_Latest_Next"]
    [told] = (await schema_of(server).status()).under_way
    assert told.startswith("index IX_DmMessage_Latest_Next is built: the next")


def test_another_error_is_no_refused_lock() -> None:
    """A full disk is not waited for, and not blamed on a dump."""
    error: Any = ServerError(1105, "full")
    with pytest.raises(ServerError), told_locks():
        raise error
