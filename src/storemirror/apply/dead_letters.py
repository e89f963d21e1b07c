"""
Purging dead letters: removed for good, their documents marked unverified before.

The mark is in the mirror's database and durable before its dead letter goes: a crash in between
leaves both, never neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from storemirror.bus.port import BusAdmin, DeadLetter, Message
from storemirror.bus.rules import is_storable
from storemirror.errors import EntityUnknown, EnvelopeInvalid
from storemirror.event.binding import structured_body
from storemirror.event.envelope import document_of
from storemirror.model.entity import Model
from storemirror.sql.port import SqlMirror, UnverifiedDocument

_PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeFilter:
    """Which dead letters to purge; all by default."""

    #: Only those with this reason.
    reason: str | None = None
    #: Only those set aside at or before this moment, microseconds since the Unix epoch, by the
    #: bus's clock.
    until_us: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Tell whether a dead letter is one of them."""
        set_aside_at_us = letter.dead_lettered_at_us
        # Of one whose moment the bus does not tell nobody knows whether it is old enough.
        is_old_enough = self.until_us is None or (
            set_aside_at_us is not None and set_aside_at_us <= self.until_us
        )
        return is_old_enough and (self.reason is None or letter.reason == self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgePlan:
    """What a purge would remove, and mark; bodies are not kept."""

    #: Number of each dead letter -> the mark of its document.
    marks: Mapping[int, UnverifiedDocument]

    @property
    def reasons(self) -> Mapping[str, int]:
        """Give reason -> how many, the most frequent first."""
        return dict(Counter(mark.reason for mark in self.marks.values()).most_common())


async def plan_purge(
    admin: BusAdmin, subscription: str, model: Model, chosen: PurgeFilter
) -> PurgePlan:
    """
    Look through the dead letters, and change nothing.

    Raises:
        BusUnavailable: the bus did not answer.
    """
    marks: dict[int, UnverifiedDocument] = {}
    async for letter in all_dead_letters(admin, subscription):
        if chosen.takes(letter):
            marks[letter.sequence_number] = mark_of(letter, model)
    return PurgePlan(marks=marks)


async def purge(plan: PurgePlan, admin: BusAdmin, subscription: str, mirror: SqlMirror) -> int:
    """
    Mark the documents of a plan, then remove its dead letters; what came later stays.

    One that somebody has resubmitted or purged meanwhile is marked and not counted.

    Returns:
        How many dead letters went.

    Raises:
        SqlUnavailable, BusUnavailable: part of it may be done; do it again.
    """
    numbers = list(plan.marks)
    removed_count = 0
    for start in range(0, len(numbers), _PAGE):
        page = numbers[start : start + _PAGE]
        await mirror.mark_unverified([plan.marks[number] for number in page])
        removed_count += len(await admin.remove_dead_letters(subscription, page))
    return removed_count


def mark_of(letter: DeadLetter, model: Model) -> UnverifiedDocument:
    """
    Give the mark of a dead letter's document, as far as its message tells which one it is.

    In doubt it has no path: one with a wrong path would be cleared by another document's event,
    and the loss be forgotten.
    """
    path, version = document_told_by(letter.message)
    entity, key = _entity_of(path, model)
    return UnverifiedDocument(
        message_id=letter.message.message_id,
        reason=letter.reason,
        path=path,
        entity=entity,
        key=key,
        version=version,
    )


def document_told_by(message: Message) -> tuple[str | None, int | None]:
    """
    Give path and version by the body, which the writer applies; none if anything speaks against.

    Properties are there for filters and people, and whoever published can have set any.
    """
    properties = message.properties
    try:
        body = structured_body(
            message.body, content_type=message.content_type, properties=properties
        )
    except EnvelopeInvalid:
        return None, None
    told = document_of(body)
    # A NUL, which JSON can write and no message could, cannot be stored.
    if told is None or not is_storable(told[0]):
        return None, None
    path, version = told
    version_text = "" if version is None else str(version)
    is_contradicted = (
        properties.get("path", path) != path
        or properties.get("version", version_text) != version_text
    )
    return (None, None) if is_contradicted else (path, version)


def _entity_of(path: str | None, model: Model) -> tuple[str | None, tuple[str, ...] | None]:
    """Give name and key of the entity declared for a path; nothing when there is none."""
    if path is None:
        return None, None
    try:
        entity, key = model.match(path)
    except EntityUnknown:
        return None, None
    return entity.name, key


async def all_dead_letters(admin: BusAdmin, subscription: str) -> AsyncIterator[DeadLetter]:
    """Give every dead letter, acknowledged or not, by rising number."""
    after = 0
    while True:
        page: Sequence[DeadLetter] = await admin.peek_dead_letters(
            subscription, limit=_PAGE, after_sequence_number=after
        )
        if not page:
            return
        after = page[-1].sequence_number
        for letter in page:
            yield letter
