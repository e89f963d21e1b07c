"""
Looks again at what seemed to differ, until lag is ruled out as the cause.

The scan reads documents as they were and rows as they are, so a document that changed meanwhile
seems to differ.  Each look waits for the backlog first, then reads the row, then the document: a
row read before its document is never newer than it, unless its version is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storemirror.check.backlog import Backlog
from storemirror.check.compare import Mismatch, compare_document
from storemirror.check.decode import refused_key_part
from storemirror.event.change import version_of
from storemirror.model.entity import Entity
from storemirror.source.port import Document, DocumentStore
from storemirror.sql.port import SqlMirror


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A document that seemed to differ from its row."""

    entity: Entity
    key: tuple[str, ...]
    #: When the document was read; the backlog passes this moment before the next look.
    read_time_us: int
    #: Version of the document then; None: there was none.
    document_version: int | None
    #: Version of the row, if that was read before the document; None when it was not, or no row.
    row_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecked:
    """What came of the candidates."""

    mismatches: tuple[Mismatch, ...]
    #: Those that changed between every two looks.
    unsettled: tuple[Candidate, ...]


def decide_is_proved(before: Candidate, after: Candidate) -> bool:
    """
    Tell whether a difference seen at `after` is one of contents, not of lag.

    It is when the document was the same at both looks, since all that was committed up to the
    first one has been settled between them.  Of a document that is absent both times it must be
    known as well that it was not created and deleted in between: the row stems from before.

    Args:
        before: the earlier look.
        after: the later one; the backlog had passed `before.read_time_us` when it began.
    """
    if after.document_version != before.document_version:
        return False
    if after.document_version is not None or after.row_version is None:
        return True
    return after.row_version // 2 <= before.read_time_us or after.row_version == before.row_version


def written_version_of(document: Document | None) -> int | None:
    """Give the version of a document's last write; None when there is no document."""
    if document is None:
        return None
    return version_of(document.update_time_us, is_deleted=False)


async def recheck(
    candidates: Iterable[Candidate],
    *,
    store: DocumentStore,
    mirror: SqlMirror,
    backlog: Backlog,
    max_rounds: int,
) -> Rechecked:
    """
    Look again at each candidate, once the backlog has passed the moment it was seen at.

    Costs one document read a candidate and round.

    Raises:
        CheckIncomplete: the backlog did not drain.
        SourceUnavailable, SqlUnavailable: a side did not answer.
    """
    open_candidates = list(candidates)
    mismatches: list[Mismatch] = []
    for _ in range(max_rounds):
        if not open_candidates:
            break
        await backlog.wait_passed(max(c.read_time_us for c in open_candidates))
        still_open: list[Candidate] = []
        for before in open_candidates:
            after, found = await _look(before, store, mirror)
            if found and decide_is_proved(before, after):
                mismatches += found
            elif found:
                still_open.append(after)
        open_candidates = still_open
    return Rechecked(mismatches=tuple(mismatches), unsettled=tuple(open_candidates))


def can_be_document(key: Sequence[str]) -> bool:
    """
    Tell whether a document can have this key; a row written by hand may have any.

    >>> can_be_document(("u1", "u2")), can_be_document(("u1", "a/b")), can_be_document(("u1", ""))
    (True, False, False)
    """
    return all(part and "/" not in part for part in key)


async def _look(
    candidate: Candidate, store: DocumentStore, mirror: SqlMirror
) -> tuple[Candidate, list[Mismatch]]:
    """Read both sides as they are now, the row first."""
    entity, key = candidate.entity, candidate.key
    # A key that came from a document may be one that the database cannot even be asked for.
    is_askable = candidate.document_version is None or not refused_key_part(
        entity, key, mirror.limits
    )
    row = await mirror.row(entity, key) if is_askable else None
    document, read_time_us = None, candidate.read_time_us
    if can_be_document(key):
        read = await store.get(entity.path_of(key))
        document, read_time_us = read.document, read.read_time_us
    after = Candidate(
        entity=entity,
        key=key,
        read_time_us=read_time_us,
        document_version=written_version_of(document),
        row_version=None if row is None else row.version,
    )
    return after, compare_document(entity, key, document, row, mirror.limits)
