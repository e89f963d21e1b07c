"""
Mends what a check found: documents are read again and sent through the same door as every event.

Nothing is written into the mirror from here except roll-ups, which have no event of their own.
Whether the repair held is for the next check to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from storemirror.bus.port import Message, Publisher
from storemirror.check.compare import Mismatch, MismatchKind, compare_document
from storemirror.check.recheck import can_be_document
from storemirror.event.change import Origin
from storemirror.model.entity import Entity, Model
from storemirror.source.budget import ReadBudget, ReadBudgetSpent
from storemirror.source.port import DocumentStore
from storemirror.source.reread import observed_change
from storemirror.source.triggers import message_of
from storemirror.sql.port import SqlMirror

#: Documents published together: at most 50 MiB, Firestore's largest document being 1 MiB.
_BATCH_SIZE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a repair did."""

    #: Documents that were published, plus parents whose roll-ups changed.
    sent_count: int
    #: Documents that no read was left for.
    unread_count: int


async def repair(
    mismatches: Iterable[Mismatch],
    *,
    store: DocumentStore,
    mirror: SqlMirror,
    model: Model,
    publisher: Publisher,
    budget: ReadBudget,
    source: str,
    run: str,
) -> Repaired:
    """
    Have every document written anew that a check named, and every roll-up recomputed.

    Left alone are documents that are right by now, those that do not fit their declaration (they
    would be dead-lettered again), and rows whose key no document can have (no event can name it).

    Args:
        mismatches: what the check found.
        store: the documents, read as they are now.
        mirror: the rows; each event carries the version that its row has now, so that a version
            damaged upwards is mended too.
        model: the declared entities.
        publisher: the topic of every event.
        budget: pays for the documents; never exceeded.
        source: CloudEvents source; see `storemirror.event.envelope.source_of`.
        run: names this repair, in at most 63 characters; another one needs another name, or the
            bus takes its events for duplicates.

    Returns:
        What was done.  What was published is mended once the writer has settled it.

    Raises:
        BusUnavailable, SourceUnavailable, SqlUnavailable: part of it may be done; do it again.
    """
    listed = tuple(mismatches)
    messages: list[Message] = []
    published_count = unread_count = 0
    for entity, key in _documents(listed, model):
        try:
            budget.pay()
        except ReadBudgetSpent:
            unread_count += 1
            continue
        message = await _repair_message(entity, key, store, mirror, source=source, run=run)
        if message is not None:
            messages.append(message)
            published_count += 1
        if len(messages) == _BATCH_SIZE:
            await publisher.publish(messages)
            messages = []
    if messages:
        await publisher.publish(messages)
    recomputed_count = await _recompute(listed, mirror, model)
    return Repaired(sent_count=published_count + recomputed_count, unread_count=unread_count)


def _documents(
    mismatches: Iterable[Mismatch], model: Model
) -> Iterator[tuple[Entity, tuple[str, ...]]]:
    """Give entity and key of the documents to publish again, each once."""
    left_alone = (MismatchKind.UNDELIVERABLE, MismatchKind.ROLLUP_DIFFERS)
    named = ((m.entity, m.path) for m in mismatches if m.kind not in left_alone)
    for name, path in dict.fromkeys(named):
        key = model[name].match(path.split("/"))
        if key is not None and can_be_document(key):
            yield model[name], key


async def _repair_message(
    entity: Entity,
    key: tuple[str, ...],
    store: DocumentStore,
    mirror: SqlMirror,
    *,
    source: str,
    run: str,
) -> Message | None:
    """Read both sides and give the event that mends the row; None when there is nothing to mend."""
    row = await mirror.row(entity, key)
    read = await store.get(entity.path_of(key))
    found = compare_document(entity, key, read.document, row, mirror.limits)
    if all(mismatch.kind is MismatchKind.UNDELIVERABLE for mismatch in found):
        return None
    expected_version = None if row is None else row.version
    change = observed_change(read, Origin.REPAIR, expected_version=expected_version)
    return message_of(change, entity.name, source, run=run)


async def _recompute(mismatches: Iterable[Mismatch], mirror: SqlMirror, model: Model) -> int:
    """Recompute the roll-ups of every entity that has one which differs."""
    parents = {m.entity for m in mismatches if m.kind is MismatchKind.ROLLUP_DIFFERS}
    children = [model.rollup_child_of(model[name]) for name in sorted(parents)]
    return sum([await mirror.recompute_rollups(child) for child in children if child is not None])
