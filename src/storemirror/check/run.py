"""
Compares Firestore at a pinned moment with SQL, in full, while both go on changing.

The store is pinned, the backlog up to that moment drains, then documents and rows are read side
by side by rising key.  What differs is looked at again (`storemirror.check.recheck`) until lag is
ruled out.  Last, the roll-ups are compared with the rows they are made of.

What it cannot see:

- documents of collections that are not declared, and fields that are not;
- history: a change that was overtaken by a later one before the check, and the audit tables;
- a document created and deleted again while the check ran;
- with a `limit`, documents after the first ones, and rows after them;
- where the reads are spent, what it had not come to: it says so, and is not clean;
- a value whose loss both databases share (Firestore's own rounding of times to microseconds).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence

from storemirror.bus.port import BusAdmin
from storemirror.check.backlog import Backlog
from storemirror.check.compare import Mismatch, MismatchKind, compare_document, is_backwards
from storemirror.check.dead_letters import DeadLetters
from storemirror.check.decode import refused_key_part
from storemirror.check.recheck import Candidate, recheck, written_version_of
from storemirror.check.result import CheckCounts, CheckResult, CheckSettings, Progress
from storemirror.check.unverified import Watch
from storemirror.clock import Clock
from storemirror.errors import CheckIncomplete, CheckReadsSpent, UsageRefused
from storemirror.event.change import RowState
from storemirror.model.entity import Entity, Model
from storemirror.source.budget import HalfBudget, ReadBudget, ReadBudgetSpent
from storemirror.source.port import Document, DocumentStore, PinnedView
from storemirror.sql.port import MirrorRow, SqlMirror, UnverifiedDocument

#: Roll-up columns that are looked for at most, an entity.
_MAX_ROLLUPS = 1_000

_Key = tuple[str, ...]


async def run_check(
    *,
    store: DocumentStore,
    mirror: SqlMirror,
    model: Model,
    bus_admin: BusAdmin,
    subscription: str,
    pending: Callable[[int], Awaitable[int]] | None,
    clock: Clock,
    settings: CheckSettings,
    budget: ReadBudget | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> CheckResult:
    """
    Compare documents with rows, and name what differs.

    Args:
        store: the documents.
        mirror: the rows.
        model: the declared entities.
        bus_admin: asked for the backlog and for dead letters.
        subscription: the writer's.
        pending: gives how many changes committed up to a moment (microseconds since the Unix
            epoch, by the store's clock) are not on the bus yet.  None where there is no outbox to
            ask: then what a trigger has not published within the grace is a difference.
        clock: for durations and waits.
        settings: what to compare.
        budget: pays for every document that is read, also again; never exceeded.  None: as many
            as are wanted.
        on_progress: told after each page.

    Raises:
        CheckIncomplete: the backlog did not drain, or documents changed at every look while
            nothing else differs: neither clean nor different was shown.  Or a rebase is under
            way, so that rows are of before and of after it.
        CheckReadsSpent: the budget was spent before all was compared, and nothing differs so far.
        UsageRefused: a name in `settings.checks` is unknown; nothing was read.
        SchemaMismatch: the installed tables are not the ones declared.
        SourceUnavailable, SqlUnavailable, BusUnavailable: a part did not answer.
    """
    entities = entities_of(model, settings.checks)
    await verify_comparable(mirror)
    paid = budget or ReadBudget()
    started_s = clock.monotonic_s()
    backlog = Backlog(
        bus_admin=bus_admin,
        subscription=subscription,
        pending=pending,
        clock=clock,
        timeout_s=settings.drain_timeout_s,
    )
    watch, heard = Watch(await _unverified(mirror)), on_progress or _unheard
    _pay_for_pinning(paid)
    async with store.pinned() as view:
        comparison = _Comparison(view, store, mirror, model, backlog, settings, heard, watch, paid)
        await comparison.run(entities)
    return await comparison.concluded(entities, started_s=started_s)


async def _unverified(mirror: SqlMirror) -> list[UnverifiedDocument]:
    """Give the marks of documents that no newer event has overtaken."""
    marks = await mirror.unverified()
    return await mirror.unverified() if marks and await mirror.clear_overtaken() else marks


async def verify_comparable(mirror: SqlMirror) -> None:
    """
    See that the rows can be compared at all; costs no read.

    Raises:
        CheckIncomplete: a rebase is under way.
        SchemaMismatch: the installed tables are not the ones declared.
        SqlUnavailable: the database did not answer.
    """
    await mirror.verify_schema()
    state = await mirror.rebase_state()
    if state is not None and state.is_under_way:
        raise CheckIncomplete(
            f"rebase {state.run} is under way ({state.step.value} is done): rows are of before it"
            " and of after it; give `storemirror rebase` again to finish it"
        )


def _unheard(_: Progress) -> None:
    """Tell nobody."""


def _pay_for_pinning(budget: ReadBudget) -> None:
    """Pay the read by which Firestore tells the time."""
    try:
        budget.pay()
    except ReadBudgetSpent as exc:
        raise CheckReadsSpent(f"{exc}; nothing was compared") from exc


def entities_of(model: Model, checks: Sequence[str]) -> list[Entity]:
    """
    Give the entities of these checks; all when none is named.

    Raises:
        UsageRefused: a name is unknown.
    """
    known = {entity.check for entity in model}
    unknown = sorted(set(checks) - known)
    if unknown:
        raise UsageRefused(
            f"unknown check {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
        )
    return [entity for entity in model if not checks or entity.check in checks]


def _unsettled_text(unsettled: Sequence[Candidate]) -> str:
    first = unsettled[0]
    return (
        f"{len(unsettled)} documents changed at every look, so that lag could not be told from"
        f" a difference; the first is {first.entity.path_of(first.key)}"
    )


class _Comparison:
    """One run: what was seen so far, and what is still to be looked at again."""

    def __init__(
        self,
        view: PinnedView,
        store: DocumentStore,
        mirror: SqlMirror,
        model: Model,
        backlog: Backlog,
        settings: CheckSettings,
        on_progress: Callable[[Progress], None],
        watch: Watch,
        budget: ReadBudget,
    ) -> None:
        """Start with nothing seen."""
        self._watch = watch
        self._budget = budget
        self._aside_count = 0
        self._view = view
        self._store = store
        self._mirror = mirror
        self._model = model
        self._backlog = backlog
        self._settings = settings
        self._on_progress = on_progress
        self._grace_s = settings.chosen_grace_s(can_tell_pending=backlog.pending is not None)
        self._candidates: list[Candidate] = []
        self._acknowledged = DeadLetters(
            backlog.bus_admin, backlog.subscription, is_acknowledged=True
        )
        self._counts: dict[str, CheckCounts] = {}
        self._mismatches: list[Mismatch] = []
        self._accepted_count = 0
        self._late_count = 0
        self._backwards_count = 0
        self._unsettled: list[Candidate] = []
        self._unread: list[Candidate] = []

    async def run(self, entities: Sequence[Entity]) -> None:
        """Compare everything these entities declare, or as much as there are reads for."""
        self._counts = {entity.check: CheckCounts() for entity in entities}
        self._on_progress(Progress(check=None, document_count=0, row_count=0))
        await self._backlog.wait_passed(self._view.read_time_us)
        for entity in entities:
            await self._compare_entity(entity)
        for entity in entities:
            await self._compare_rollups(entity)

    async def concluded(self, entities: Sequence[Entity], *, started_s: float) -> CheckResult:
        """Clear the marks of what was shown to be right, and give what was found."""
        verified = self.verified(entities)
        stats = await self._backlog.bus_admin.stats(self._backlog.subscription)
        await self._mirror.clear_unverified(verified)
        return self.result(
            dead_letter_count=stats.dead_letter_count,
            unverified_count=await self._mirror.unverified_count(),
            verified_count=len(verified),
            duration_s=self._backlog.clock.monotonic_s() - started_s,
        )

    def verified(self, entities: Sequence[Entity]) -> list[UnverifiedDocument]:
        """Give the marks of documents that were shown to be right."""
        self._watch.doubted(c.entity.path_of(c.key) for c in (*self._unsettled, *self._unread))
        return self._watch.decide_verified(
            compared=[e.name for e in entities if self._counts[e.check].is_complete],
            declared=[entity.name for entity in self._model],
            is_limited=self._settings.limit is not None,
        )

    def result(
        self,
        *,
        dead_letter_count: int,
        unverified_count: int,
        verified_count: int,
        duration_s: float,
    ) -> CheckResult:
        """Give what was found; CheckIncomplete when that is neither a difference nor none."""
        found = CheckResult(
            counts=self._counts,
            mismatches=tuple(self._mismatches),
            accepted_count=self._accepted_count,
            unsettled_count=len(self._unsettled),
            unproved_count=len(self._unread),
            late_count=self._late_count,
            backwards_count=self._backwards_count,
            dead_letter_count=dead_letter_count,
            unverified_count=unverified_count,
            verified_count=verified_count,
            read_time_us=self._view.read_time_us,
            read_count=self._budget.spent_count,
            duration_s=duration_s,
        )
        if not found.is_complete and not found.mismatch_count:
            raise CheckReadsSpent(found.coverage())
        if self._unsettled and not found.mismatch_count:
            raise CheckIncomplete(_unsettled_text(self._unsettled))
        return found

    async def _compare_entity(self, entity: Entity) -> None:
        """Compare one entity, as far as there are reads for it."""
        with contextlib.suppress(ReadBudgetSpent):
            await self._walk(entity)
            self._counts[entity.check].is_complete = True
        await self._recheck_candidates(entity)

    async def _walk(self, entity: Entity) -> None:
        """Walk documents and rows of one entity by rising key, a page of documents at a time."""
        limit = self._settings.limit
        after: _Key | None = None
        document_count = 0
        pages = self._view.scan(
            entity.path,
            page_size=self._settings.page_size,
            max_count=limit,
            budget=HalfBudget(self._budget),
        )
        async for page in pages:
            documents = {_key_of(entity, document): document for document in page.documents}
            document_count += len(documents)
            up_to = self._last_key_held(entity, documents)
            await self._compare_page(entity, documents, after=after, up_to=up_to)
            after = up_to or after
        if limit is None or document_count < limit:
            await self._compare_rest(entity, after=after)

    def _last_key_held(self, entity: Entity, keys: dict[_Key, Document]) -> _Key | None:
        """Give the last key that the database can hold, and so can be asked for."""
        limits = self._mirror.limits
        held = (key for key in reversed(keys) if refused_key_part(entity, key, limits) is None)
        return next(held, None)

    async def _compare_page(
        self,
        entity: Entity,
        documents: dict[_Key, Document],
        *,
        after: _Key | None,
        up_to: _Key | None,
    ) -> None:
        """Compare a page of documents with the rows up to its last key."""
        counts = self._counts[entity.check]
        counts.document_count += len(documents)
        if up_to is not None:
            async for row in self._mirror.rows(entity, after=after, up_to=up_to):
                await self._compare(entity, row.key, documents.pop(row.key, None), row)
        for key, document in documents.items():
            await self._compare(entity, key, document, None)
        self._tell(entity)

    async def _compare_rest(self, entity: Entity, *, after: _Key | None) -> None:
        """Compare rows behind the last document: none of them may be live."""
        async for row in self._mirror.rows(entity, after=after, up_to=None):
            await self._compare(entity, row.key, None, row)
        self._tell(entity)

    async def _compare(
        self, entity: Entity, key: _Key, document: Document | None, row: MirrorRow | None
    ) -> None:
        """Compare one pair; what differs is looked at again, some at a time."""
        if row is not None and row.state is RowState.LIVE:
            self._counts[entity.check].row_count += 1
        if self._watch:
            self._watch.saw(entity.path_of(key))
        if not compare_document(entity, key, document, row, self._mirror.limits):
            return
        self._set_aside()
        self._candidates.append(
            Candidate(
                entity=entity,
                key=key,
                read_time_us=self._view.read_time_us,
                document_version=written_version_of(document),
                seen_s=self._backlog.clock.monotonic_s(),
            )
        )
        if len(self._candidates) >= self._settings.page_size:
            await self._recheck_candidates(entity)

    def _set_aside(self) -> None:
        """Keep a read for looking again: a proved difference is worth more than a longer scan."""
        with contextlib.suppress(ReadBudgetSpent):
            self._aside_count += self._budget.reserve(1)

    async def _recheck_candidates(self, entity: Entity) -> None:
        candidates, self._candidates = self._candidates, []
        self._budget.settle(self._aside_count, spent_count=0)
        self._aside_count = 0
        found = await recheck(
            candidates,
            store=self._store,
            mirror=self._mirror,
            backlog=self._backlog,
            budget=self._budget,
            max_rounds=self._settings.max_rounds,
            grace_s=self._grace_s,
        )
        self._unsettled += found.unsettled
        self._unread += found.unread
        self._watch.doubted(mismatch.path for mismatch in found.mismatches)
        self._late_count += found.late_count
        for mismatch in found.mismatches:
            if await self._is_accepted(mismatch):
                self._accepted_count += 1
            else:
                self._note(entity, mismatch)

    async def _is_accepted(self, mismatch: Mismatch) -> bool:
        """Tell whether a person acknowledged the dead letter of this very version."""
        if mismatch.kind is not MismatchKind.UNDELIVERABLE:
            return False
        assert mismatch.document_version is not None, "it is about a document that is there"
        return await self._acknowledged.has(mismatch.path, mismatch.document_version)

    async def _compare_rollups(self, entity: Entity) -> None:
        """Compare parents with children; a difference must stay while the backlog drains."""
        if entity.rollup is None:
            return
        parent = self._model[entity.rollup.into]
        limit = max(self._settings.max_mismatches, _MAX_ROLLUPS)
        seen = await self._mirror.rollup_differences(entity, limit=limit)
        if not seen:
            return
        await self._backlog.wait_passed(self._view.read_time_us)
        for difference in await self._mirror.rollup_differences(entity, limit=limit):
            if difference in seen:
                mismatch = Mismatch(
                    kind=MismatchKind.ROLLUP_DIFFERS,
                    entity=parent.name,
                    path=parent.path_of(difference.key),
                    field=difference.column,
                )
                self._watch.doubted([mismatch.path])
                self._note(entity, mismatch)

    def _note(self, entity: Entity, mismatch: Mismatch) -> None:
        self._counts[entity.check].mismatch_count += 1
        self._backwards_count += is_backwards(mismatch)
        if len(self._mismatches) < self._settings.max_mismatches:
            self._mismatches.append(mismatch)

    def _tell(self, entity: Entity) -> None:
        counts = self._counts[entity.check]
        self._on_progress(
            Progress(
                check=entity.check,
                document_count=counts.document_count,
                row_count=counts.row_count,
            )
        )


def _key_of(entity: Entity, document: Document) -> _Key:
    key = entity.match(document.path.split("/"))
    assert key is not None, "the store gave a document that does not fit the pattern"
    return key
