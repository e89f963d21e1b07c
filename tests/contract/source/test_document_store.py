"""What every document store promises; see `storemirror.source.port`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from storemirror.event.change import Fields
from storemirror.event.digest import digest_of
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.source.port import (
    Document,
    DocumentStore,
    PinnedView,
    Precondition,
    PreconditionFailed,
    Write,
)

CONVERSATION = ("conversations", "{conversationId}")
MESSAGE = ("conversations", "{conversationId}", "messages", "{messageId}")


def numbered(number: int) -> Fields:
    return encode_fields({"n": number})


def a_write(path: str, number: int = 1, precondition: Precondition = Precondition.NONE) -> Write:
    return Write(path=path, fields=numbered(number), precondition=precondition)


def a_delete(path: str, precondition: Precondition = Precondition.NONE) -> Write:
    return Write(path=path, fields=None, precondition=precondition)


async def scanned(
    view: PinnedView, pattern: Sequence[str], page_size: int = 300, max_count: int | None = None
) -> list[list[Document]]:
    pages = view.scan(pattern, page_size=page_size, max_count=max_count)
    return [list(page.documents) async for page in pages]


async def paths_of(store: DocumentStore, pattern: Sequence[str], page_size: int = 300) -> list[str]:
    async with store.pinned() as view:
        pages = await scanned(view, pattern, page_size)
    return [document.path for page in pages for document in page]


async def test_a_document_written_is_read_with_its_times(store: DocumentStore) -> None:
    """Versions are made of these times: they must be the commit's own."""
    created_us = await store.commit([a_write("users/a", 1)])
    updated_us = await store.commit([a_write("users/a", 2)])
    read = await store.get("users/a")
    assert read.document == Document(
        path="users/a",
        fields=numbered(2),
        create_time_us=created_us,
        update_time_us=updated_us,
    )


async def test_a_document_that_is_not_there_is_read_as_absent(store: DocumentStore) -> None:
    """Absence is an answer with a read time, from which a delete is made."""
    committed_us = await store.commit([a_write("users/b")])
    read = await store.get("users/a")
    assert read.document is None
    assert read.read_time_us > committed_us


async def test_a_write_replaces_the_whole_document(store: DocumentStore) -> None:
    """Every event carries the full after-image; nothing of the one before is left."""
    await store.commit([Write(path="users/a", fields=encode_fields({"old": 1, "n": 1}))])
    await store.commit([a_write("users/a", 2)])
    read = await store.get("users/a")
    assert read.document is not None
    assert read.document.fields == numbered(2)


async def test_a_commit_gives_one_time_to_all_its_writes(store: DocumentStore) -> None:
    """Documents written together have the same version."""
    committed_us = await store.commit([a_write("users/a"), a_write("users/b")])
    reads = [await store.get("users/a"), await store.get("users/b")]
    assert [r.document and r.document.update_time_us for r in reads] == [committed_us] * 2


async def test_commit_times_rise_strictly_under_concurrent_commits(store: DocumentStore) -> None:
    """Two changes of one document with one time would be one event."""
    times = await asyncio.gather(*[store.commit([a_write("users/a", n)]) for n in range(200)])
    assert len(set(times)) == 200
    read = await store.get("users/a")
    assert read.document is not None
    newest = max(range(200), key=lambda n: times[n])
    assert read.document.fields == numbered(newest)
    assert read.document.update_time_us == times[newest]


async def test_commit_then_read_then_recreation_have_rising_times(store: DocumentStore) -> None:
    """A delete that was only observed sorts between what it removed and what came after."""
    for number in range(20):
        written_us = await store.commit([a_write("users/a", number)])
        deleted_us = await store.commit([a_delete("users/a")])
        read = await store.get("users/a")
        recreated_us = await store.commit([a_write("users/a", number)])
        assert read.document is None
        assert written_us < deleted_us < read.read_time_us < recreated_us


async def test_a_recreated_document_has_a_new_creation_time(store: DocumentStore) -> None:
    """It is another document under the same name."""
    await store.commit([a_write("users/a")])
    await store.commit([a_delete("users/a")])
    recreated_us = await store.commit([a_write("users/a")])
    read = await store.get("users/a")
    assert read.document is not None
    assert read.document.create_time_us == recreated_us


async def test_a_write_that_changes_nothing_keeps_the_update_time(store: DocumentStore) -> None:
    """As Firestore documents it; no trigger fires, so no version may come of it."""
    committed_us = await store.commit([a_write("users/a", 1)])
    await store.commit([a_write("users/a", 1)])
    read = await store.get("users/a")
    assert read.document is not None
    assert read.document.update_time_us == committed_us


