"""
One change to one document, its version, and the rule by which the newest wins.

Pure values: this module does no I/O and imports no vendor library.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

#: A Firestore value as REST `Value` JSON: exactly one key, such as {"stringValue": "hi"}.
Value = Mapping[str, object]
#: A document's fields, by name, in canonical form (`storemirror.event.value.canonical_fields`).
Fields = Mapping[str, Value]


class Origin(enum.StrEnum):
    """Where a change was seen."""

    TRIGGER = "trigger"
    LISTENER = "listener"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"
    #: The gateway read the document after the client had written it.
    MIRROR = "mirror"
    #: The document was read again because its event was `expired`.
    REREAD = "reread"
    #: The gateway wrote the document itself; it has not seen what the server made of it.
    DUAL_WRITE = "dual-write"
    #: A row is to be written anew, although its version says that it is right.
    REPAIR = "repair"

    @property
    def is_full_observation(self) -> bool:
        """Tell whether the contents are what the server returned, not what a client sent."""
        return self not in (Origin.DUAL_WRITE, Origin.REPAIR)


class EventType(enum.StrEnum):
    """CloudEvents `type`; part of the contract."""

    WRITTEN = "storemirror.document.written.v1"
    DELETED = "storemirror.document.deleted.v1"
    #: A write whose contents are too large for the bus: whoever applies it reads the document.
    REFERENCED = "storemirror.document.referenced.v1"
    UNREADABLE = "storemirror.document.unreadable.v1"


class Outcome(enum.StrEnum):
    """What applying an event did.  All five are normal; none is an error."""

    APPLIED = "applied"  #: the row now holds this version
    REPAIRED = "repaired"  #: row and children rewritten, roll-ups recomputed
    DUPLICATE = "duplicate"  #: the row already held exactly this version
    STALE = "stale"  #: the row holds a newer version; nothing was written
    #: The row's past was purged, or commit times went back since: the document must be read again.
    EXPIRED = "expired"


class RowState(enum.StrEnum):
    """What a row stands for.  Readers go by this, never by the version."""

    LIVE = "live"  #: the document exists
    TOMBSTONE = "tombstone"  #: the document was deleted; no contents, but a version
    STUB = "stub"  #: a child arrived first; nothing is known of the document yet


def version_of(commit_time_us: int, *, is_deleted: bool) -> int:
    """
    Give the version of a change: twice its commit time, plus one for a delete.

    The plus one sorts a delete after the write it removed and before any re-creation.

    Args:
        commit_time_us: microseconds since the Unix epoch.  Of a write its `update_time`; of a
            delete seen by a trigger the before-image's `update_time`, else the read time.
        is_deleted: whether the change is a delete.

    Raises:
        ValueError: the time lies before the Unix epoch; no Firestore commit does.

    Source:
        docs/adr/0001-versions-from-commit-times.md

    >>> version_of(10, is_deleted=False), version_of(10, is_deleted=True)
    (20, 21)
    """
    if commit_time_us < 0:
        raise ValueError(f"commit_time_us must be >= 0, got {commit_time_us}")
    return 2 * commit_time_us + (1 if is_deleted else 0)


def event_id_of(path: str, version: int) -> str:
    """
    Give the id of the event: SHA-256, hex, of path and version.

    The same change seen by dual write, trigger and backfill has one id.

    >>> event_id_of("users/a", 20)[:12]
    'f8a4a55bffbd'
    """
    return hashlib.sha256(f"{path}\n{version}".encode()).hexdigest()


class KnownChange(TypedDict):
    """The attributes of a `Change`; see there."""

    event_id: str
    path: str
    version: int
    origin: Origin
    observed_at_us: int
    fields: Fields | None
    digest: str
    expected_version: int | None
    traceparent: str | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One document, as it was after one change.

    Without slots, so that the id, a digest that every stage asks for, is computed once.
    """

    #: Document path from the database root: "conversations/c1/messages/m1".
    path: str
    #: `2 * commit_time_us + is_deleted`; see `version_of`.
    version: int
    origin: Origin
    #: When the document was seen in this state, microseconds since the Unix epoch: the read time
    #: for what was read (backfill, reconcile, repair, re-read), the commit time else.
    observed_at_us: int
    #: The document's contents, canonical; None when the document was deleted.
    fields: Fields | None
    #: Digest of the canonical document (`storemirror.event.digest`); of a delete the empty string.
    digest: str
    #: Repairs only: the version the damaged row was seen with.
    expected_version: int | None = None
    #: W3C trace context.
    traceparent: str | None = None

    @classmethod
    def known_by_id(cls, known: KnownChange) -> Change:
        """
        Make a change whose id was computed already, and whose every attribute is given.

        For the writer, which makes one for every event: it passes over `__init__`, which takes
        three times as long, as it assigns a frozen object's attributes one after the other.
        `known` becomes the change's own: the caller must not keep it.
        """
        change = object.__new__(cls)
        object.__setattr__(change, "__dict__", known)
        return change

    @property
    def is_deleted(self) -> bool:
        """Tell whether the document is gone."""
        return self.version % 2 == 1

    @property
    def commit_time_us(self) -> int:
        """Give the commit time, microseconds since the Unix epoch."""
        return self.version // 2

    @functools.cached_property
    def event_id(self) -> str:
        """Give the CloudEvents `id`: the same on every redelivery of the same change."""
        return event_id_of(self.path, self.version)

    @property
    def event_type(self) -> EventType:
        """Give the CloudEvents `type`."""
        return EventType.DELETED if self.is_deleted else EventType.WRITTEN


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """What the outcome rule needs to know of a row."""

    state: RowState
    version: int
    digest: str
    mapping_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What the outcome rule needs to know of an event."""

    version: int
    origin: Origin
    observed_at_us: int
    digest: str
    mapping_revision: int
    expected_version: int | None = None


def decide_outcome(
    incoming: Incoming,
    stored: StoredRow | None,
    *,
    purge_horizon_us: int | None,
    rebase_mark_us: int | None = None,
) -> Outcome:
    """
    Tell what must happen to an event, given the row that is stored.

    The procedures apply the same rule inside the transaction; this is the reference that the
    tests compare them with.

    Args:
        incoming: the event.
        stored: the row; None when there is none.
        purge_horizon_us: the entity's purge horizon, microseconds since the Unix epoch; None
            when nothing was ever purged.
        rebase_mark_us: the mirror's rebase mark, microseconds since the Unix epoch, by the
            store's clock; None when commit times never went backwards.

    Source:
        docs/adr/0002-outcomes.md

    >>> event = Incoming(version=20, origin=Origin.TRIGGER, observed_at_us=10, digest="d",
    ...                  mapping_revision=1)
    >>> rows = [StoredRow(state=RowState.LIVE, version=v, digest="d", mapping_revision=1)
    ...         for v in (10, 20, 30)]
    >>> [decide_outcome(event, row, purge_horizon_us=None).value for row in (None, *rows)]
    ['applied', 'applied', 'duplicate', 'stale']
    >>> decide_outcome(event, None, purge_horizon_us=10).value
    'expired'
    >>> decide_outcome(event, rows[0], purge_horizon_us=None, rebase_mark_us=10).value
    'expired'
    """
    if rebase_mark_us is not None and incoming.observed_at_us <= rebase_mark_us:
        return Outcome.EXPIRED
    if stored is None or stored.state is RowState.STUB:
        is_late = purge_horizon_us is not None and incoming.observed_at_us <= purge_horizon_us
        return Outcome.EXPIRED if is_late else Outcome.APPLIED
    if stored.version < incoming.version:
        return Outcome.APPLIED
    is_repair = incoming.origin is Origin.REPAIR
    if stored.version == incoming.version:
        rewrites = is_repair or _sees_other_contents(incoming, stored)
        return Outcome.REPAIRED if rewrites else Outcome.DUPLICATE
    if is_repair and incoming.expected_version == stored.version:
        return Outcome.REPAIRED
    return Outcome.STALE


def _sees_other_contents(incoming: Incoming, stored: StoredRow) -> bool:
    """Tell whether an event of the row's own version shows that the row is to be rewritten."""
    if not incoming.origin.is_full_observation:
        return False
    if incoming.mapping_revision != stored.mapping_revision:
        return incoming.mapping_revision > stored.mapping_revision
    return incoming.digest != stored.digest
