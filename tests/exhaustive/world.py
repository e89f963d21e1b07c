"""
Runs a schedule: Firestore, the bus, two writers and the mirror, one step after the other.

What decides is the product's own code: the outcome rule, the settlement decisions, lanes, mapping,
the in-memory queue.  What only carries things to and fro is written here anew, without I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from storemirror.apply.lanes import lane_of
from storemirror.apply.port import Taken
from storemirror.apply.settle import (
    Settlement,
    decide_settlement,
    halves,
    split_by_delivery,
)
from storemirror.bus.port import Delivery, Message
from storemirror.errors import StoreMirrorError
from storemirror.event.change import Origin, Outcome, RowState
from storemirror.sql.port import RowEvent
from tests.exhaustive.backend import Backend, NowUs, PureBackend, ScheduleFailed
from tests.exhaustive.bus import PureBus
from tests.exhaustive.documents import CONTENTS_COUNT, Document, documents, event_of
from tests.exhaustive.history import History
from tests.exhaustive.schedule import Kind, Schedule, Step
from tests.exhaustive.store import MINUTE_US

SECOND_US = 1_000_000
START_US = 1_800_000_000 * SECOND_US
LANE_COUNT = 2
#: Rounds after which everything must be settled: three deliveries each, then resubmitted.
DRAIN_ROUNDS = 40
#: Where a writer dies in step WORK, by its second number; with any other it does not.
DIES_RECEIVED, DIES_IN_TRANSACTION, DIES_COMMITTED, DIES_HALF_SETTLED = range(4)
SURVIVES = 4
_OBSERVERS = (Origin.BACKFILL, Origin.RECONCILE, Origin.LISTENER, Origin.MIRROR)


class WriterDied(Exception):
    """A writer was killed, as the schedule wants it."""


class World:
    """Everything that a schedule changes."""

    def __init__(
        self,
        make_backend: Callable[[NowUs], Backend] = PureBackend,
        *,
        make_bus: Callable[[NowUs], PureBus] = PureBus,
        prefix: str = "",
        start_us: int = START_US,
    ) -> None:
        """
        Start with nothing.

        Args:
            make_backend: gives the mirror, on a clock.
            make_bus: likewise the bus.
            prefix: what the documents' keys begin with.
            start_us: Firestore's clock at the start, microseconds since the Unix epoch.
        """
        self.now_us = start_us
        self.skew_us = 0
        self.documents = documents(prefix)
        self.history = History(self.documents)
        self.bus = make_bus(lambda: self.now_us)
        self.backend = make_backend(lambda: self.now_us - self.skew_us)
        self._events: list[RowEvent] = []
        self._unpublished: list[int] = []
        self._published: list[int] = []
        self._damaged: set[int] = set()
        self._run = 0
        self._audited: set[str] = set()

    def run(self, schedule: Schedule) -> None:
        """
        Run a schedule, let everything settle, and compare with what Firestore ended with.

        Raises:
            ScheduleFailed: it ended otherwise.
        """
        for step in schedule:
            self.do(step)
        self.finish()

    def do(self, step: Step) -> None:
        """Do one step; a second passes."""
        self.now_us += SECOND_US
        _DOERS[step.kind](self, step)

    def _document(self, step: Step) -> Document:
        return self.documents[step.a % len(self.documents)]

    # Firestore, and who watches it.

    def write(self, step: Step) -> None:
        """Write a document; the gateway's own write goes into SQL at once, unless SQL fails."""
        document, contents = self._document(step), step.b % CONTENTS_COUNT
        event = self.history.write(document, contents, now_us=self.now_us)
        self._unpublished.append(self._remember(event))
        if step.c & 1:
            # What the client sent is not always what the server made of it.
            sent = (contents + (step.c >> 1 & 1)) % CONTENTS_COUNT
            self._apply_directly(
                event_of(document, sent, commit_time_us=self.now_us, origin=Origin.DUAL_WRITE)
            )

    def _apply_directly(self, event: RowEvent) -> None:
        try:
            self.backend.model.meet_trouble([event])
        except StoreMirrorError:
            return
        self.backend.apply([event])
        self._note_audit([event])

    def delete(self, step: Step) -> None:
        """Delete a document, if it is there."""
        event = self.history.delete(self._document(step))
        if event is not None:
            self._unpublished.append(self._remember(event))

    def observe(self, step: Step) -> None:
        """Read a document for a backfill, a reconcile, a listener or the gateway."""
        document, origin = self._document(step), _OBSERVERS[step.b % len(_OBSERVERS)]
        held = self.history.held.get(document.number)
        is_gone = held is None or held.contents is None
        if is_gone and origin in (Origin.BACKFILL, Origin.MIRROR):
            return
        event = self.history.read(document, origin, now_us=self.now_us)
        self._publish(self._remember(event), run=self._next_run())

    def repair(self, step: Step) -> None:
        """Read a document and have its row written anew."""
        self._repair(self._document(step))

    def _repair(self, document: Document) -> None:
        row = self.backend.model.rows[document.entity.name].get(document.key)
        event = self.history.read(
            document,
            Origin.REPAIR,
            now_us=self.now_us,
            expected_version=None if row is None else row.version,
        )
        self._publish(self._remember(event), run=self._next_run())

    def damage(self, step: Step) -> None:
        """Write a live row past the procedures; it is repaired in the end."""
        document = self._document(step)
        row = self.backend.model.rows[document.entity.name].get(document.key)
        if row is not None and row.state is RowState.LIVE:
            self.backend.damage(document, step.b % 3)
            self._damaged.add(document.number)

    # The bus.

    def _remember(self, event: RowEvent) -> int:
        self._events.append(event)
        return len(self._events) - 1

    def _next_run(self) -> str:
        self._run += 1
        return f"r{self._run}"

    def _publish(self, index: int, *, run: str | None = None, commits_late: bool = False) -> None:
        """Publish an event; a message's body names it, as bytes would that are decoded."""
        event_id = self._events[index].change.event_id
        message = Message(
            message_id=event_id if run is None else f"{event_id}.{run}",
            body=b"%d" % index,
            content_type="",
        )
        self.bus.publish(message, commits_late=commits_late)

    def publish(self, step: Step) -> None:
        """Let a trigger publish one of the events that it has not yet told, in any order."""
        if self._unpublished:
            index = self._unpublished.pop(step.a % len(self._unpublished))
            self._published.append(index)
            self._publish(index, commits_late=bool(step.c & 1))
            if step.b & 1:
                self._publish(index)

    def repeat(self, step: Step) -> None:
        """Publish an event again: by its own id, or so that the bus does not recognise it."""
        if self._published:
            index = self._published[step.a % len(self._published)]
            self._publish(index, run=self._next_run() if step.b & 3 else None)

    def commit(self, step: Step) -> None:
        """Commit a publication."""
        if self.bus.in_flight:
            self.bus.commit(step.a % len(self.bus.in_flight))

    def resubmit(self, step: Step) -> None:
        """Send every dead letter again."""
        del step
        self.bus.resubmit(self._next_run())

    def advance_mark(self, step: Step) -> None:
        """Move the bus's low-water mark."""
        del step
        self.bus.advance_low_water()

    # The writers.

    def work(self, step: Step) -> None:
        """Let a writer take some deliveries, apply and settle them, or die on the way."""
        deliveries = self.bus.receive(step.a + 1)
        if deliveries and step.b != DIES_RECEIVED:
            self._process_lanes(deliveries, dies_at=step.b)

    def _process_lanes(self, deliveries: Sequence[Delivery], *, dies_at: int) -> None:
        lanes: list[list[Taken]] = [[] for _ in range(LANE_COUNT)]
        for delivery in deliveries:
            event = self._events[int(delivery.message.body)]
            lanes[lane_of(event, LANE_COUNT)].append(Taken(delivery, event))
        try:
            for lane in lanes:
                if lane:
                    self._process(lane, dies_at=dies_at)
        except WriterDied:
            # What it held comes again when the locks have run out.
            return

    def _process(self, batch: Sequence[Taken], *, dies_at: int) -> None:
        """Do what `Applier.process` does."""
        parts: deque[Sequence[Taken]] = deque(split_by_delivery(batch))
        while parts:
            part = parts.popleft()
            events = [taken.event for taken in part]
            try:
                self.backend.model.meet_trouble(events)
            except StoreMirrorError as exc:
                settlement = decide_settlement(exc, event_count=len(part), may_retry=False)
                if settlement is Settlement.BISECT:
                    parts.extendleft(reversed(halves(part)))
                elif settlement is Settlement.DEAD_LETTER:
                    self.bus.dead_letter(part[0].delivery, type(exc).__name__)
                else:
                    for taken in (*part, *(taken for rest in parts for taken in rest)):
                        self.bus.abandon(taken.delivery)
                    return
                continue
            if dies_at == DIES_IN_TRANSACTION:
                self.backend.abort(events)
                raise WriterDied
            self._settle(part, self.backend.apply(events), dies_at=dies_at)

    def _settle(self, part: Sequence[Taken], outcomes: Sequence[Outcome], *, dies_at: int) -> None:
        """Read again what is expired, then settle everything."""
        self._note_audit([taken.event for taken in part])
        for taken, outcome in zip(part, outcomes, strict=True):
            settlement = decide_settlement(outcome, event_count=len(part), may_retry=True)
            if settlement is Settlement.REREAD:
                self._reread(taken)
        if dies_at == DIES_COMMITTED:
            raise WriterDied
        count = len(part) // 2 if dies_at == DIES_HALF_SETTLED else len(part)
        for taken in part[:count]:
            self.bus.complete(taken.delivery)
        if dies_at == DIES_HALF_SETTLED:
            raise WriterDied

    def _reread(self, taken: Taken) -> None:
        document = next(d for d in self.documents if d.path == taken.event.change.path)
        event = self.history.read(document, Origin.REREAD, now_us=self.now_us)
        self._publish(self._remember(event), run=f"reread-{taken.delivery.sequence_number}")

    def race(self, step: Step) -> None:
        """Let one writer hold its transaction open while another one applies its own."""
        shares = [
            [
                Taken(delivery, self._events[int(delivery.message.body)])
                for delivery in self.bus.receive(count % 6 + 1)
            ]
            for count in (step.a, step.b)
        ]
        first, second = shares
        model = self.backend.model
        if not first or not second or model.refused_paths or model.outage_count:
            for share in shares:
                if share:
                    self._process(share, dies_at=SURVIVES)
            return
        outcomes, others = self.backend.race(
            [taken.event for taken in first],
            [taken.event for taken in second],
            point=step.c // 4,
            is_killed=step.c % 4 == 0,
        )
        if outcomes is not None:
            self._settle(first, outcomes, dies_at=SURVIVES)
        self._settle(second, others, dies_at=SURVIVES)

    def _note_audit(self, events: Sequence[RowEvent]) -> None:
        self._audited.update(e.change.event_id for e in events if e.entity.has_audit)

    # The database, and time.

    def purge(self, step: Step) -> None:
        """Purge tombstones and stubs, of one entity or of all, at once or some time later."""
        if step.c & 1:
            self.now_us += 20 * MINUTE_US
        entities = self.backend.model.model.entities
        chosen = step.a % (2 * len(entities))
        for entity in entities[chosen : chosen + 1] or entities:
            self.backend.purge(entity.name, dies_between=bool(step.b & 1))

    def refuse(self, step: Step) -> None:
        """Let the database refuse a document, or cure it of that."""
        refused = self.backend.model.refused_paths
        if step.b & 1:
            refused.clear()
        else:
            refused.add(self._document(step).path)

    def fail(self, step: Step) -> None:
        """Let the database not answer for a while."""
        self.backend.model.outage_count = step.a % 4 + 1

    def tick(self, step: Step) -> None:
        """Let minutes pass: locks run out, tombstones grow old."""
        self.now_us += (step.a + 1) * MINUTE_US

    def set_skew(self, step: Step) -> None:
        """Set the database's clock behind Firestore's, as far as is allowed."""
        self.skew_us = step.a % 6 * MINUTE_US

    # The end.

    def finish(self) -> None:
        """
        Cure everything, let every event arrive and be settled, repair what was damaged, compare.

        Raises:
            ScheduleFailed: an event is never settled, or the end is not Firestore's.
        """
        model = self.backend.model
        model.refused_paths.clear()
        model.outage_count = 0
        while self.bus.in_flight:
            self.bus.commit(0)
        for index in self._unpublished:
            self._publish(index)
        self._unpublished.clear()
        self._drain()
        if self._damaged:
            for number in sorted(self._damaged):
                self._repair(self.documents[number])
            self._drain()
            self.backend.recompute()
        self.check()
        problems = list(self.history.differences(model))
        if model.audit != self._audited:
            problems.append(f"the audit has {len(model.audit)} of {len(self._audited)} events")
        if problems:
            raise ScheduleFailed("; ".join(problems))

    def check(self) -> None:
        """Compare a real database with the model."""
        self.backend.check()

    def _drain(self) -> None:
        for _ in range(DRAIN_ROUNDS):
            if self.bus.is_empty:
                return
            self.now_us += 2 * MINUTE_US
            deliveries = self.bus.receive(1_000)
            if deliveries:
                self._process_lanes(deliveries, dies_at=SURVIVES)
            self.bus.resubmit(self._next_run())
        raise ScheduleFailed(f"not everything is settled after {DRAIN_ROUNDS} rounds")


_DOERS: dict[Kind, Callable[[World, Step], None]] = {
    Kind.WRITE: World.write,
    Kind.DELETE: World.delete,
    Kind.PUBLISH: World.publish,
    Kind.REPEAT: World.repeat,
    Kind.COMMIT: World.commit,
    Kind.WORK: World.work,
    Kind.RACE: World.race,
    Kind.OBSERVE: World.observe,
    Kind.REPAIR: World.repair,
    Kind.DAMAGE: World.damage,
    Kind.PURGE: World.purge,
    Kind.TICK: World.tick,
    Kind.RESUBMIT: World.resubmit,
    Kind.REFUSE: World.refuse,
    Kind.OUTAGE: World.fail,
    Kind.MARK: World.advance_mark,
    Kind.SKEW: World.set_skew,
}
