"""
Commits of the embedded store that wait at the same time share a transaction.

A lock is held from the moment in which a commit draws its time until it is on disk, so that times
and visibility have one order.  Each in a transaction of its own, there would be no more commits a
second than the disk flushes.  Every commit keeps a time of its own, and stands or falls by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, LiteralString, NamedTuple

from storemirror.errors import DatabaseRefused
from storemirror.sql.postgres.connection import Database

#: Most commits a transaction.
TOGETHER_MAX_COUNT: Final = 100

_COMMIT: Final = """
SELECT commit_us, refused, is_overtaken
FROM documents.commit_writes(
    %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
"""
#: Arrays cost more on their way than all else of a commit: few commits have read before.
_COMMIT_UNMOVED: Final = """
SELECT commit_us, refused, is_overtaken
FROM documents.commit_writes(
    %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::text[], %s::bigint[])
"""


class CommitParameters(NamedTuple):
    """What `documents.commit_writes` takes: one entry a write in each, or one a document read."""

    paths: Sequence[str]
    collections: Sequence[str]
    #: Canonical JSON; None deletes.
    fields: Sequence[str | None]
    preconditions: Sequence[str]
    #: See `storemirror.source.embedded_terms.Index`; None for a delete, likewise the next.
    terms: Sequence[str | None]
    times: Sequence[str | None]
    read_paths: Sequence[str]
    #: Update times of the documents read; None: it was not there.
    read_times_us: Sequence[int | None]


class Committed(NamedTuple):
    """What came of one commit."""

    commit_time_us: int
    #: Place, from 1, of the first write whose precondition did not hold; None: all was written.
    refused: int | None
    #: Whether a document that had been read is another one by now: nothing was written.
    is_overtaken: bool


def _call_of(commit: CommitParameters) -> tuple[LiteralString, Sequence[Any]]:
    """Give the statement of a commit, and its parameters."""
    return (_COMMIT_UNMOVED, commit) if commit.read_paths else (_COMMIT, commit[:6])


class SharedCommits:
    """Commits one transaction at a time; what comes meanwhile shares the next.

    Safe for concurrent use, in one event loop.
    """

    def __init__(self, database: Database) -> None:
        """Work on an open database, which stays the caller's to close."""
        self._database = database
        self._turn = asyncio.Lock()
        self._open: _Batch | None = None

    async def commit(self, parameters: CommitParameters) -> Committed:
        """
        Commit; when it returns, it is durable.

        A caller that is cancelled leaves its commit to the others: done or not is unknown.

        Raises:
            SourceUnavailable: written or not is unknown.
            DatabaseRefused: nothing of this one was written.
        """
        batch = self._open
        if batch is None or len(batch.commits) == TOGETHER_MAX_COUNT:
            batch = self._open = _Batch()
            batch.task = asyncio.create_task(self._flush(batch))
        place = len(batch.commits)
        batch.commits.append(parameters)
        assert batch.task is not None
        result = (await asyncio.shield(batch.task))[place]
        if isinstance(result, DatabaseRefused):
            raise result
        return result

    async def _flush(self, batch: _Batch) -> Sequence[Committed | DatabaseRefused]:
        """Commit a batch when its turn has come."""
        async with self._turn:
            if self._open is batch:
                self._open = None
            if len(batch.commits) > 1:
                try:
                    return await self._together(batch.commits)
                except DatabaseRefused:
                    pass  # nothing was written; which one is to blame shows below
            return [await self._alone(parameters) for parameters in batch.commits]

    async def _together(self, commits: Sequence[CommitParameters]) -> Sequence[Committed]:
        async with self._database.transaction() as conn:
            async with conn.pipeline():
                cursors = [await conn.execute(*_call_of(commit)) for commit in commits]
            return [Committed(*row) for cursor in cursors for row in await cursor.fetchall()]

    async def _alone(self, parameters: CommitParameters) -> Committed | DatabaseRefused:
        try:
            [row] = await self._database.fetch(*_call_of(parameters))
        except DatabaseRefused as exc:
            return exc
        return Committed(*row)

    async def aclose(self) -> None:
        """Let what is under way end.  The database stays open."""
        while self._open is not None and self._open.task is not None:
            await asyncio.wait({self._open.task})
        async with self._turn:
            pass


class _Batch:
    """Commits that share a transaction."""

    def __init__(self) -> None:
        self.commits: list[CommitParameters] = []
        self.task: asyncio.Task[Sequence[Committed | DatabaseRefused]] | None = None
