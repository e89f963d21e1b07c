"""
Shadow reads: what Firestore served, compared with what SQL would have, in the background.

Only equal versions are compared: an older one in SQL is lag, a newer one came between both reads.
What one side alone shows is counted apart: it is late, or it is lost or ought to be gone, and only
whether the count goes on rising tells which.
What differs is named by path and field; contents are never kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from storemirror.errors import StoreMirrorError
from storemirror.gateway.port import (
    ConversationItem,
    ConversationPage,
    Edge,
    MessageItem,
    MessagePage,
    Position,
    Relationship,
)
from storemirror.telemetry import LogEvent

#: Most comparisons at a time; more are left out.
MAX_AT_ONCE: Final = 4

#: Counted from messages whose versions the answer does not show: one that is late changes it.
_UNCOMPARED: Final = frozenset({"unread_count"})
_ENCODER: Final = msgspec.json.Encoder(order="sorted")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that both sides show differently, at the same version."""

    #: What the item is: "conversation c1", "message m1 of c1", "outgoing"; or the whole page:
    #: "inbox", "messages of c1".
    item: str
    field: str


@dataclass(slots=True)
class Comparison:
    """What came of comparing one answer.  Counts of items."""

    compared_count: int = 0
    #: SQL shows an older version.
    lagging_count: int = 0
    #: SQL shows a newer version: something was written between both reads.
    newer_count: int = 0
    #: SQL does not show the item: it is late, or lost.
    only_in_firestore_count: int = 0
    #: Firestore does not show the item: it is new, or SQL kept what was deleted.
    only_in_sql_count: int = 0
    #: One side says that there is no such conversation, or that the viewer takes no part in it.
    membership_count: int = 0
    differences: list[Difference] = field(default_factory=list)


def compare_conversations(served: ConversationPage, sql: ConversationPage) -> Comparison:
    """Compare two pages of an inbox, item by item."""
    return _compare_pages(
        _Page(served.items, has_older=served.has_older),
        _Page(sql.items, has_older=sql.has_older),
        whole="inbox",
        named=lambda i: f"conversation {i.conversation_id}",
        versions=lambda i: (i.version, i.last_message_version or 0),
    )


def compare_messages(
    conversation_id: str, served: MessagePage | None, sql: MessagePage | None
) -> Comparison:
    """Compare two pages of one conversation; None: not there, or not the viewer's."""
    if served is None or sql is None:
        return Comparison(membership_count=int(served is not sql))
    return _compare_pages(
        _Page(served.items, has_older=served.has_older, has_newer=served.has_newer),
        _Page(sql.items, has_older=sql.has_older, has_newer=sql.has_newer),
        whole=f"messages of {conversation_id}",
        named=lambda i: f"message {i.message_id} of {conversation_id}",
        versions=lambda i: (i.version,),
    )


def compare_relationships(served: Relationship, sql: Relationship) -> Comparison:
    """Compare how two users stand to each other, edge by edge."""
    found = Comparison()
    for name in ("outgoing", "incoming", "outgoing_block", "incoming_block"):
        here: Edge = getattr(served, name)
        there: Edge = getattr(sql, name)
        if here.version is None or there.version is None:
            # One side does not say which version: whether it is there is all that can be seen.
            found.only_in_firestore_count += here.exists and not there.exists
            found.only_in_sql_count += there.exists and not here.exists
            found.compared_count += here.exists == there.exists
            continue
        if not _is_same_version((here.version,), (there.version,), found):
            continue
        if here.exists != there.exists:
            found.differences.append(Difference(item=name, field="exists"))
    return found


Item = TypeVar("Item", ConversationItem, MessageItem)


@dataclass(frozen=True, slots=True)
class _Page(Generic[Item]):
    """A page, newest first."""

    items: Sequence[Item]
    has_older: bool
    has_newer: bool = False

    def would_show(self, position: Position) -> bool:
        """Tell whether an item there would be on the page, and not before or behind it."""
        if not self.items:
            return True
        is_behind = self.has_older and position < self.items[-1].position
        is_before = self.has_newer and position > self.items[0].position
        return not (is_behind or is_before)


