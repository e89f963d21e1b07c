"""How the embedded store finds documents and holds transactions together, behind the port."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SourceUnavailable
from storemirror.event.change import Fields
from storemirror.event.value import encode_fields, encode_value
from storemirror.source import embedded_query, embedded_rows, embedded_terms
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import (
    Comparison,
    Condition,
    Decision,
    DocumentPage,
    DocumentQuery,
    DocumentStore,
    TransactionReads,
    Write,
)
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from tests.support.databases import Databases
from tests.support.templates import new_documents_dsn

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_chat(chat_id: str, *who: str) -> Write:
    return Write(path=f"chats/{chat_id}", fields=encode_fields({"who": who, "kind": "chat"}))


def by(field: str, comparison: str, value: object) -> Condition:
    return Condition(field=(field,), comparison=Comparison(comparison), value=encode_value(value))


OF_A = DocumentQuery(collection="chats", conditions=(by("who", "array-contains", "a"),), limit=10)
CHATS = DocumentQuery(collection="chats", conditions=(by("kind", "==", "chat"),), limit=10)


async def ids(store: DocumentStore, query: DocumentQuery) -> list[str]:
    page = await store.query(query)
    return [document.path.rpartition("/")[2] for document in page.documents]


FINDS = {
    "term": "'chats', ARRAY['chats'], ARRAY['chats~'], ARRAY[1]::bigint[], NULL, 0, 0, NULL, NULL",
    "collection": "'chats', ARRAY['chats'], ARRAY['chats~'], NULL, NULL, 0, 0, NULL, NULL",
    "time": "'chats', ARRAY['chats'], ARRAY['chats~'], NULL, 'at', 0, 9, NULL, NULL",
    "behind": "'chats', ARRAY['chats'], ARRAY['chats~'], NULL, 'at', 0, 9, 5, ARRAY['chats', 'c']",
}


@pytest.mark.parametrize("kind", FINDS)
async def test_documents_are_found_by_index(
    embedded: EmbeddedDocumentStore, database: Database, kind: str
) -> None:
    """An inbox costs what it holds, however many conversations there are, after any plan."""
    find = f"SELECT * FROM documents.find_documents({FINDS[kind]}, false, 10)".encode()
    together = b"SELECT * FROM documents.read_together(ARRAY['users/u1', 'users/u2'])"
    scanned = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'document'"
    async with database.connection() as conn:
        for _ in range(10):
            await conn.execute(find)
            await conn.execute(together)
        await embedded.commit(
            [Write(path=f"users/u{n}", fields=encode_fields({"n": n})) for n in range(2_000)]
        )
        async with conn.transaction(force_rollback=True):
            await conn.execute(find)
            await conn.execute(together)
            assert await (await conn.execute(scanned)).fetchall() == [(0,)]


async def test_a_store_of_before_there_were_queries_is_made_ready(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """Nobody is told to begin anew; what was written by the earlier version is found."""
    await embedded.commit([a_chat(f"c{n:04}", "a" if n % 300 == 0 else "b") for n in range(1_200)])
    async with database.connection() as conn:
        await conn.execute(
            "ALTER TABLE documents.document DROP COLUMN terms, DROP COLUMN times;"
            " DROP FUNCTION documents.commit_writes(text[], text[], text[], text[], text[],"
            " text[], text[], bigint[]);"
            " CREATE FUNCTION documents.commit_writes(text[], text[], text[], text[],"
            " OUT commit_us bigint, OUT refused bigint) LANGUAGE sql AS 'SELECT 0, 0'"
        )
    await asyncio.gather(*[embedded.prepare() for _ in range(3)])
    assert await ids(embedded, OF_A) == ["c0000", "c0300", "c0600", "c0900"]
    assert await embedded.count_of(CHATS) == 10
    await embedded.commit([a_chat("c0001", "a")])
    assert await ids(embedded, OF_A) == ["c0000", "c0001", "c0300", "c0600", "c0900"]
    left = await database.fetch("SELECT count(*) FROM pg_proc WHERE proname = 'commit_writes'")
    assert left == [(1,)]


async def test_texts_that_share_a_number_are_told_apart(
    embedded: EmbeddedDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number is a hint: every document is compared with what was asked."""
    monkeypatch.setattr(embedded_terms, "_term", lambda *_: 7)
    writes = [a_chat(f"c{n}", "a" if n in (3, 8) else "b") for n in range(10)]
    of_others = [
        Write(path=path, fields=encode_fields({"who": ["a"]}))
        for path in ("other/o1", "chats/c1/chats/c2")
    ]
    await embedded.commit([*writes, *of_others])
    two = DocumentQuery(collection="chats", conditions=OF_A.conditions, limit=2)
    assert await ids(embedded, two) == ["c3", "c8"]
    behind = DocumentQuery(
        collection="chats", conditions=OF_A.conditions, limit=2, after=(None, "c3")
    )
    assert await ids(embedded, behind) == ["c8"]
    assert await embedded.count_of(OF_A) == 2


