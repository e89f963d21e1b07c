"""
A small social app that lives on a document store, and counts what it writes.

It knows the store by its port alone, and writes only documents that it made itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from storemirror.clock import Clock
from storemirror.demo.world import SocialWorld
from storemirror.source.port import DocumentStore


@dataclass(slots=True)
class AppCounts:
    """What the app has written since it exists; every write is one change of one document."""

    #: All document writes, deletes and re-creations included.
    written: int = 0
    deleted: int = 0
    #: Documents written again at a path where one had been deleted.
    recreated: int = 0
    #: Kind of action -> how often.
    actions: Counter[str] = field(default_factory=Counter)
    #: Commit time of the newest write, microseconds since the Unix epoch; None before the first.
    newest_commit_time_us: int | None = None


class SocialApp:
    """People who open conversations, write, edit, delete, follow and block."""

    def __init__(self, store: DocumentStore, clock: Clock, *, seed: int) -> None:
        """
        Live on `store`.

        Args:
            store: not closed here; must hold nothing of an app with the same seed.
            clock: the time that goes into documents.
            seed: the same one gives the same actions; only times differ.
        """
        self.counts = AppCounts()
        self._store = store
        self._clock = clock
        self._world = SocialWorld(seed)

    async def step(self) -> None:
        """
        Let one person do one thing: one commit of one or more writes.

        Raises:
            PreconditionFailed: somebody else writes the app's documents; nothing was written.
            SourceUnavailable: written or not is unknown; the app cannot go on.
        """
        action = self._world.next_action(self._clock.now_us())
        self.counts.newest_commit_time_us = await self._store.commit(action.writes)
        self.counts.written += len(action.writes)
        self.counts.deleted += action.deleted_count
        self.counts.recreated += action.recreated_count
        self.counts.actions[action.kind] += 1