def _compare_pages(
    served: _Page[Item],
    sql: _Page[Item],
    *,
    whole: str,
    named: Callable[[Item], str],
    versions: Callable[[Item], Sequence[int]],
) -> Comparison:
    found = Comparison()
    by_name = {named(item): item for item in sql.items}
    for here in served.items:
        there = by_name.get(named(here))
        if there is None:
            found.only_in_firestore_count += sql.would_show(here.position)
        elif _is_same_version(versions(here), versions(there), found):
            found.differences += [
                Difference(item=named(here), field=differing)
                for differing in _differing_fields(here, there)
            ]
    served_names = [named(item) for item in served.items]
    found.only_in_sql_count += sum(
        served.would_show(by_name[name].position) for name in by_name.keys() - set(served_names)
    )
    if by_name.keys() == set(served_names):
        _compare_around(served, sql, found)
        # At other versions an item may stand elsewhere.
        if found.compared_count == len(served_names) and served_names != [
            named(item) for item in sql.items
        ]:
            found.differences.append(Difference(item=whole, field="order"))
    return found


def _compare_around(served: _Page[Item], sql: _Page[Item], found: Comparison) -> None:
    """Compare what pages of the same items say of others: one at least is on one side alone."""
    for here, there in (
        (served.has_older, sql.has_older),
        (served.has_newer, sql.has_newer),
    ):
        found.only_in_firestore_count += here and not there
        found.only_in_sql_count += there and not here


def _is_same_version(here: Sequence[int], there: Sequence[int], found: Comparison) -> bool:
    """Tell whether both can be compared, and count it."""
    if tuple(here) == tuple(there):
        found.compared_count += 1
        return True
    if any(sql < served for served, sql in zip(here, there, strict=True)):
        found.lagging_count += 1
    else:
        found.newer_count += 1
    return False


def _differing_fields(here: Item, there: Item) -> Iterable[str]:
    for name in here.__struct_fields__:
        if name in _UNCOMPARED:
            continue
        # As bytes: 1 and 1.0 and true are equal in Python, and not in an answer.
        if _ENCODER.encode(getattr(here, name)) != _ENCODER.encode(getattr(there, name)):
            yield name


class ShadowReads:
    """Runs comparisons that nobody waits for, sampled and few at a time."""

    def __init__(self, sample_rate: float, randomness: random.Random) -> None:
        """
        Compare some.

        Args:
            sample_rate: share of the reads that are compared, 0 to 1.
            randomness: draws them.
        """
        self._sample_rate = sample_rate
        self._random = randomness
        self._running: set[asyncio.Task[None]] = set()
        #: Items by what came of them: compared, lagging, newer, only_in_firestore, only_in_sql,
        #: different; `membership`, answers that one side alone gave; `failed`, comparisons that
        #: SQL did not answer; and `skipped`, those there was no room for.
        self.counts: Counter[str] = Counter()

    def run(self, compare: Callable[[], Awaitable[None]]) -> None:
        """Run a comparison some time soon, or leave it out."""
        if self._random.random() >= self._sample_rate:
            return
        if len(self._running) >= MAX_AT_ONCE:
            self.counts["skipped"] += 1
            return
        task = asyncio.create_task(self._guarded(compare))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def note(self, found: Comparison) -> None:
        """Count what came of a comparison, and log what differs."""
        self.counts["compared"] += found.compared_count
        self.counts["lagging"] += found.lagging_count
        self.counts["newer"] += found.newer_count
        self.counts["only_in_firestore"] += found.only_in_firestore_count
        self.counts["only_in_sql"] += found.only_in_sql_count
        self.counts["membership"] += found.membership_count
        self.counts["different"] += len(found.differences)
        for difference in found.differences:
            _log.warning(
                LogEvent.SHADOW_DIFFERS.value, item=difference.item, field=difference.field
            )

    async def aclose(self) -> None:
        """Call off what still runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _guarded(self, compare: Callable[[], Awaitable[None]]) -> None:
        try:
            await compare()
        except (TimeoutError, StoreMirrorError) as exc:
            self.counts["failed"] += 1
            _log.info(LogEvent.SHADOW_FAILED.value, error=type(exc).__name__)
