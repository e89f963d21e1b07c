"""What the embedded store does behind the port: its outbox, its clock, its queries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import BusUnavailable, DatabaseRefused, SourceUnavailable
from storemirror.event.change import Fields
from storemirror.event.value import encode_fields
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import (
    Decision,
    DocumentChange,
    DocumentStore,
    Precondition,
    PreconditionFailed,
    TransactionBody,
    TransactionReads,
    Write,
)
from storemirror.sql.postgres.connection import Connection, Database

pytestmark = pytest.mark.postgres


def numbered(number: int) -> Fields:
    return encode_fields({"n": number})


def a_write(path: str, number: int = 1, precondition: Precondition = Precondition.NONE) -> Write:
    return Write(path=path, fields=numbered(number), precondition=precondition)


async def outbox(store: EmbeddedDocumentStore) -> list[DocumentChange]:
    """Take everything out of the outbox."""
    changes: list[DocumentChange] = []
    has_more = True
    while has_more:
        async with store.outbox_batch() as batch:
            changes.extend(batch.changes)
        has_more = batch.has_more
    return changes


def test_the_embedded_store_is_a_document_store(embedded: EmbeddedDocumentStore) -> None:
    """The type checker holds the adapter to its port here."""
    port: DocumentStore = embedded
    assert port is embedded


async def test_preparing_twice_at_once_changes_nothing(embedded: EmbeddedDocumentStore) -> None:
    """The demo's processes start together, on a store that may be there already."""
    await embedded.commit([a_write("users/a")])
    await asyncio.gather(*[embedded.prepare() for _ in range(4)])
    assert (await embedded.get("users/a")).document is not None


async def test_times_are_those_of_the_wall_clock(embedded: EmbeddedDocumentStore) -> None:
    """The mirror refuses versions from the future and compares read times with its own."""
    now_us = SystemClock().now_us()
    committed_us = await embedded.commit([a_write("users/a")])
    read_time_us = (await embedded.get("users/a")).read_time_us
    assert 0 <= committed_us - now_us < 60_000_000
    assert 0 <= read_time_us - now_us < 60_000_000


