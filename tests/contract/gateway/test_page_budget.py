"""What every source promises of pages whose messages are large; see `PageBudget`."""

from __future__ import annotations

import pytest

from storemirror.gateway.page_budget import PAGE_MAX_WEIGHT, weight_of
from storemirror.gateway.port import MessagePage, Position
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import Side, write

ME, YOU = "me", "you"
BEFORE_ALL = Position(time_us=us(-1), id="m")


async def send(side: Side, n: int, **contents: object) -> None:
    await write(side, f"conversations/c1/messages/m{n}", senderId=YOU, sentAt=at(n), **contents)


async def page_of(
    side: Side,
    *,
    older_than: Position | None = None,
    newer_than: Position | None = None,
    limit: int = 100,
) -> MessagePage:
    page = await side.messages.messages(
        ME, "c1", older_than=older_than, newer_than=newer_than, limit=limit
    )
    assert page is not None
    return page


async def older_pages(side: Side, limit: int = 100) -> list[MessagePage]:
    """Read all of the conversation, from the newest on."""
    pages = [await page_of(side, limit=limit)]
    while pages[-1].has_older:
        place = pages[-1].items[-1].position
        pages.append(await page_of(side, older_than=place, limit=limit))
    return pages


async def newer_pages(side: Side, limit: int = 100) -> list[MessagePage]:
    """Read all of the conversation, from the oldest on."""
    pages = [await page_of(side, newer_than=BEFORE_ALL, limit=limit)]
    while pages[-1].has_newer:
        place = pages[-1].items[0].position
        pages.append(await page_of(side, newer_than=place, limit=limit))
    return pages


def ids(page: MessagePage) -> list[str]:
    return [item.message_id for item in page.items]


@pytest.fixture
async def large(side: Side) -> Side:
    """A conversation of messages of many values, of long texts, and of more than a page holds."""
    await write(side, "conversations/c1", participantIds=[ME, YOU], createdAt=at(0))
    for n in (1, 2, 5, 6, 7):
        await send(side, n, attachments=[{"a": [0] * 7_000}])
    await send(side, 3, body="x" * 500_000, attachments=[{"text": "x" * 400_000}])
    await send(side, 4, attachments=[{"a": [{"b": 0}] * 20_000}])
    return side


async def test_a_page_ends_early_where_its_messages_are_large(large: Side) -> None:
    """One user's messages would hold up everybody's calls for seconds (issue 7)."""
    pages = await older_pages(large)
    assert [ids(page) for page in pages] == [["m7", "m6"], ["m5"], ["m4"], ["m3"], ["m2", "m1"]]
    weights = [sum(map(weight_of, page.items)) for page in pages]
    # The page of a message that is too large by itself has it alone.
    assert [weight > PAGE_MAX_WEIGHT for weight in weights] == [False, False, True, False, False]
    assert [page.has_newer for page in pages] == [False, True, True, True, True]


async def test_a_page_of_newer_ones_ends_early_before_the_newest(large: Side) -> None:
    """What lies nearest to the asked place is on the page."""
    pages = await newer_pages(large)
    assert [ids(page) for page in pages] == [["m2", "m1"], ["m3"], ["m4"], ["m6", "m5"], ["m7"]]
    assert [page.has_older for page in pages] == [False, True, True, True, True]


@pytest.mark.parametrize("first_count", [1, 2, 3, 30])
async def test_pages_that_end_early_lose_and_double_nothing(
    side: Side, monkeypatch: pytest.MonkeyPatch, first_count: int
) -> None:
    """Whatever is fetched at a time."""
    monkeypatch.setattr("storemirror.gateway.page_budget.PAGE_MAX_WEIGHT", 800)
    monkeypatch.setattr("storemirror.gateway.page_budget.FIRST_COUNT", first_count)
    await write(side, "conversations/c1", participantIds=[ME, YOU], createdAt=at(0))
    lengths = [10, 10, 700, 10, 300, 300, 10, 10, 10, 900, 10]
    for n, length in enumerate(lengths):
        await send(side, n, body="x" * length)
    await write(side, "conversations/c1/messages/misfit", senderId=YOU, sentAt=at(4), body=5)
    whole = [f"m{n}" for n in reversed(range(len(lengths)))]
    for limit in (1, 3, 4, 11, 100):
        older = await older_pages(side, limit)
        assert [name for page in older for name in ids(page)] == whole
        newer = await newer_pages(side, limit)
        assert [name for page in reversed(newer) for name in ids(page)] == whole
        assert all(0 < len(page.items) <= limit for page in (*older, *newer))


async def test_light_messages_fill_a_page(side: Side) -> None:
    """Fetched in two goes, without a gap between them."""
    await write(side, "conversations/c1", participantIds=[ME, YOU], createdAt=at(0))
    for n in range(45):
        await send(side, n, body="hello")
    page = await page_of(side, limit=44)
    assert ids(page) == [f"m{n}" for n in range(44, 0, -1)]
    assert (page.has_older, page.has_newer) == (True, False)
    page = await page_of(side, newer_than=BEFORE_ALL, limit=45)
    assert ids(page) == [f"m{n}" for n in range(44, -1, -1)]
    assert (page.has_older, page.has_newer) == (False, False)
