"""
The dual write: Firestore first, in a transaction; then the same envelope into SQL.

The envelope is the trigger's own (`storemirror.source.triggers.change_of`), of the same path and
version: the trigger's later event is a duplicate.

Once Firestore's commit is known the call succeeds: from there on its deadline ends nothing but
the wait for SQL.  A deadline that comes before leaves unknown whether the document is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from storemirror.errors import CallRefused
from storemirror.event.change import Change, Fields, Origin
from storemirror.gateway.deadline import current
from storemirror.gateway.mirroring import NOT_MIRRORED, MirrorWriter
from storemirror.gateway.port import Caller, Cohort, CohortFlags, Feature, Mirrored, WriteToken
from storemirror.source.port import (
    Decision,
    Document,
    DocumentChange,
    DocumentStore,
    Precondition,
    PreconditionFailed,
    TransactionReads,
    Write,
)
from storemirror.source.reread import observed_change
from storemirror.source.triggers import Unmirrored, change_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a caller who may do it wants of one document, decided inside the transaction."""

    path: str
    #: The document as the transaction saw it; None: not there.
    before: Document | None
    #: What it is to be; None: gone.
    fields: Fields | None

    @property
    def is_done(self) -> bool:
        """Tell whether nothing is left to write: the call was made before."""
        return self.fields == (None if self.before is None else self.before.fields)


Decide = Callable[[TransactionReads], Awaitable[Intent]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write left behind."""

    path: str
    #: None: the document was not there, and is not.
    token: WriteToken | None
    #: The document as it is; None: gone.
    fields: Fields | None
    #: Whether the document was not there before.
    is_new: bool = False
    mirrored: Mirrored


class DualWrite:
    """Writes documents, and brings them into SQL for callers whose cohort has that."""

    def __init__(self, store: DocumentStore, mirror: MirrorWriter, flags: CohortFlags) -> None:
        """
        Name both sides.

        Args:
            store: Firestore.
            mirror: SQL.
            flags: whose writes go into SQL at once.
        """
        self._store = store
        self._mirror = mirror
        self._flags = flags

    async def write(self, caller: Caller, feature: Feature, decide: Decide) -> Written:
        """
        Let `decide` look and say, write it, and mirror it.

        Args:
            caller: for the cohort; what the caller may do is `decide`'s to see.
            feature: likewise.
            decide: run again where somebody else wrote meanwhile.

        Raises:
            CallRefused: `decide` refused, or the document changed again and again.
            SourceUnavailable: written or not is unknown; SQL was not touched.
        """

        async def body(reads: TransactionReads) -> Decision[Intent]:
            intent = await decide(reads)
            return Decision(writes=() if intent.is_done else (_write(intent),), result=intent)

        cohort = await self._flags.cohort_of(caller, feature)
        try:
            done = await self._store.transact(body)
        except PreconditionFailed:
            raise CallRefused(
                "ABORTED", "somebody else wrote this at the same moment; call again"
            ) from None
        _meet_deadline()
        intent = done.result
        change = _change(intent, done.commit_time_us)
        written = await self._mirrored(cohort, intent.path, change)
        return replace(written, is_new=intent.before is None and written.fields is not None)

    async def observe(self, caller: Caller, feature: Feature, path: str) -> Written:
        """
        Read a document that the client wrote itself, and mirror what is there.

        Raises:
            SourceUnavailable: Firestore did not answer; SQL was not touched.
        """
        cohort = await self._flags.cohort_of(caller, feature)
        change = observed_change(await self._store.get(path), Origin.MIRROR)
        _meet_deadline()
        return await self._mirrored(cohort, path, change)

    async def _mirrored(self, cohort: Cohort, path: str, change: Change | None) -> Written:
        """Have SQL show a change; None: what was to go was not there, a repeat or never was."""
        mirrored = NOT_MIRRORED
        if cohort.is_dual_write_on:
            mirrored = await (
                self._mirror.see_gone(path) if change is None else self._mirror.mirror(change)
            )
        if change is None:
            return Written(path=path, token=None, fields=None, mirrored=mirrored)
        # A delete that was only seen has a version of its own: if SQL did not take it here, no
        # event ever brings that one.
        is_reached = not (change.origin is Origin.MIRROR and change.is_deleted)
        is_reached = is_reached or mirrored.outcome is not None
        return Written(
            path=path,
            token=WriteToken(path=path, version=change.version) if is_reached else None,
            fields=change.fields,
            mirrored=mirrored,
        )


def _meet_deadline() -> None:
    """Say that Firestore has spoken: the answer is a success, and comes soon."""
    deadline = current()
    if deadline is not None:
        deadline.meet()


def _write(intent: Intent) -> Write:
    is_there = intent.before is not None
    return Write(
        path=intent.path,
        fields=intent.fields,
        precondition=Precondition.EXISTS if is_there else Precondition.ABSENT,
    )


def _change(intent: Intent, commit_time_us: int | None) -> Change | None:
    """Give the trigger's event of what was written; of what was there already, if nothing was."""
    if commit_time_us is None:
        # Read by us and not written: what the server returned, a full observation.
        seen = DocumentChange(path=intent.path, before=None, after=intent.before)
        found = change_of(seen, origin=Origin.MIRROR)
    else:
        before, fields = intent.before, intent.fields
        after = None
        if fields is not None:
            created_us = commit_time_us if before is None else before.create_time_us
            after = Document(
                path=intent.path,
                fields=fields,
                create_time_us=created_us,
                update_time_us=commit_time_us,
            )
        found = change_of(
            DocumentChange(path=intent.path, before=before, after=after), origin=Origin.DUAL_WRITE
        )
    return None if isinstance(found, Unmirrored) else found
