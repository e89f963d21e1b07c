"""
Classic mistakes, planted in the model: what the runs of schedules must find, and cut down.

Each is the model with one rule changed, as a person in a hurry might have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storemirror.event.change import Outcome, RowState
from storemirror.model.entity import Entity
from storemirror.sql.port import RowEvent
from tests.exhaustive.backend import Backend, NowUs, PureBackend
from tests.exhaustive.bus import Publication, PureBus
from tests.exhaustive.store import Aggregates, Key, PureMirror, Row, Rows, latest_of


class EqualVersionAppliedTwice(PureMirror):
    """A repeated event is applied as if it were new, and counted as a new row."""

    def _decide(self, event: RowEvent, row: Row | None) -> Outcome:
        outcome = super()._decide(event, row)
        return Outcome.APPLIED if outcome is Outcome.DUPLICATE else outcome

    def _delta(self, *, was_live: bool, is_live: bool) -> int:
        del was_live
        return 1 if is_live else -1


class OlderVersionWins(PureMirror):
    """Whatever comes last is written."""

    def _decide(self, event: RowEvent, row: Row | None) -> Outcome:
        outcome = super()._decide(event, row)
        return Outcome.APPLIED if outcome is Outcome.STALE else outcome


class TombstoneDropped(PureMirror):
    """A delete removes the row, and its version with it."""

    def _write(self, event: RowEvent) -> None:
        super()._write(event)
        row = self.rows[event.entity.name][event.key]
        if event.row is None and row.aggregates is None:
            del self.rows[event.entity.name][event.key]


class CountAddedTwice(PureMirror):
    """A new row is counted by two places."""

    def _delta(self, *, was_live: bool, is_live: bool) -> int:
        return 2 * super()._delta(was_live=was_live, is_live=is_live)


class DeletionNotCounted(PureMirror):
    """Only new rows are counted."""

    def _delta(self, *, was_live: bool, is_live: bool) -> int:
        return max(0, super()._delta(was_live=was_live, is_live=is_live))


class RepairNotWritten(PureMirror):
    """An event of the row's own version never writes, though it shows other contents."""

    def _write(self, event: RowEvent) -> None:
        old = self.rows[event.entity.name].get(event.key)
        super()._write(event)
        row = self.rows[event.entity.name][event.key]
        if old is not None and old.state is RowState.LIVE and event.row is not None:
            row.mapped = old.mapped if old.version == row.version else row.mapped


class RollUpInTheStatementOfTheWrite(PureMirror):
    """The roll-up reads the rows as they were when its statement began: before the write."""

    def _before_call(self, entity: Entity) -> dict[Key, Row] | None:
        return dict(self.rows[entity.name])

    def _roll_up(
        self,
        entity: Entity,
        parent: Key,
        delta: int,
        before: dict[Key, Row] | None,
        *,
        is_recounted: bool,
    ) -> None:
        super()._roll_up(entity, parent, delta, before, is_recounted=is_recounted)
        assert entity.rollup is not None
        assert before is not None
        aggregates = self.rows[entity.rollup.into][parent].aggregates
        assert aggregates is not None
        aggregates.latest = latest_of(entity, self.live_children(before, parent))


class ClassifiedBeforeTheLock(PureMirror):
    """Rows are read in the statement that waits for their locks: as they were before it waited."""

    def _stored(self, entity: Entity, key: Key, began: Rows | None) -> Row | None:
        return super()._stored(entity, key, began) if began is None else began[entity.name].get(key)


class StubOverwritesAggregates(PureMirror):
    """A parent that arrives after its children starts to count from nothing."""

    def _write(self, event: RowEvent) -> None:
        old = self.rows[event.entity.name].get(event.key)
        super()._write(event)
        row = self.rows[event.entity.name][event.key]
        if old is not None and old.state is RowState.STUB and row.aggregates is not None:
            row.aggregates = Aggregates()


class HorizonForgotten(PureMirror):
    """A purge leaves nothing that says what it took."""

    def _raise_horizon(self, entity: Entity, newest_us: int) -> None:
        """Do nothing."""


class HorizonWithoutSkew(PureMirror):
    """The horizon does not allow for a database's clock that is behind Firestore's."""

    def _raise_horizon(self, entity: Entity, newest_us: int) -> None:
        self.horizon_us[entity.name] = max(self.horizon_us.get(entity.name, 0), newest_us)


class ParentPurgedFromItsChildren(PureMirror):
    """A purge takes a deleted conversation, though its messages are counted in it."""

    def _is_purged(self, entity: Entity, key: Key, row: Row) -> bool:
        del entity, key
        return row.state is not RowState.LIVE


class StaleNotAudited(PureMirror):
    """Only what was written is audited."""

    def _audit(self, event: RowEvent, outcome: Outcome) -> None:
        if outcome is not Outcome.STALE:
            super()._audit(event, outcome)


class RestOfABatchForgotten(PureMirror):
    """Of a key that a call names twice only the first event is looked at."""

    def _call(
        self,
        entity: Entity,
        events: Sequence[RowEvent],
        indexes: Sequence[int],
        outcomes: list[Outcome | None],
        began: Rows | None,
    ) -> None:
        firsts = {events[index].key: index for index in reversed(indexes)}
        super()._call(entity, events, sorted(firsts.values()), outcomes, began)
        for index in indexes:
            outcomes[index] = outcomes[index] or Outcome.STALE


class MarkPastUncommitted(PureBus):
    """The low-water mark follows the numbers drawn, without regard to who has not committed."""

    def _has_ended(self, publications: Iterable[Publication]) -> bool:
        del publications
        return True


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of mirror or bus with a rule changed."""

    mirror: type[PureMirror] = PureMirror
    bus: type[PureBus] = PureBus

    def make_backend(self, now_us: NowUs) -> Backend:
        """Give a mirror with the fault."""
        return PureBackend(now_us, self.mirror)

    @property
    def make_bus(self) -> Callable[[NowUs], PureBus]:
        """Give the bus with the fault."""
        return self.bus


SOUND = Fault()
#: Name, as `--plant` takes it -> fault.
FAULTS: dict[str, Fault] = {
    "equal-version-applied-twice": Fault(EqualVersionAppliedTwice),
    "older-version-wins": Fault(OlderVersionWins),
    "tombstone-dropped": Fault(TombstoneDropped),
    "count-added-twice": Fault(CountAddedTwice),
    "deletion-not-counted": Fault(DeletionNotCounted),
    "repair-not-written": Fault(RepairNotWritten),
    "rollup-in-the-statement-of-the-write": Fault(RollUpInTheStatementOfTheWrite),
    "classified-before-the-lock": Fault(ClassifiedBeforeTheLock),
    "stub-overwrites-aggregates": Fault(StubOverwritesAggregates),
    "horizon-forgotten": Fault(HorizonForgotten),
    "horizon-without-skew": Fault(HorizonWithoutSkew),
    "parent-purged-from-its-children": Fault(ParentPurgedFromItsChildren),
    "stale-not-audited": Fault(StaleNotAudited),
    "rest-of-a-batch-forgotten": Fault(RestOfABatchForgotten),
    "mark-past-uncommitted": Fault(bus=MarkPastUncommitted),
}