async def test_times_rise_though_the_wall_clock_is_behind(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """A clock set back must not make a later write look older."""
    ahead_us = SystemClock().now_us() + 3_600_000_000
    await database.fetch("SELECT setval('documents.clock', %s)", (ahead_us,))
    first_us = await embedded.commit([a_write("users/a", 1)])
    read_time_us = (await embedded.get("users/a")).read_time_us
    second_us = await embedded.commit([a_write("users/a", 2)])
    assert [first_us, read_time_us, second_us] == [ahead_us + 1, ahead_us + 2, ahead_us + 3]


async def test_every_change_is_told_with_both_images_in_the_order_of_commits(
    embedded: EmbeddedDocumentStore,
) -> None:
    """Triggers make versions of both: the after-image's, or of a delete the before-image's."""
    await embedded.commit([a_write("users/a", 1), a_write("users/b", 1)])
    await embedded.commit([a_write("users/a", 2)])
    before_delete = (await embedded.get("users/a")).document
    await embedded.commit([Write(path="users/a", fields=None)])
    changes = await outbox(embedded)
    assert [(c.path, c.before is None, c.after is None) for c in changes] == [
        ("users/a", True, False),
        ("users/b", True, False),
        ("users/a", False, False),
        ("users/a", False, True),
    ]
    assert changes[2].before == changes[0].after
    assert changes[2].after == changes[3].before == before_delete


async def test_what_changes_nothing_is_told_to_nobody(embedded: EmbeddedDocumentStore) -> None:
    """Firestore fires no trigger for it; a name order of its own is no change either."""
    fields = encode_fields({"a": 1, "b": {"x": 1, "y": 2}})
    await embedded.commit([Write(path="users/a", fields=fields)])
    await outbox(embedded)
    other_order = encode_fields({"b": {"y": 2, "x": 1}, "a": 1})
    await embedded.commit([Write(path="users/a", fields=other_order)])
    await embedded.commit([Write(path="users/nobody", fields=None)])
    assert await outbox(embedded) == []


async def test_minus_zero_is_a_change_of_zero(embedded: EmbeddedDocumentStore) -> None:
    """The digests differ, so the event must come."""
    await embedded.commit([Write(path="users/a", fields=encode_fields({"x": 0.0}))])
    await embedded.commit([Write(path="users/a", fields=encode_fields({"x": -0.0}))])
    assert len(await outbox(embedded)) == 2


async def test_a_refused_commit_is_told_to_nobody(embedded: EmbeddedDocumentStore) -> None:
    """An event of what was never written could not be taken back."""
    with pytest.raises(PreconditionFailed):
        await embedded.commit([a_write("users/a"), a_write("users/b", 1, Precondition.EXISTS)])
    assert await embedded.pending_count() == 0


async def test_a_rolled_back_commit_leaves_no_change_behind(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """Document and outbox are one transaction: both or neither."""
    async with database.connection() as conn, conn.transaction(force_rollback=True):
        await conn.execute(
            "SELECT documents.commit_writes(ARRAY['users/a'], ARRAY['users'], ARRAY['{}'],"
            " ARRAY['none'], ARRAY['{}'], ARRAY['{}'])"
        )
        [inside] = await (await conn.execute("SELECT count(*) FROM documents.outbox")).fetchall()
    assert inside == (1,)
    assert await embedded.pending_count() == 0
    assert (await embedded.get("users/a")).document is None


async def test_commits_at_the_same_time_stand_or_fall_by_themselves(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """They share a transaction, so that the disk is waited for once; nothing else is shared."""
    async with database.connection() as conn:
        await conn.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'refused'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON documents.document FOR EACH ROW"
            " WHEN (NEW.path = 'users/refused') EXECUTE FUNCTION refuse()"
        )
    transaction_count = await _transaction_count(database)
    results = await asyncio.gather(
        *(embedded.commit([a_write(f"users/u{n}", n, Precondition.ABSENT)]) for n in range(40)),
        embedded.commit([a_write("users/u7", 70, Precondition.ABSENT)]),
        embedded.commit([a_write("users/u8", 80, Precondition.EXISTS), a_write("users/v")]),
        return_exceptions=True,
    )
    times_us = [time_us for time_us in results if isinstance(time_us, int)]
    assert times_us == sorted(set(times_us)), "each has a time of its own, in their order"
    assert [type(r) for r in results if not isinstance(r, int)] == [PreconditionFailed]
    assert await _transaction_count(database) - transaction_count < 10
    refused, kept = await asyncio.gather(
        embedded.commit([a_write("users/refused")]),
        embedded.commit([a_write("users/kept")]),
        return_exceptions=True,
    )
    assert isinstance(refused, DatabaseRefused)
    assert isinstance(kept, int)
    told = {change.path: change.after for change in await outbox(embedded)}
    assert set(told) == {f"users/u{n}" for n in range(40)} | {"users/v", "users/kept"}


async def _transaction_count(database: Database) -> int:
    """Count the transactions that wrote something, up to now."""
    [(count,)] = await database.fetch("SELECT txid_current()")
    return int(count)


async def test_a_caller_that_is_cancelled_harms_no_other_commit(
    embedded: EmbeddedDocumentStore,
) -> None:
    """A client that gives up must not take its neighbours' writes with it."""
    tasks = [asyncio.create_task(embedded.commit([a_write(f"users/u{n}")])) for n in range(9)]
    asyncio.get_running_loop().call_soon(tasks[4].cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[4], asyncio.CancelledError)
    assert all(isinstance(result, int) for place, result in enumerate(results) if place != 4)
    for number in {*range(9)} - {4}:
        assert (await embedded.get(f"users/u{number}")).document is not None


async def test_a_document_is_written_once_a_commit(embedded: EmbeddedDocumentStore) -> None:
    """Two changes with one commit time would be one version."""
    with pytest.raises(ValueError, match="once"):
        await embedded.commit([a_write("users/a", 1), a_write("users/a", 2)])
    assert await embedded.pending_count() == 0


async def test_a_failed_batch_stays_in_the_outbox(embedded: EmbeddedDocumentStore) -> None:
    """Nothing leaves before it is on the bus."""
    await embedded.commit([a_write("users/a")])

    async def fail_with_a_batch_in_hand() -> None:
        async with embedded.outbox_batch() as batch:
            raise BusUnavailable(f"{len(batch.changes)} not published")

    with pytest.raises(BusUnavailable, match="1 not published"):
        await fail_with_a_batch_in_hand()
    assert len(await outbox(embedded)) == 1
    assert await outbox(embedded) == []


async def test_one_relay_at_a_time_has_a_batch_in_hand(embedded: EmbeddedDocumentStore) -> None:
    """Another gets nothing meanwhile, and what is left afterwards."""
    await embedded.commit([a_write(f"users/{n}") for n in range(3)])
    async with embedded.outbox_batch(max_count=2) as batch, embedded.outbox_batch() as other:
        assert other.changes == ()
    assert [change.path for change in batch.changes] == ["users/0", "users/1"]
    assert batch.has_more
    assert [change.path for change in await outbox(embedded)] == ["users/2"]


async def test_a_batch_is_cut_by_bytes_but_never_empty(embedded: EmbeddedDocumentStore) -> None:
    """Five hundred documents of a mebibyte would not fit into a worker."""
    body = encode_fields({"body": "x" * 1_000})
    await embedded.commit([Write(path=f"users/{n}", fields=body) for n in range(4)])
    sizes: list[tuple[int, bool]] = []
    for _ in range(3):
        async with embedded.outbox_batch(max_bytes=1_500) as batch:
            sizes.append((len(batch.changes), batch.has_more))
    assert sizes == [(2, True), (2, True), (0, False)]
    await embedded.commit([Write(path="users/9", fields=body)])
    async with embedded.outbox_batch(max_bytes=1) as batch:
        assert len(batch.changes) == 1


async def test_pending_changes_are_counted_up_to_a_time(embedded: EmbeddedDocumentStore) -> None:
    """The check waits for what was committed before its read time, not for what comes after."""
    first_us = await embedded.commit([a_write("users/a")])
    second_us = await embedded.commit([a_write("users/b"), a_write("users/c")])
    assert await embedded.pending_count() == 3
    assert await embedded.pending_count(first_us) == 1
    assert await embedded.pending_count(first_us - 1) == 0
    assert await embedded.pending_count(second_us) == 3


async def test_a_commit_finds_its_documents_by_index(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """A plan cached on an empty table would read all of a large one, at every commit."""
    commit = (
        "SELECT documents.commit_writes("
        "ARRAY['users/u7', 'users/u8'], ARRAY['users', 'users'], ARRAY['{}', NULL],"
        "ARRAY['absent', 'none'], ARRAY['{5,6}', NULL], ARRAY['{}', NULL],"
        "ARRAY['users/u7', 'users/u9'], ARRAY[NULL, NULL]::bigint[])"
    )
    async with database.connection() as conn:
        for _ in range(10):
            async with conn.transaction(force_rollback=True):
                await conn.execute(commit)
                await conn.execute("SELECT documents.read_document('users/u7')")
        await embedded.commit([a_write(f"conversations/c{n}") for n in range(2_000)])
        await conn.execute("ANALYZE documents.document")
        async with conn.transaction(force_rollback=True):
            await conn.execute(commit)
            await conn.execute("SELECT documents.read_document('users/u7')")
            assert await rows_read(conn) == 0


async def test_a_page_is_found_by_index(embedded: EmbeddedDocumentStore) -> None:
    """A page costs what it holds, on a table that nobody analysed and among other collections."""
    await embedded.commit([a_write(f"users/u{n}") for n in range(2_000)])
    await embedded.commit([a_write(f"conversations/c{n}") for n in range(20)])
    async with embedded.pinned() as view:
        pages = [page async for page in view.scan(("conversations", "{id}"), page_size=3)]
        assert len(pages) == 7
        assert await rows_read(view._conn) == 0


async def rows_read(conn: Connection) -> int:
    """Rows of documents that this transaction has read in sequential scans."""
    cursor = await conn.execute(
        "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'document'"
    )
    [(count,)] = await cursor.fetchall()
    return int(count)


async def test_a_lost_connection_is_an_unavailable_source(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """The relay and the writer retry on this error and on no other."""

    async def scan_on_a_cut_connection() -> None:
        async with embedded.pinned() as view:
            await database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await anext(view.scan(("users", "{userId}")))

    with pytest.raises(SourceUnavailable):
        await scan_on_a_cut_connection()
    assert (await embedded.get("users/a")).document is None


async def test_a_transaction_that_fights_on_holds_up_no_other(
    embedded: EmbeddedDocumentStore,
) -> None:
    """One hot document would stop every writer that lost once, on any other (issue 7)."""
    other_ended, is_fighting = asyncio.Event(), asyncio.Event()
    runs = dict.fromkeys(["users/hot", "users/calm"], 0)

    def overtaken_on(path: str, until: Callable[[int], bool]) -> TransactionBody[None]:
        async def body(reads: TransactionReads) -> Decision[None]:
            await reads.get(path)
            runs[path] += 1
            if runs["users/hot"] > 1:
                is_fighting.set()
            if not until(runs[path]):
                await embedded.commit([a_write(path, runs[path])])
            return Decision(writes=[a_write(path, 0)], result=None)

        return body

    hot = asyncio.create_task(
        embedded.transact(overtaken_on("users/hot", lambda _: other_ended.is_set()))
    )
    await is_fighting.wait()
    await embedded.transact(overtaken_on("users/calm", lambda count: count > 1))
    assert not hot.done()
    other_ended.set()
    await hot
    assert (runs["users/calm"], runs["users/hot"] > 1) == (2, True)
