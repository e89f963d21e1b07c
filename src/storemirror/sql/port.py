"""What the mirror needs of a SQL database.  Nothing above `sql/` knows which dialect runs."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from storemirror.event.change import Change, Outcome, RowState
from storemirror.model.entity import Entity
from storemirror.model.mapping import MappedRow
from storemirror.model.types import DialectLimits
from storemirror.sql.plan import SchemaPlan


class RowEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event, mapped to the row it is about."""

    entity: Entity
    change: Change
    #: One string a key part.
    key: tuple[str, ...]
    #: The document as a row; None for a delete.
    row: MappedRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorRow:
    """One row as it is stored, for the checker and for people."""

    key: tuple[str, ...]
    state: RowState
    version: int
    mapping_revision: int
    digest: str
    lossy_fields: tuple[str, ...]
    #: Column name -> value as Python has it: str, int, float, bool, bytes, aware datetime, or
    #: plain JSON values for JSON columns; roll-up and derived columns included.
    columns: Mapping[str, object]
    #: Child table name -> key of the child -> its columns.
    children: Mapping[str, Mapping[str, Mapping[str, object]]]
    #: The whole document as JSON text; None where it is not kept.
    raw: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupDifference:
    """A roll-up column that is not what the child rows say, both read in one snapshot."""

    #: The parent's key.
    key: tuple[str, ...]
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedDocument:
    """
    A document whose dead letter was removed: what the mirror holds of it is not shown right.

    Conversations are marked as soon as an event is set aside: see `storemirror.sql.unfit`.
    """

    #: Of the dead letter that was removed; of a conversation's mark its own.
    message_id: str
    #: Why it had been set aside.
    reason: str
    #: As far as the message told it; None when it did not, likewise the next three.
    path: str | None
    #: None as well when no entity was declared for the path.
    entity: str | None
    key: tuple[str, ...] | None
    version: int | None
    #: Microseconds since the Unix epoch, by the mirror's clock; 0 until it is recorded.
    marked_at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowRelationship:
    """How two users stand to each other; each side as the mirror has it."""

    is_following: bool
    is_followed_by: bool
    has_blocked: bool
    is_blocked_by: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStatus:
    """What is installed, beside what this code would install."""

    is_installed: bool
    installed_version: int | None
    expected_version: int
    project: str | None
    database: str | None
    #: Entity name -> newest mapping revision; None when the entity is not installed.
    mapping_revisions: Mapping[str, int | None]
    #: One sentence a difference; empty when a writer may run.
    differences: tuple[str, ...]
    #: One sentence for each thing that a `schema apply` does just now, or has left half done.
    under_way: tuple[str, ...] = ()


class RebaseStep(enum.StrEnum):
    """How far a rebase is: the last step that is done for good.  See ADR 8."""

    #: The mirror takes no events, and no writer has any in hand.
    CLOSED = "closed"
    #: What waited on the bus is gone.
    PURGED = "purged"
    #: The rebase mark is set.
    MARKED = "marked"
    #: Every version is 0, and the mirror takes events again.
    OPENED = "opened"
    #: Every document was read once.
    REFILLED = "refilled"
    #: Rows whose document is gone were found as well.
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class RebaseState:
    """The rebase under way, or the last one."""

    #: Names it.
    run: str
    step: RebaseStep
    #: The rebase mark in force, microseconds since the Unix epoch, by the document store's clock:
    #: of this rebase from `MARKED` on, before it that of the one before, if there was one.
    mark_us: int | None

    @property
    def is_closed(self) -> bool:
        """Tell whether the mirror takes no events.

        >>> [RebaseState(run="r", step=s, mark_us=None).is_closed for s in RebaseStep]
        [True, True, True, False, False, False]
        """
        return self.step in (RebaseStep.CLOSED, RebaseStep.PURGED, RebaseStep.MARKED)

    @property
    def is_under_way(self) -> bool:
        """Tell whether it was begun and not finished: rows may be of before the restore.

        >>> [RebaseState(run="r", step=s, mark_us=1).is_under_way for s in RebaseStep]
        [True, True, True, True, True, False]
        """
        return self.step is not RebaseStep.DONE


