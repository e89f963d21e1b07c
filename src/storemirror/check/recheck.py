"""
Looks again at what seemed to differ, until lag is ruled out as the cause.

The scan reads documents as they were and rows as they are, so a document that changed meanwhile
seems to differ.  Each look waits for the backlog first, then reads the row, then the document: a
row read before its document is never newer than it, unless its version is wrong.

Where nobody can tell what a trigger has still to deliver, what differs after that is given a
grace: until then it counts as lag, and after it as a difference, so that no loss is hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from storemirror.check.backlog import Backlog
from storemirror.check.compare import Mismatch, compare_document
from storemirror.check.decode import refused_key_part
from storemirror.clock import SECOND_US
from storemirror.event.change import version_of
from storemirror.model.entity import Entity
from storemirror.source.budget import ReadBudget, ReadBudgetSpent
from storemirror.source.port import Document, DocumentStore
from storemirror.sql.port import MirrorRow, SqlMirror

#: First and longest wait between two looks at rows that may still come.
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A document that seemed to differ from its row."""

    entity: Entity
    key: tuple[str, ...]
    #: When the document was read; the backlog passes this moment before the next look.
    read_time_us: int
    #: Version of the document then; None: there was none.
    document_version: int | None
    #: When the document was first seen in this version, or first missed; monotonic seconds.
    seen_s: float
    #: Version of the row, if that was read before the document; None when it was not, or no row.
    row_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecked:
    """What came of the candidates."""

    mismatches: tuple[Mismatch, ...]
    #: Those that changed between every two looks.
    unsettled: tuple[Candidate, ...]
    #: Those for which no read was left: neither equal nor different was shown.
    unread: tuple[Candidate, ...]
    #: How many differed although nothing was on the bus, and came right within the grace.
    late_count: int


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


def decide_grace_left_s(candidate: Candidate, *, grace_s: float, now_s: float) -> float:
    """
    Tell for how long a difference may still be lag, in seconds; 0 when no longer.

    A document's age is what its store's clock says, plus what has gone by since the last look; the
    age of a delete is not known, so that it counts from when the document was first missed.

    Args:
        candidate: the last look at it.
        grace_s: seconds since its commit after which a change must be on the bus.
        now_s: monotonic seconds.
    """
    age_s = now_s - candidate.seen_s
    if candidate.document_version is not None:
        age_us = candidate.read_time_us - candidate.document_version // 2
        age_s = max(age_s, age_us / SECOND_US)
    return max(grace_s - age_s, 0.0)


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
    budget: ReadBudget,
    max_rounds: int,
    grace_s: float = 0.0,
) -> Rechecked:
    """
    Look again at each candidate, once the backlog has passed the moment it was seen at.

    Costs one document read a candidate and round; and where there is a grace, another one at its
    end, or once the row has moved.

    Args:
        candidates: what seemed to differ.
        store: the documents.
        mirror: the rows.
        backlog: what is waited for.
        budget: pays for the documents; never exceeded.
        max_rounds: how often a document that changes meanwhile is looked at again.
        grace_s: seconds for which a change may be on its way to the bus unseen.

    Raises:
        CheckIncomplete: the backlog did not drain.
        SourceUnavailable, SqlUnavailable: a side did not answer.
    """
    sides = _Sides(store, mirror, backlog, budget)
    rechecked = _Found()
    open_candidates = list(candidates)
    for is_first in (True, *[False] * max_rounds):
        proof = await sides.prove(open_candidates, max_rounds)
        rechecked.unsettled += proof.unsettled
        rechecked.unread += proof.unread
        rechecked.late_count += 0 if is_first else proof.equal_count
        open_candidates = []
        for candidate, mismatches in proof.proved:
            now_s = backlog.clock.monotonic_s()
            if decide_grace_left_s(candidate, grace_s=grace_s, now_s=now_s) > 0.0:
                open_candidates.append(candidate)
            else:
                rechecked.mismatches += mismatches
        if not open_candidates:
            break
        await sides.wait_for_rows(open_candidates, grace_s)
    return Rechecked(
        mismatches=tuple(rechecked.mismatches),
        unsettled=(*rechecked.unsettled, *open_candidates),
        unread=tuple(rechecked.unread),
        late_count=rechecked.late_count,
    )


