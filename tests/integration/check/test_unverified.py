"""A check clears the marks of purged dead letters, where it has shown documents to be right."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storemirror.model.load import load_model
from storemirror.sql.port import UnverifiedDocument
from tests.integration.check.world import World, running_world
from tests.support.databases import Databases

pytestmark = pytest.mark.postgres

HEALTHY, DAMAGED, GONE = (f"users/{name}/following/v" for name in ("a", "b", "c"))


def mark_of(path: str | None, message_id: str) -> UnverifiedDocument:
    """A mark at a version that no row of these tests overtakes."""
    key = None if path is None else (path.split("/")[1], path.split("/")[3])
    return UnverifiedDocument(
        message_id=message_id,
        reason="EventRefused",
        path=path,
        entity=None if path is None else "FollowEdge",
        key=key,
        version=None if path is None else 2**62,
    )


@pytest.fixture
async def world(new_database: Databases) -> AsyncIterator[World]:
    """Two documents, both mirrored; of four events the dead letters were purged."""
    async with running_world(load_model(), new_database) as opened:
        for path in (HEALTHY, DAMAGED):
            await opened.write(path, {"createdAt": None})
        await opened.catch_up()
        paths = (HEALTHY, DAMAGED, GONE, None)
        await opened.mirror.mark_unverified([mark_of(p, f"e{n}") for n, p in enumerate(paths)])
        yield opened


async def left(world: World) -> list[str | None]:
    """Give the paths that are marked still."""
    return [mark.path for mark in await world.mirror.unverified()]


async def test_a_clean_check_of_everything_clears_every_mark(world: World) -> None:
    """Also of a document that is on neither side, and of one that nobody can name."""
    found = await world.check()
    assert found.is_clean
    assert (found.verified_count, found.unverified_count) == (4, 0)
    assert await left(world) == []


async def test_a_document_that_differs_stays_marked(world: World) -> None:
    """And so does the one that nobody can name: it may be this one."""
    await world.sql.execute("DELETE FROM storemirror.follow_edge WHERE follower_id = 'b'")
    found = await world.check()
    assert (found.mismatch_count, found.unverified_count) == (1, 2)
    assert await left(world) == [DAMAGED, None]


async def test_a_check_of_some_clears_what_it_saw(world: World) -> None:
    """The first of each kind, or another kind, say nothing of the others."""
    assert (await world.check(checks=("messages",))).unverified_count == 4
    assert (await world.check(limit=1)).unverified_count == 3
    assert await left(world) == [DAMAGED, GONE, None]


async def test_an_event_newer_than_the_lost_one_needs_no_check(world: World) -> None:
    """Whatever the check compares, what was overtaken is no longer in doubt."""
    await world.sql.execute("UPDATE storemirror.unverified_document SET version = 1")
    found = await world.check(checks=("messages",))
    assert found.unverified_count == 2
    assert await left(world) == [GONE, None]
