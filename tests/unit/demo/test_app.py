"""The demo's app on a real store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storemirror.clock import SystemClock
from storemirror.demo.app import SocialApp
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import PreconditionFailed
from storemirror.sql.postgres.connection import DOCUMENTS, Database

pytestmark = pytest.mark.postgres


@pytest.fixture
async def store(
    new_database: Callable[[], Awaitable[str]],
) -> AsyncIterator[EmbeddedDocumentStore]:
    database = Database(await new_database(), DOCUMENTS, max_size=4)
    await database.open()
    embedded = EmbeddedDocumentStore(database)
    await embedded.prepare()
    yield embedded
    await embedded.aclose()


async def live(app: SocialApp, write_count: int) -> None:
    while app.counts.written < write_count:
        await app.step()


async def test_what_the_app_counts_is_what_the_store_tells(store: EmbeddedDocumentStore) -> None:
    """The demo holds `written` against what was published: one write, one change."""
    app = SocialApp(store, SystemClock(), seed=1)
    await live(app, 400)
    newest_us = app.counts.newest_commit_time_us
    assert newest_us is not None
    assert await store.pending_count(newest_us) == app.counts.written
    assert await store.pending_count(newest_us - 1) < app.counts.written
    async with store.outbox_batch(max_count=1_000) as batch:
        changes = batch.changes
    assert sum(change.after is None for change in changes) == app.counts.deleted
    created = Counter(change.path for change in changes if change.before is None)
    assert created.total() - len(created) == app.counts.recreated


async def test_the_app_writes_over_nothing_that_is_not_its_own(
    store: EmbeddedDocumentStore,
) -> None:
    """A second app of the same seed would mix two histories; it stops at its first write."""
    await live(SocialApp(store, SystemClock(), seed=1), 10)
    second = SocialApp(store, SystemClock(), seed=1)
    with pytest.raises(PreconditionFailed):
        await second.step()
    assert second.counts.written == 0
