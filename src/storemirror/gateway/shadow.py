"""
Shadow reads: what Firestore served, compared with what SQL would have, in the background.

Only equal versions are compared: an older one in SQL is lag, a newer one came between both reads.
What differs is named by path and field; contents are never kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final, TypeVar

import msgspec
import structlog

from storemirror.errors import StoreMirrorError
from storemirror.gateway.port import (
    ConversationItem,
    ConversationPage,
    Edge,
    MessageItem,
    MessagePage,
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

    #: What the item is: "conversation c1", "message m1 of c1", "outgoing".
    item: str
    field: str


@dataclass(slots=True)
class Comparison:
    """What came of comparing one answer.  Counts of items."""

    compared_count: int = 0
    #: SQL shows an older version, or not yet the item.
    lagging_count: int = 0
    #: SQL shows a newer version: something was written between both reads.
    newer_count: int = 0
    differences: list[Difference] = field(default_factory=list)


def compare_conversations(served: ConversationPage, sql: ConversationPage) -> Comparison:
    """Compare two pages of an inbox, item by item."""
    return _compare_items(
        {i.conversation_id: i for i in served.items},
        {i.conversation_id: i for i in sql.items},
        named=lambda name: f"conversation {name}",
        versions=lambda i: (i.version, i.last_message_version or 0),
    )


def compare_messages(
    conversation_id: str, served: MessagePage | None, sql: MessagePage | None
) -> Comparison:
    """Compare two pages of one conversation; None: not there, or not the viewer's."""
    return _compare_items(
        {i.message_id: i for i in (served.items if served else ())},
        {i.message_id: i for i in (sql.items if sql else ())},
        named=lambda name: f"message {name} of {conversation_id}",
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
            found.lagging_count += here.exists != there.exists
            found.compared_count += here.exists == there.exists
            continue
        if not _is_same_version((here.version,), (there.version,), found):
            continue
        if here.exists != there.exists:
            found.differences.append(Difference(item=name, field="exists"))
    return found


Item = TypeVar("Item", ConversationItem, MessageItem)


def _compare_items(
    served: Mapping[str, Item],
    sql: Mapping[str, Item],
    *,
    named: Callable[[str], str],
    versions: Callable[[Item], Sequence[int]],
) -> Comparison:
    found = Comparison()
    for name, here in served.items():
        there = sql.get(name)
        if there is None:
            found.lagging_count += 1
        elif _is_same_version(versions(here), versions(there), found):
            found.differences += [
                Difference(item=named(name), field=differing)
                for differing in _differing_fields(here, there)
            ]
    found.newer_count += len(sql.keys() - served.keys())
    return found


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
    for each in fields(here):
        if each.name in _UNCOMPARED:
            continue
        # As bytes: 1 and 1.0 and true are equal in Python, and not in an answer.
        if _ENCODER.encode(getattr(here, each.name)) != _ENCODER.encode(getattr(there, each.name)):
            yield each.name


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
        #: Items by what came of them: compared, lagging, newer, different; and `failed`,
        #: comparisons that SQL did not answer, and `skipped`, those there was no room for.
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
