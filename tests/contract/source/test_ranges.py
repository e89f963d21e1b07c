"""Counting, dividing, and reading within bounds: what a backfill needs of every store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

import pytest

from storemirror.errors import ReadTimeRefused
from storemirror.event.value import encode_fields
from storemirror.source.budget import ReadBudget, ReadBudgetSpent
from storemirror.source.key_ranges import key_of_path
from storemirror.source.port import DocumentStore, Key, KeyRange, PinnedView, Write

CONVERSATION = ("conversations", "{conversationId}")
MESSAGE = ("conversations", "{conversationId}", "messages", "{messageId}")
FOLLOW = ("users", "{followerId}", "following", "{followeeId}")


async def fill(store: DocumentStore, *paths: str) -> None:
    fields = encode_fields({"n": 1})
    for start in range(0, len(paths), 100):
        await store.commit([Write(path=p, fields=fields) for p in paths[start : start + 100]])


async def keys_within(
    view: PinnedView, pattern: Sequence[str], within: KeyRange, page_size: int = 300
) -> list[Key]:
    pages = view.scan(pattern, page_size=page_size, within=within)
    found = [
        key_of_path(pattern, d.path.split("/")) async for page in pages for d in page.documents
    ]
    return [key for key in found if key is not None]


async def scan_into(
    found: list[Key], view: PinnedView, within: KeyRange, budget: ReadBudget
) -> None:
    pages = view.scan(CONVERSATION, page_size=3, within=within, budget=budget)
    async for page in pages:
        found.extend((d.path.split("/")[1],) for d in page.documents)


@pytest.mark.parametrize(
    ("after", "up_to", "expected"),
    [
        (None, None, "abcde"),
        ("b", None, "cde"),
        (None, "b", "ab"),
        ("a", "d", "bcd"),
        ("bb", "cc", "c"),
        ("e", None, ""),
        ("b", "b", ""),
    ],
)
@pytest.mark.parametrize("page_size", [1, 2, 300])
async def test_a_scan_keeps_within_its_bounds(
    store: DocumentStore, after: str | None, up_to: str | None, expected: str, page_size: int
) -> None:
    """Above the lower, up to and with the upper: ranges that meet read every key once."""
    await fill(store, *(f"conversations/{name}" for name in "abcde"))
    within = KeyRange(
        after=None if after is None else (after,), up_to=None if up_to is None else (up_to,)
    )
    async with store.pinned() as view:
        found = await keys_within(view, CONVERSATION, within, page_size)
    assert found == [(name,) for name in expected]


async def test_bounds_compare_key_by_key_part(store: DocumentStore) -> None:
    """A path compared as one text would sort 'a!' before 'a/'."""
    paths = ["a/messages/x", "a/messages/y", "a!/messages/x", "b/messages/x"]
    await fill(store, *(f"conversations/{path}" for path in paths))
    async with store.pinned() as view:
        found = await keys_within(view, MESSAGE, KeyRange(after=("a", "x"), up_to=("b", "0")))
    assert found == [("a", "y"), ("a!", "x")]


async def test_bounds_in_a_group_leave_other_collections_out(store: DocumentStore) -> None:
    """A collection group has every collection of its name, wherever it is."""
    await fill(store, "conversations/b/messages/x", "rooms/b/messages/x", "a/b/messages/x")
    async with store.pinned() as view:
        found = await keys_within(view, MESSAGE, KeyRange(after=("a", "x"), up_to=("z", "x")))
    assert found == [("b", "x")]


async def test_documents_are_counted(store: DocumentStore) -> None:
    """What a scan will cost is said before it is begun."""
    await fill(store, *(f"conversations/c{n}/messages/m" for n in range(7)))
    assert await store.count(MESSAGE) == 7
    assert await store.count(MESSAGE, max_count=3) == 3
    assert await store.count(CONVERSATION) == 0


@pytest.mark.parametrize("max_count", [1, 2, 5, 64])
async def test_ranges_cover_every_key_once(store: DocumentStore, max_count: int) -> None:
    """A gap would lose documents without a trace; an overlap would pay twice."""
    keys = [(first, second) for first in "0Akz~é" for second in ("0", "Z", "zz")]
    await fill(store, *(f"users/{a}/following/{b}" for a, b in keys))
    ranges = await store.partitions(FOLLOW, max_count)
    assert 1 <= len(ranges) <= max_count
    async with store.pinned() as view:
        found = [await keys_within(view, FOLLOW, within, 4) for within in ranges]
    assert list(itertools.chain(*found)) == sorted(keys)


async def test_an_empty_collection_is_divided_too(store: DocumentStore) -> None:
    """Documents may come between the counting and the reading."""
    ranges = await store.partitions(MESSAGE, 4)
    assert (ranges[0].after, ranges[-1].up_to) == (None, None)


async def test_a_budget_counts_what_is_read(store: DocumentStore) -> None:
    """Firestore bills each document read, and one read for a query that finds nothing."""
    await fill(store, *(f"conversations/c{n}" for n in range(5)))
    budget = ReadBudget()
    async with store.pinned() as view:
        pages = [page async for page in view.scan(CONVERSATION, page_size=3, budget=budget)]
        assert [len(page.documents) for page in pages] == [3, 2]
        assert budget.spent_count == 5
        assert [page async for page in view.scan(MESSAGE, budget=budget)] == []
    assert budget.spent_count == 6


@pytest.mark.parametrize("limit", [1, 3, 4, 6])
async def test_a_budget_is_never_exceeded(store: DocumentStore, limit: int) -> None:
    """A bill larger than allowed is the complaint we must make impossible."""
    await fill(store, *(f"conversations/c{n}" for n in range(7)))
    budget = ReadBudget(limit)
    found: list[Key] = []
    async with store.pinned() as view:
        with pytest.raises(ReadBudgetSpent):
            await scan_into(found, view, KeyRange(), budget)
    assert budget.spent_count == limit
    assert found == [(f"c{n}",) for n in range(limit)]


async def test_scans_at_the_same_time_share_a_budget(store: DocumentStore) -> None:
    """Each asks before it reads: together they stay within the limit."""
    await fill(store, *(f"conversations/c{n:02}" for n in range(30)))
    budget = ReadBudget(20)
    found: list[Key] = []
    async with store.pinned() as view:
        halves = [KeyRange(up_to=("c14",)), KeyRange(after=("c14",))]
        scans = [scan_into(found, view, within, budget) for within in halves]
        ended = await asyncio.gather(*scans, return_exceptions=True)
    assert all(isinstance(end, ReadBudgetSpent) for end in ended)
    assert budget.spent_count == len(found) == 20


async def test_an_earlier_moment_is_shown_or_refused(store: DocumentStore) -> None:
    """A backfill that goes on later must know whether it reads the same moment."""
    await fill(store, "conversations/a")
    async with store.pinned() as view:
        moment_us = view.read_time_us
    await fill(store, "conversations/b")
    with contextlib.suppress(ReadTimeRefused):
        async with store.pinned(moment_us) as view:
            assert view.read_time_us == moment_us
            assert await keys_within(view, CONVERSATION, KeyRange()) == [("a",)]
