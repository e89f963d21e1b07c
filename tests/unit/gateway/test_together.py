"""Several calls at a time: none outlives the whole, and errors come out as they are."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.errors import CallRefused, SourceUnavailable
from storemirror.gateway.rights import Rights
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.gateway.together import together
from storemirror.model.load import load_model
from storemirror.source.port import Document


class Documents:
    """Reads that wait until all of a call are under way; then one of them fails."""

    def __init__(self, count: int, failing: str) -> None:
        self._count = count
        self._failing = failing
        self.all_are_here = asyncio.Event()
        self.under_way: set[str] = set()
        self.most_under_way = 0

    async def get(self, path: str) -> Document | None:
        self.under_way.add(path)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        if len(self.under_way) == self._count:
            self.all_are_here.set()
        try:
            await self.all_are_here.wait()
            if path == self._failing:
                raise SourceUnavailable("planted")
            await asyncio.Event().wait()
        finally:
            self.under_way.discard(path)
        return None


async def test_nothing_of_a_call_that_fails_goes_on() -> None:
    """A transaction would be read in after it was given up (issue 7)."""
    model = load_model()
    rights = Rights(DirectMessages.of(model), FollowGraph.of(model))
    documents = Documents(3, failing="users/u1/blocks/me")
    with pytest.raises(SourceUnavailable, match="planted"):
        await rights.refuse_blocked(documents, "me", ["u0", "u1", "u2"])
    assert documents.most_under_way == 3
    assert documents.under_way == set()


async def test_results_come_in_the_order_of_their_items() -> None:
    """Whichever ends first; and no more are under way than may be."""
    under_way, most = 0, 0

    async def doubled(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(5 - item):
            await asyncio.sleep(0)
        under_way -= 1
        return 2 * item

    assert await together(doubled, range(5), most=2) == [0, 2, 4, 6, 8]
    assert most == 2
    assert await together(doubled, range(5)) == [0, 2, 4, 6, 8]
    assert most == 5
    assert await together(doubled, []) == []


async def test_who_is_called_off_calls_off_all() -> None:
    """At a deadline nobody waits for an answer."""
    documents = Documents(2, failing="")
    calling = asyncio.create_task(together(documents.get, ["a", "b"]))
    await documents.all_are_here.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert documents.under_way == set()


async def test_an_error_is_no_group_of_errors() -> None:
    """Callers tell errors by their class."""

    async def refused(item: int) -> None:
        raise CallRefused("NOT_FOUND", str(item))

    with pytest.raises(CallRefused):
        await together(refused, [1, 2])