def can_be_document(key: Sequence[str]) -> bool:
    """
    Tell whether a document can have this key; a row written by hand may have any.

    >>> can_be_document(("u1", "u2")), can_be_document(("u1", "a/b")), can_be_document(("u1", ""))
    (True, False, False)
    """
    return all(part and "/" not in part for part in key)


@dataclass(slots=True)
class _Found:
    """What came of the candidates so far."""

    mismatches: list[Mismatch] = field(default_factory=list)
    unsettled: list[Candidate] = field(default_factory=list)
    unread: list[Candidate] = field(default_factory=list)
    late_count: int = 0


@dataclass(slots=True)
class _Proof:
    """What two looks at the same version of each document have shown."""

    proved: list[tuple[Candidate, list[Mismatch]]] = field(default_factory=list)
    unsettled: list[Candidate] = field(default_factory=list)
    unread: list[Candidate] = field(default_factory=list)
    equal_count: int = 0


@dataclass(frozen=True, slots=True)
class _Sides:
    """Both sides, and what lies between them."""

    store: DocumentStore
    mirror: SqlMirror
    backlog: Backlog
    budget: ReadBudget

    async def prove(self, candidates: Sequence[Candidate], max_rounds: int) -> _Proof:
        """Look until each candidate is equal, or differs with its document unchanged."""
        proof = _Proof(unsettled=list(candidates))
        for _ in range(max_rounds):
            if not proof.unsettled:
                break
            before_looks, proof.unsettled = proof.unsettled, []
            await self.backlog.wait_passed(max(c.read_time_us for c in before_looks))
            for before in before_looks:
                try:
                    after, mismatches = await self._look(before)
                except ReadBudgetSpent:
                    proof.unread.append(before)
                    continue
                if not mismatches:
                    proof.equal_count += 1
                elif decide_is_proved(before, after):
                    proof.proved.append((after, mismatches))
                else:
                    proof.unsettled.append(after)
        return proof

    async def wait_for_rows(self, candidates: Sequence[Candidate], grace_s: float) -> None:
        """Wait until all these rows have moved, or the grace of all is over.  Reads rows alone."""
        clock = self.backlog.clock
        unmoved = list(candidates)
        wait_s = _FIRST_WAIT_S
        while unmoved:
            now_s = clock.monotonic_s()
            left_s = max(decide_grace_left_s(c, grace_s=grace_s, now_s=now_s) for c in unmoved)
            if left_s <= 0.0:
                return
            await clock.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            unmoved = [c for c in unmoved if not await self._has_moved(c)]

    async def _has_moved(self, candidate: Candidate) -> bool:
        row = await self._row(candidate)
        return candidate.row_version != (None if row is None else row.version)

    async def _row(self, candidate: Candidate) -> MirrorRow | None:
        # A key that came from a document may be one that the database cannot even be asked for.
        entity, key = candidate.entity, candidate.key
        is_askable = candidate.document_version is None or not refused_key_part(
            entity, key, self.mirror.limits
        )
        return await self.mirror.row(entity, key) if is_askable else None

    async def _look(self, before: Candidate) -> tuple[Candidate, list[Mismatch]]:
        """Read both sides as they are now, the row first."""
        entity, key = before.entity, before.key
        is_readable = can_be_document(key)
        if is_readable:
            self.budget.pay()
        row = await self._row(before)
        document, read_time_us = None, before.read_time_us
        if is_readable:
            read = await self.store.get(entity.path_of(key))
            document, read_time_us = read.document, read.read_time_us
        version = written_version_of(document)
        is_same = version == before.document_version
        after = Candidate(
            entity=entity,
            key=key,
            read_time_us=read_time_us,
            document_version=version,
            seen_s=before.seen_s if is_same else self.backlog.clock.monotonic_s(),
            row_version=None if row is None else row.version,
        )
        return after, compare_document(entity, key, document, row, self.mirror.limits)
