"""
The queue processor: takes events from the bus and applies them to the mirror, lane by lane.

    receive -> decode -> lanes -> apply (one transaction a lane) -> complete

When the database does not take events, the *gate* closes: what is held is given back, and nothing
is received until a probe and one event of each kind from the failed batch have gone through.
Those few events, the *canaries*, stay under lock meanwhile, so that an outage of any length costs
every other event one delivery and these none.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import structlog

from storemirror.apply.applier import Applier
from storemirror.apply.decode import EventDecoder
from storemirror.apply.hand import Hand
from storemirror.apply.lanes import Lane, lane_of, lanes_of
from storemirror.apply.port import BatchObserver, Reread, Step, StepHook, Taken, WriterSettings
from storemirror.apply.readiness import check_ready, refuse_if_off
from storemirror.apply.references import ReferenceLane
from storemirror.apply.reread import Rereader
from storemirror.apply.retry import Retry, cancel, first_of
from storemirror.apply.settle import is_worth_waiting_for, one_of_each_kind
from storemirror.apply.settler import Settler
from storemirror.apply.stats import WriterStats
from storemirror.apply.unfit import UnfitMarker
from storemirror.apply.waiting import WaitingRoom
from storemirror.bus.port import Consumer, Delivery, Publisher, Rejection
from storemirror.clock import Clock
from storemirror.errors import DatabaseRefused, PoisonEventError, TransientError
from storemirror.event.envelope import Reference
from storemirror.model.entity import Model
from storemirror.sql.port import RowEvent, SqlMirror
from storemirror.telemetry import LogEvent

_log = structlog.get_logger(__name__)

#: Deliveries that are decoded before lanes have a turn: a connection whose batch is done waits
#: for as long as this takes.
_ROUTED_AT_ONCE = 200
#: Reason of a dead letter whose decoding ended in an error that nobody foresaw.
UNEXPECTED_REASON = "UnexpectedError"


def create_sql_writer_processor(
    *,
    consumer: Consumer,
    publisher: Publisher,
    mirror: SqlMirror,
    model: Model,
    source: str,
    clock: Clock,
    reread: Reread,
    settings: WriterSettings,
    stats: WriterStats | None = None,
    hooks: StepHook | None = None,
    on_batch: BatchObserver | None = None,
) -> SqlWriterProcessor:
    """
    Make a processor; nothing is opened or received before `run`.

    Args:
        consumer: of the subscription `sql-writer`; stays open.
        publisher: takes what is read again; stays open.
        mirror: lends a connection a lane; stays open.
        model: the declared entities.
        source: the only CloudEvents source whose events are taken.
        clock: tells the time, and waits.
        reread: reads a document whose row's past was purged, or whose contents the bus cannot
            carry.
        settings: see `WriterSettings`.
        stats: counters to go on with; new ones by default.
        hooks: called at each `Step`; for tests that let faults strike.
        on_batch: told of each settled batch.
    """
    return SqlWriterProcessor(
        consumer=consumer,
        publisher=publisher,
        mirror=mirror,
        decoder=EventDecoder(model=model, limits=mirror.limits, source=source),
        clock=clock,
        reread=reread,
        settings=settings,
        stats=WriterStats() if stats is None else stats,
        hooks=hooks,
        on_batch=on_batch,
    )


class SqlWriterProcessor:
    """Runs once; make another one to run again.  See `create_sql_writer_processor`."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        publisher: Publisher,
        mirror: SqlMirror,
        decoder: EventDecoder,
        clock: Clock,
        reread: Reread,
        settings: WriterSettings,
        stats: WriterStats,
        hooks: StepHook | None,
        on_batch: BatchObserver | None,
    ) -> None:
        """See `create_sql_writer_processor`."""
        self.stats = stats
        self._consumer = consumer
        self._mirror = mirror
        self._decoder = decoder
        self._clock = clock
        self._settings = settings
        self._hooks = hooks
        #: Set when the writer is to end.
        self._halt = asyncio.Event()
        #: Set when the receiving loop should look again at what it may do.
        self._wake = asyncio.Event()
        self._retry = Retry(clock=clock, settings=settings, halt=self._halt, on_calm=self._wake.set)
        self._hand = Hand(
            consumer=consumer, clock=clock, stats=stats, settings=settings, on_shrink=self._wake.set
        )
        marker = UnfitMarker(mirror, decoder.model, on_refusal=self._close_gate)
        self._settler = Settler(
            consumer=consumer, hand=self._hand, retry=self._retry, stats=stats, marker=marker
        )
        self._waiting = WaitingRoom(publisher, clock, self._settler, settings)
        self._rereader = Rereader(reread, publisher, self._waiting)
        self._applier = Applier(
            mirror=mirror,
            rereader=self._rereader,
            clock=clock,
            hand=self._hand,
            retry=self._retry,
            settler=self._settler,
            stats=stats,
            hooks=hooks,
            on_batch=on_batch,
        )
        self._lanes = lanes_of(settings)
        #: Set while the database takes events, as far as is known.
        self._gate = asyncio.Event()
        self._gate.set()
        self._references = ReferenceLane(reread, decoder, self._waiting, self._gate)
        self._all_lanes: list[Lane | ReferenceLane] = [*self._lanes, self._references]
        #: Held while deliveries may be under way to us: what is given back meanwhile would come
        #: straight back, and cost another delivery.
        self._receiving = asyncio.Lock()
        self._canaries: list[Taken] = []
        self._fatal: Exception | None = None
        self._check_at_s = 0.0
        self._mean_size_bytes = 1

    @property
    def _is_gate_closed(self) -> bool:
        return not self._gate.is_set()

    @property
    def in_hand_count(self) -> int:
        """Give how many deliveries are held under lock."""
        return len(self._hand)

    async def run(
        self, stop: asyncio.Event, *, on_idle: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """
        Receive and apply until `stop` is set; then finish or give back what is in hand.

        Args:
            stop: to be set by the caller, or by `on_idle`.
            on_idle: called each time nothing is held and nothing came.

        Raises:
            SwitchedOff: nothing was received.
            SchemaMismatch: what was held was given back.
            ClockSkewed: likewise.
            DatabaseRefused: at the start; nothing was received.
            BusRefused: what was held comes again when its locks have run out.
        """
        refuse_if_off(is_mirror_on=self._settings.is_mirror_on)
        lanes = [
            asyncio.create_task(self._guarded(self._run_lane(lane))) for lane in self._all_lanes
        ]
        others = [
            asyncio.create_task(self._guarded(self._halt_when(stop))),
            asyncio.create_task(self._guarded(self._hand.keep_locks())),
            asyncio.create_task(self._guarded(self._rereader.keep_trying())),
            asyncio.create_task(self._guarded(self._waiting.keep_returning())),
        ]
        try:
            await self._guarded(self._receive(on_idle))
            await self._guarded(self._finish(lanes))
        finally:
            await cancel((*lanes, *others))
        _log.info(LogEvent.WRITER_STOPPED.value, **self.stats.counters())
        if self._fatal is not None:
            raise self._fatal

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """Run a part of the writer; its error ends the whole."""
        try:
            await work
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        """End with this error, unless another one came first."""
        if self._fatal is None:
            self._fatal = exc
        _log.error(LogEvent.WRITER_FAILED.value, error=repr(exc), hint=getattr(exc, "hint", ""))
        self._end()

    def _end(self) -> None:
        self._halt.set()
        self._wake.set()

    async def _halt_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._end()

    # Receiving

    async def _receive(self, on_idle: Callable[[], Awaitable[None]] | None) -> None:
        await self._start()
        while not self._halt.is_set():
            max_count = 0 if self._retry.is_repeating else self._room()
            if self._is_gate_closed:
                await self._reopen()
            elif max_count == 0:
                self._wake.clear()
                await self._wake.wait()
            elif self._clock.monotonic_s() >= self._check_at_s and not await self._still_ready():
                continue
            elif not await self._receive_once(max_count) and on_idle is not None and not self._hand:
                await on_idle()

    async def _receive_once(self, max_count: int) -> bool:
        """Receive and put into lanes; tells whether anything came."""
        async with self._receiving:
            deliveries = await self._next_deliveries(max_count)
            if deliveries:
                await self._accept(deliveries)
        return bool(deliveries)

    async def _next_deliveries(self, max_count: int) -> list[Delivery]:
        """Receive; a bus that does not answer is asked until it does, or the writer ends."""
        wait_s = self._settings.receive_wait_s
        try:
            return await self._retry.until_it_works(
                lambda: self._consumer.receive(max_count, max_wait_s=wait_s)
            )
        except TransientError:  # the writer ends
            return []

    async def _start(self) -> None:
        """Wait for a database that answers; one that says no is an error at once."""
        try:
            await self._retry.until_it_works(self._check)
        except TransientError:  # the writer ends
            return
        _log.info(LogEvent.WRITER_STARTED.value, lane_count=len(self._lanes))

    def _room(self) -> int:
        """Give how many deliveries may be asked for, by count and by their usual size."""
        if not self._hand:
            return self._settings.receive_max_count
        free_count = self._settings.hand_max_events - len(self._hand)
        free_bytes = self._settings.hand_max_bytes - self._hand.size_bytes
        by_size = free_bytes // self._mean_size_bytes
        return max(0, min(self._settings.receive_max_count, free_count, by_size))

    async def _accept(self, deliveries: Sequence[Delivery]) -> None:
        """Hold what was received, and put it into its lanes; set aside what cannot be read."""
        self._hand.take(deliveries)
        self.stats.received += len(deliveries)
        size_bytes = sum(len(d.message.body) for d in deliveries)
        self._mean_size_bytes = max(1, size_bytes // len(deliveries))
        if self._hooks is not None:
            await self._hooks(Step.RECEIVED, deliveries)
        if self._is_gate_closed or self._halt.is_set():
            await self._settler.abandon(deliveries)
            return
        rejections: list[Rejection] = []
        for start in range(0, len(deliveries), _ROUTED_AT_ONCE):
            if start:
                await self._clock.sleep(0.0)
            rejections += self._route(deliveries[start : start + _ROUTED_AT_ONCE])
        if rejections:
            await self._settler.dead_letter(rejections)

    def _route(self, deliveries: Sequence[Delivery]) -> list[Rejection]:
        """Decode into lanes; gives what can never be applied."""
        rejections: list[Rejection] = []
        for delivery in deliveries:
            try:
                event = self._decoder.decode_event(delivery.message)
            except PoisonEventError as exc:
                reason, words = exc.reason, str(exc)
            except Exception as exc:
                reason, words = UNEXPECTED_REASON, f"decoding ended in {type(exc).__name__}"
                # Where, and not the error's own words: they may quote the document.
                frame = traceback.extract_tb(exc.__traceback__)[-1]
                _log.error(
                    LogEvent.EVENT_UNDECODABLE.value,
                    id=delivery.message.message_id,
                    error=type(exc).__name__,
                    at=f"{frame.filename}:{frame.lineno}",
                )
            else:
                self._put(delivery, event)
                continue
            rejections.append(Rejection(delivery=delivery, reason=reason, description=words))
        return rejections

    def _put(self, delivery: Delivery, event: RowEvent | Reference) -> None:
        """Put a delivery into its lane."""
        if isinstance(event, Reference):
            self._references.put(delivery, event)
        else:
            self._lanes[lane_of(event, len(self._lanes))].put(Taken(delivery, event))

    def _clear_lanes(self) -> list[Delivery]:
        """Take out everything that no lane has begun.

        What waits for the document store stays: given back in each outage of the database, it
        would pay for all of them with deliveries, where the others are applied in between.
        """
        return [taken.delivery for lane in self._lanes for taken in lane.clear()]

    # Applying

    async def _run_lane(self, lane: Lane | ReferenceLane) -> None:
        while not self._halt.is_set():
            batch = await lane.take()
            try:
                await self._applier.process(batch, lane=lane.number)
            except Exception as exc:
                await self._give_up(batch, exc)

    async def _give_up(self, batch: Sequence[Taken], exc: Exception) -> None:
        """Close the gate and give everything back but the canaries; or end, if no retry helps."""
        if not is_worth_waiting_for(exc):
            self._fail(exc)
            return
        # What waits for the document store costs no delivery, and says nothing of the database.
        unsettled = self._applier.to_apply(batch)
        kept: list[Taken] = []
        if not self._is_gate_closed:
            kept = self._canaries = one_of_each_kind(unsettled)
            self._close_gate(exc)
        kept_numbers = {taken.delivery.sequence_number for taken in kept}
        async with self._receiving:
            given_back = [taken.delivery for taken in unsettled] + self._clear_lanes()
            await self._settler.abandon(
                [d for d in given_back if d.sequence_number not in kept_numbers]
            )

    # The gate

    def _close_gate(self, exc: Exception) -> None:
        self._gate.clear()
        self._wake.set()
        _log.error(LogEvent.GATE_CLOSED.value, error=str(exc), hint=getattr(exc, "hint", ""))

    async def _reopen(self) -> None:
        """Go on trying until the database takes events, or the writer ends."""
        try:
            await self._retry.until_it_works(
                self._try_gate, log_event=LogEvent.GATE_STILL_CLOSED, is_refusal_final=False
            )
        except (TransientError, DatabaseRefused):
            if not self._halt.is_set():
                raise
            return
        self._gate.set()
        _log.info(LogEvent.GATE_OPENED.value)

    async def _try_gate(self) -> None:
        await self._check()
        await self._applier.process(self._canaries, lane=-1)
        self._canaries = []
        # Last of all: a canary may be set aside too, and with the gate open nobody would try again.
        await self._settler.dead_letter_kept()

    async def _check(self) -> None:
        await check_ready(self._mirror, self._clock)
        self._check_at_s = self._clock.monotonic_s() + self._settings.clock_check_every_s

    async def _still_ready(self) -> bool:
        """Compare the clocks again; a database that is silent, or says no, closes the gate."""
        try:
            await self._check()
        except (TransientError, DatabaseRefused) as exc:
            if not is_worth_waiting_for(exc):
                raise
            self._close_gate(exc)
        return not self._is_gate_closed

    # The end

    async def _finish(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        """Give back what no lane has begun; wait, within bounds, for what they have in hand."""
        waiting = self._clear_lanes()
        for lane in self._all_lanes:
            lane.close()
        canaries = self._applier.to_apply(self._canaries)
        await self._settler.abandon([*waiting, *(taken.delivery for taken in canaries)])
        await first_of(asyncio.wait(lanes), self._clock.sleep(self._settings.shutdown_timeout_s))
        await cancel(lanes)
        await self._waiting.put_back()
        await self._settler.abandon(self._hand.held())