@pytest.mark.parametrize(
    ("precondition", "is_there"), [(Precondition.EXISTS, False), (Precondition.ABSENT, True)]
)
async def test_a_failed_precondition_writes_nothing_of_the_commit(
    store: DocumentStore, precondition: Precondition, is_there: bool
) -> None:
    """All or nothing: half a commit would be a state that no client ever wrote."""
    before = [a_write("users/b", 1)] + ([a_write("users/a", 1)] if is_there else [])
    await store.commit(before)
    refused = [a_write("users/b", 2), a_write("users/a", 2, precondition), a_write("users/c", 2)]
    with pytest.raises(PreconditionFailed) as caught:
        await store.commit(refused)
    assert caught.value.path == "users/a"
    assert (await store.get("users/c")).document is None
    read = await store.get("users/b")
    assert read.document is not None
    assert read.document.fields == numbered(1)


async def test_preconditions_that_hold_let_the_commit_through(store: DocumentStore) -> None:
    """Creation is guarded by absence, change and delete by presence."""
    await store.commit([a_write("users/a", 1, Precondition.ABSENT)])
    await store.commit([a_write("users/a", 2, Precondition.EXISTS)])
    await store.commit([a_delete("users/a", Precondition.EXISTS)])
    assert (await store.get("users/a")).document is None
    with pytest.raises(PreconditionFailed):
        await store.commit([a_delete("users/a", Precondition.EXISTS)])


async def test_a_delete_of_nothing_is_no_error(store: DocumentStore) -> None:
    """Firestore's deletes are idempotent unless guarded."""
    await store.commit([a_delete("users/a")])
    assert (await store.get("users/a")).document is None


EXACT = encode_fields(
    {
        "nan": float("nan"),
        "minusZero": -0.0,
        "infinities": [float("inf"), float("-inf")],
        "tiny": 5e-324,
        "large": 1.7976931348623157e308,
        "third": 1 / 3,
        "wholeDouble": 2.0,
        "int64": [2**63 - 1, -(2**63), 2**53 + 1],
        "nul": "a\0b",
        "unicode": "e\u0301 \U0001f469\u200d\U0001f680 \u202e \u2028 \ufeff \U0010ffff",
        "bytes": bytes(range(256)),
        "nothing": None,
        "truth": [True, False],
        "empty": ["", {}, {"array": []}],
        "where": GeoPoint(-0.0, 179.999999),
        "who": Reference("projects/p/databases/(default)/documents/users/a"),
        "nested": {"a": {"b": [{"c": {"d.e": "dot", "d": "none"}}]}},
        "__odd name`\\": "odd",
    }
)


async def test_values_survive_to_the_last_bit(store: DocumentStore) -> None:
    """A store that mangles a value makes a digest that no other side can make."""
    await store.commit([Write(path="users/a", fields=EXACT)])
    read = await store.get("users/a")
    assert read.document is not None
    assert digest_of(read.document.fields) == digest_of(EXACT)
    async with store.pinned() as view:
        [[document]] = await scanned(view, ("users", "{userId}"))
    assert digest_of(document.fields) == digest_of(EXACT)


#: In byte order; "a" + "-", "." and "!" sort before "a/…" if paths were compared as one string.
ODD_IDS = [
    "!",
    "-",
    ".a",
    "A",
    "Z",
    "a",
    "a!",
    "a-",
    "a.",
    "a0",
    "aa",
    "b",
    "~",
    "é",
    "\uff5a",
    "\U0001d54f",
]


@pytest.mark.parametrize("page_size", [1, 3, 300])
async def test_a_scan_gives_keys_in_byte_order_part_by_part(
    store: DocumentStore, page_size: int
) -> None:
    """The checker merges both sides by key: one order, or every row is a difference."""
    keys = [(c, m) for c in ODD_IDS for m in ODD_IDS]
    paths = [f"conversations/{c}/messages/{m}" for c, m in keys]
    await store.commit([a_write(path) for path in reversed(paths)])
    found = await paths_of(store, MESSAGE, page_size)
    assert found == paths
    by_bytes = sorted(keys, key=lambda key: tuple(part.encode() for part in key))
    assert [tuple(path.split("/")[1::2]) for path in found] == by_bytes


async def test_a_scan_gives_only_what_the_pattern_fits(store: DocumentStore) -> None:
    """Other collections, deeper and shallower ones, are other entities."""
    wanted = ["conversations/c1", "conversations/c2"]
    others = [
        "conversations/c1/messages/m1",
        "conversation/c1",
        "conversationsX/c1",
        "users/conversations",
        "users/u/conversations/c1",
    ]
    await store.commit([a_write(path) for path in wanted + others])
    assert await paths_of(store, CONVERSATION) == wanted