async def test_a_field_in_a_map_is_found_without_a_look_at_all(
    embedded: EmbeddedDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Participants may be the names of a map's fields; every inbox asks for them."""
    texts: list[str] = []

    def decoded(text: str) -> Fields:
        texts.append(text)
        return embedded_rows.decoded(text)

    monkeypatch.setattr(embedded_query, "decoded", decoded)
    await embedded.commit(
        [
            Write(path=f"chats/c{n}", fields=encode_fields({"who": {f"u{n}": None, "all": n}}))
            for n in range(50)
        ]
    )
    query = DocumentQuery(collection="chats", order_by=("who", "u7"), limit=10)
    assert await ids(embedded, query) == ["c7"]
    assert len(texts) == 1
    query = DocumentQuery(collection="chats", order_by=("who", "all"), is_falling=True, limit=2)
    assert await ids(embedded, query) == ["c49", "c48"]


async def test_a_field_whose_name_cannot_be_written_down_is_found(
    embedded: EmbeddedDocumentStore,
) -> None:
    """Slower, and no less exact."""
    names = ("a\0b", "a\x1fb")
    for name in names:
        path = f"things/{names.index(name)}"
        await embedded.commit([Write(path=path, fields=encode_fields({name: NOW}))])
        query = DocumentQuery(
            collection="things", conditions=(by(name, ">=", NOW),), order_by=(name,), limit=5
        )
        assert await ids(embedded, query) == [str(names.index(name))]


async def test_a_query_waits_for_no_view(new_database: Databases) -> None:
    """More of them at once than there are connections: each takes one, and no second."""
    # As few as do: the last one waits for all before it, and no busy machine may make that long.
    database = Database(await new_documents_dsn(new_database), DOCUMENTS, max_size=2)
    await database.open()
    store = EmbeddedDocumentStore(database)
    await store.commit([a_chat("c1", "a")])
    found = await asyncio.gather(*[ids(store, OF_A) for _ in range(6)])
    assert found == [["c1"]] * 6
    await store.aclose()


async def test_what_a_body_reads_is_of_one_moment(embedded: EmbeddedDocumentStore) -> None:
    """A member who is blocked in between is not seen as a member who is not blocked."""
    await embedded.commit([a_chat("c1", "a"), a_chat("c2", "a")])
    runs: list[tuple[object, object]] = []

    async def body(reads: TransactionReads) -> Decision[None]:
        first = await reads.get("chats/c1")
        if not runs:
            runs.append((None, None))
            await embedded.commit([a_chat("c1", "b"), a_chat("c2", "b")])
        second = await reads.get("chats/c2")
        assert first is not None
        assert second is not None
        runs.append((first.fields, second.fields))
        raise LookupError

    with pytest.raises(LookupError):
        await embedded.transact(body)
    assert [first == second for first, second in runs] == [True, True]
    assert len(runs) == 2


class HastyClock(SystemClock):
    """A second goes by whenever somebody looks."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 1.0
        return self.now_s


async def test_contention_that_lasts_is_an_unavailable_source(database: Database) -> None:
    """Nobody waits for ever; the message says that nothing was written."""
    store = EmbeddedDocumentStore(database, HastyClock())
    await store.prepare()
    run_count = 0

    async def body(reads: TransactionReads) -> Decision[None]:
        nonlocal run_count
        run_count += 1
        await reads.get("chats/c1")
        await store.commit([a_chat("c1", f"u{run_count}")])
        return Decision(writes=[a_chat("c2", "a")], result=None)

    with pytest.raises(SourceUnavailable, match="nothing was written"):
        await store.transact(body)
    assert run_count == 10
    assert (await store.get("chats/c2")).document is None


async def test_a_transaction_through_another_process_is_noticed(
    embedded: EmbeddedDocumentStore, database: Database
) -> None:
    """What is compared is what the database holds: another process's commits count."""
    other = EmbeddedDocumentStore(database)

    async def incremented(reads: TransactionReads) -> Decision[None]:
        document = await reads.get("users/a")
        number = 0 if document is None else int(str(document.fields["n"]["integerValue"]))
        fields = encode_fields({"n": number + 1})
        return Decision(writes=[Write(path="users/a", fields=fields)], result=None)

    await asyncio.gather(*[s.transact(incremented) for s in (embedded, other) for _ in range(40)])
    document = (await embedded.get("users/a")).document
    assert document is not None
    assert document.fields == encode_fields({"n": 80})


async def test_a_page_shows_all_that_was_written_before_its_time(
    embedded: EmbeddedDocumentStore,
) -> None:
    """Commits are seen in the order of their times, also those that nobody was told of yet."""
    times: dict[str, int] = {}

    async def write_many() -> None:
        for n in range(60):
            times[f"c{n}"] = await embedded.commit([a_chat(f"c{n}", "a")])

    async def look_often() -> list[DocumentPage]:
        return [await embedded.query(replace(OF_A, limit=100)) for _ in range(15)]

    _, pages = await asyncio.gather(write_many(), look_often())
    for page in pages:
        shown = {document.path.rpartition("/")[2] for document in page.documents}
        assert shown == {c for c, time_us in times.items() if time_us < page.read_time_us}