class SqlMirror(Protocol):
    """Applies events to the mirror, and reads it."""

    @property
    def limits(self) -> DialectLimits:
        """Tell what this database cannot hold."""
        ...

    async def probe(self) -> int:
        """
        See whether the database answers and can be written.

        Returns:
            Its clock, microseconds since the Unix epoch.

        Raises:
            SqlUnavailable: it does not answer, or is read-only or full.
            RebaseUnderWay: it takes no events until a rebase has set all versions to 0.
        """
        ...

    async def rebase_state(self) -> RebaseState | None:
        """Give how far the last rebase came; None when there never was one."""
        ...

    async def verify_schema(self) -> Mapping[str, int]:
        """
        See that the installed schema is one that this code works on.

        Returns:
            Entity name -> mapping revision of this code's declaration.

        Raises:
            SchemaMismatch: it is not; the message lists what differs.
        """
        ...

    async def apply(
        self, events: Sequence[RowEvent], *, timeout_s: float | None = None
    ) -> list[Outcome]:
        """
        Apply events of any entities in one transaction, and give an outcome each, in order.

        Args:
            events: at most 2,000; for one entity and key as if by descending version, deletes
                before writes.
            timeout_s: when the server is told to give the transaction up, at the latest; None:
                after many times what the largest batch takes.

        Raises:
            EventRefused: an event's data were refused; nothing was written.  With more than one
                event, the one to blame is not known.
            SqlUnavailable: written or not is unknown; applying again is safe.
            DatabaseRefused: nothing was written.
        """
        ...

    async def recompute_rollups(self, entity: Entity) -> int:
        """Set every parent's aggregates from the child rows; gives how many rows changed."""
        ...

    async def purge(self, entity: Entity, *, older_than_s: float, max_count: int) -> int:
        """
        Remove tombstones (and childless stubs) applied longer ago than `older_than_s`.

        The purge horizon is raised, and committed, before anything is removed.

        Returns:
            How many rows went, at most `max_count`; 0 when a writer held the lock meanwhile.
        """
        ...

    async def purgeable_count(self, entity: Entity, *, older_than_s: float, max_count: int) -> int:
        """Count what a purge would remove, up to `max_count`."""
        ...

    def rows(
        self,
        entity: Entity,
        *,
        after: tuple[str, ...] | None,
        up_to: tuple[str, ...] | None,
    ) -> AsyncIterator[MirrorRow]:
        """Read rows in any state with `after` < key <= `up_to`, by rising key."""
        ...

    async def row(self, entity: Entity, key: tuple[str, ...]) -> MirrorRow | None:
        """Read one row as it is now."""
        ...

    async def rollup_differences(self, entity: Entity, *, limit: int) -> list[RollupDifference]:
        """Compare the parents' aggregates with what `entity`'s rows say, in one snapshot."""
        ...

    async def mark_unverified(self, marks: Sequence[UnverifiedDocument]) -> None:
        """
        Record that nobody has shown these documents to be right; durable when it returns.

        Of marks with one id the highest version stays, and none where one of them has none.
        """
        ...

    async def unverified(self, *, limit: int | None = None) -> list[UnverifiedDocument]:
        """List what is recorded, the oldest first; at most `limit`, None for all."""
        ...

    async def unverified_count(self) -> int:
        """Count the documents recorded, each once however many dead letters it had."""
        ...

    async def clear_unverified(self, marks: Sequence[UnverifiedDocument]) -> int:
        """
        Forget marks, since their documents were shown to be right.

        A mark that was recorded anew since it was listed stays.

        Returns:
            How many went.
        """
        ...

    async def clear_overtaken(self) -> int:
        """Forget the marks of documents whose rows hold a newer version; gives how many."""
        ...

    async def follow_relationship(self, viewer: str, target: str) -> FollowRelationship:
        """Tell how two users stand to each other."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class SchemaAdmin(Protocol):
    """Installs tables and procedures."""

    async def plan(self, *, may_alter_columns: bool = False) -> SchemaPlan:
        """
        Tell what `apply` would do.  Changes nothing, and holds up no writer.

        Raises:
            SchemaBoundElsewhere: the schema is bound to another Firestore.
        """
        ...

    async def apply(
        self,
        *,
        may_alter_columns: bool = False,
        on_planned: Callable[[SchemaPlan], None] | None = None,
    ) -> SchemaStatus:
        """
        Install or upgrade; idempotent.  Tables and columns are never dropped.

        Writers wait meanwhile.  Where nothing is to do, nothing is locked and nobody waits.

        Args:
            may_alter_columns: whether columns that are there may get another form, where every
                value is kept.
            on_planned: told what is going to be done, before anything is.

        Raises:
            SchemaBoundElsewhere: the schema is bound to another Firestore; nothing was changed.
            SchemaChangeRefused: something stands in the way; nothing was changed.
            SchemaLocked: others use the tables; it says what was changed.
        """
        ...

    async def status(self) -> SchemaStatus:
        """Tell what is installed."""
        ...

    async def outdated_counts(self, *, max_count: int) -> Mapping[str, int]:
        """
        Count the live rows that an earlier declaration mapped: what a backfill has left to do.

        Reads a whole table where there are none.

        Args:
            max_count: where counting ends, for each entity.

        Returns:
            Entity name -> rows; without the entities whose declaration is not installed.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class RebaseLedger(Protocol):
    """What a rebase does to the mirror, and remembers there."""

    def held(self) -> AbstractAsyncContextManager[None]:
        """
        Be the only rebase of this mirror while the block runs.

        Raises:
            RebaseUnderWay: another process is at it.
        """
        ...

    async def state(self) -> RebaseState | None:
        """Give how far the last rebase came; None when there never was one."""
        ...

    async def close(self, run: str) -> None:
        """
        Begin a rebase: wait for the batches in hand, and let no event be applied any more.

        From here to `RebaseStep.OPENED` `SqlMirror.apply` and `probe` raise `RebaseUnderWay`,
        whatever version of StoreMirror the caller is.

        Raises:
            SchemaMismatch: the installed procedures are older than that; nothing was changed.
        """
        ...

    async def advance(
        self, run: str, *, after: RebaseStep, to: RebaseStep, mark_us: int | None = None
    ) -> None:
        """
        Say that the next step is done.

        Args:
            run: as it was given to `close`.
            after: the step before.
            to: the step that is done.
            mark_us: the rebase mark, with `RebaseStep.MARKED` alone.

        Raises:
            RebaseUnderWay: the mirror is elsewhere: another process is at it.
        """
        ...

    async def reset_versions(
        self, run: str, entity: Entity, *, after: tuple[str, ...] | None, max_count: int
    ) -> tuple[str, ...] | None:
        """
        Set the versions of one page of rows, in any state, to 0; in a transaction of its own.

        Returns:
            The page's last key, to go on after; None when there is nothing behind it.

        Raises:
            RebaseUnderWay: this rebase is past its reset: another process went on with it.  The
                page was left as it is, since writers may have been at it.
        """
        ...