async def test_a_pattern_may_fix_an_id(store: DocumentStore) -> None:
    """A declared path may hold an id of its own: one tenant's documents."""
    await store.commit(
        [a_write(f"tenants/{t}/users/{u}") for t in ("acme", "other") for u in "abc"]
    )
    found = await paths_of(store, ("tenants", "acme", "users", "{userId}"), page_size=2)
    assert found == [f"tenants/acme/users/{u}" for u in "abc"]


@pytest.mark.parametrize(
    ("count", "page_size", "sizes"),
    [(0, 2, []), (2, 2, [2]), (4, 2, [2, 2]), (5, 2, [2, 2, 1]), (5, 300, [5])],
)
async def test_a_scan_comes_in_full_pages(
    store: DocumentStore, count: int, page_size: int, sizes: list[int]
) -> None:
    """No page is empty, none above its size, and the last one ends the scan."""
    await store.commit([a_write(f"conversations/c{n}") for n in range(count)])
    async with store.pinned() as view:
        pages = await scanned(view, CONVERSATION, page_size)
    assert [len(page) for page in pages] == sizes


@pytest.mark.parametrize(("max_count", "expected"), [(0, 0), (1, 1), (3, 3), (5, 5), (9, 5)])
async def test_a_scan_stops_after_max_count(
    store: DocumentStore, max_count: int, expected: int
) -> None:
    """Each document read costs money: a limit is a limit."""
    await store.commit([a_write(f"conversations/c{n}") for n in range(5)])
    async with store.pinned() as view:
        pages = await scanned(view, CONVERSATION, page_size=2, max_count=max_count)
    assert [d.path for page in pages for d in page] == [
        f"conversations/c{n}" for n in range(expected)
    ]


async def test_pages_carry_the_read_time_that_covers_them(store: DocumentStore) -> None:
    """A key missing from a page becomes a delete at that time."""
    await store.commit([a_write(f"conversations/c{n}") for n in range(3)])
    async with store.pinned() as view:
        times = [p.read_time_us async for p in view.scan(CONVERSATION, page_size=2)]
        assert times == [view.read_time_us] * 2


async def test_a_pinned_view_is_unmoved_by_later_commits(store: DocumentStore) -> None:
    """Lag is never a mismatch: the check compares one moment, however long it takes."""
    before = [a_write(f"conversations/c{n}", 1) for n in range(4)]
    committed_us = await store.commit(before)
    async with store.pinned() as view:
        scan = view.scan(CONVERSATION, page_size=2)
        first = await anext(scan)
        later_us = await store.commit(
            [
                a_write("conversations/c3", 2),
                a_delete("conversations/c2"),
                a_write("conversations/z"),
            ]
        )
        rest = [document async for page in scan for document in page.documents]
        again = [document for page in await scanned(view, CONVERSATION) for document in page]
    assert [*first.documents, *rest] == again
    assert [(d.path, d.fields) for d in again] == [(w.path, w.fields) for w in before]
    assert committed_us < view.read_time_us < later_us


async def test_a_pinned_view_sees_exactly_the_commits_before_its_read_time(
    store: DocumentStore,
) -> None:
    """The read time is exact under concurrent commits, else `check` cries wolf or is blind."""
    times: dict[str, int] = {}

    async def write_many(writer: int) -> None:
        for number in range(60):
            path = f"conversations/w{writer}-{number}"
            times[path] = await store.commit([a_write(path)])

    seen: list[tuple[int, set[str]]] = []

    async def look_often() -> None:
        for _ in range(15):
            async with store.pinned() as view:
                pages = await scanned(view, CONVERSATION, page_size=100)
                seen.append((view.read_time_us, {d.path for page in pages for d in page}))

    await asyncio.gather(*[write_many(writer) for writer in range(4)], look_often())
    assert [paths for _, paths in seen] == [
        {path for path, time_us in times.items() if time_us < read_time_us}
        for read_time_us, _ in seen
    ]
    assert len({len(paths) for _, paths in seen}) > 3


@pytest.mark.parametrize("path", ["", "users", "users/", "/a", "users//x/y", "users/a/following"])
async def test_what_is_no_documents_path_is_refused(store: DocumentStore, path: str) -> None:
    """A collection's path or an empty id is a mistake of the caller, before anything is sent."""
    with pytest.raises(ValueError, match=r"path|segment"):
        await store.get(path)
    with pytest.raises(ValueError, match=r"path|segment"):
        await store.commit([a_write("users/a"), a_write(path)])
    assert (await store.get("users/a")).document is None
