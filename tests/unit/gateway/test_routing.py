"""Which side serves a read, mode by mode and trouble by trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from purgatory.domain.model import Context, OpenedState
from structlog.testing import capture_logs

from storemirror.clock import SECOND_US, SystemClock
from storemirror.errors import (
    BusUnavailable,
    CallRefused,
    SchemaBoundElsewhere,
    SchemaMismatch,
    SourceUnavailable,
    SqlUnavailable,
)
from storemirror.gateway import breaker
from storemirror.gateway.breaker import BREAKER_THRESHOLD
from storemirror.gateway.lag import LagWatch
from storemirror.gateway.port import ReadMode, Served
from storemirror.gateway.routing import (
    FallbackReason,
    Limits,
    ReadRouter,
    Routed,
    Sources,
)
from storemirror.gateway.schema_watch import SchemaWatch

SHORT_S = 0.01


class ClockThatJumps(SystemClock):
    """Whoever sleeps is past it at once."""

    def __init__(self) -> None:
        self._slept_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self._slept_s

    async def sleep(self, duration_s: float) -> None:
        self._slept_s += duration_s
        await asyncio.sleep(0)


@dataclass
class World:
    """Two sides that answer their names, or what is planted."""

    sql_error: Exception | None = None
    firestore_error: Exception | None = None
    is_sql_stuck: bool = False
    is_firestore_stuck: bool = False
    #: SQL's answers wait until it is set; None: they do not.
    gate: asyncio.Event | None = None
    is_sql_asked: asyncio.Event = field(default_factory=asyncio.Event)
    age_s: float | Exception | None = None
    reached_after_count: int = 0
    is_known_there: bool = True
    schema_error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    compared: list[tuple[str, str]] = field(default_factory=list)
    background: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schema = SchemaWatch(self._verify, SystemClock())
        self.router = ReadRouter(
            schema=self.schema,
            lag=LagWatch(self._oldest_age_s, SystemClock()),
            background=self.background.append,
            limits=Limits(
                sql_timeout_s=SHORT_S if self.is_sql_stuck else 5.0,
                firestore_timeout_s=SHORT_S if self.is_firestore_stuck else 5.0,
                max_lag_s=30.0,
                write_wait_s=SHORT_S,
            ),
            clock=SystemClock(),
        )

    def waits_for_writes(self, wait_s: float) -> None:
        """Have reads wait that long for a write, without it taking any time."""
        limits = replace(self.router._limits, write_wait_s=wait_s)
        self.router = ReadRouter(
            schema=self.schema,
            lag=LagWatch(self._oldest_age_s, SystemClock()),
            background=self.background.append,
            limits=limits,
            clock=ClockThatJumps(),
        )

    async def read(self, mode: ReadMode, *, has_written: bool = False) -> Routed[str]:
        sources = Sources(
            sql=self._sql,
            firestore=self._firestore,
            compare=lambda *both: self.compared.append(both),
            has_reached=self._has_reached if has_written else None,
            is_conclusive=lambda _: self.is_known_there,
        )
        # A first look takes its time on a busy machine, and a stuck SQL is given none.
        await self.schema.holds(waits_s=30.0)
        return await self.router.read(mode, sources)

    async def _verify(self) -> None:
        if self.schema_error is not None:
            raise self.schema_error

    async def _sql(self) -> str:
        self.asked.append("sql")
        self.is_sql_asked.set()
        if self.is_sql_stuck:
            await asyncio.Event().wait()
        if self.gate is not None:
            await self.gate.wait()
        if self.sql_error is not None:
            raise self.sql_error
        return "sql"

    async def _firestore(self) -> str:
        self.asked.append("firestore")
        if self.is_firestore_stuck:
            await asyncio.Event().wait()
        if self.firestore_error is not None:
            raise self.firestore_error
        return "firestore"

    async def _oldest_age_s(self) -> float | None:
        if isinstance(self.age_s, Exception):
            raise self.age_s
        return self.age_s

    async def _has_reached(self) -> bool:
        self.reached_after_count -= 1
        return self.reached_after_count < 0


@pytest.mark.parametrize(
    ("mode", "served"),
    [
        (ReadMode.FIRESTORE, Served.FIRESTORE),
        (ReadMode.SHADOW, Served.FIRESTORE),
        (ReadMode.SQL, Served.SQL),
        (ReadMode.SQL_ONLY, Served.SQL),
    ],
)
async def test_each_mode_is_served_by_its_side_alone(mode: ReadMode, served: Served) -> None:
    """The other side costs money, or is not to be trusted yet."""
    world = World()
    routed = await world.read(mode)
    assert (routed.served, routed.value, routed.fallback) == (served, served.value, None)
    assert world.asked == [served.value]


async def test_shadow_compares_in_the_background_with_what_was_served() -> None:
    """The caller has the answer before SQL is asked."""
    world = World()
    await world.read(ReadMode.SHADOW)
    assert world.asked == ["firestore"]
    [compare] = world.background
    await compare()
    assert world.compared == [("firestore", "sql")]


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (World(sql_error=SqlUnavailable("away")), FallbackReason.ERROR),
        (World(sql_error=SchemaMismatch("older")), FallbackReason.ERROR),
        (World(is_sql_stuck=True), FallbackReason.TIMEOUT),
        (World(age_s=31.0), FallbackReason.LAG),
        (World(age_s=BusUnavailable("away")), FallbackReason.LAG),
        (World(is_known_there=False), FallbackReason.UNKNOWN_THERE),
    ],
    ids=["outage", "refused", "stuck", "behind", "nobody knows", "unknown there"],
)
async def test_firestore_serves_where_sql_cannot_be_trusted(
    world: World, reason: FallbackReason
) -> None:
    """The caller gets an answer, and it says where it is from."""
    routed = await world.read(ReadMode.SQL)
    assert (routed.served, routed.fallback) == (Served.FIRESTORE, reason)


async def test_after_failures_in_a_row_sql_is_left_alone_for_a_while() -> None:
    """A database that is down must not cost every caller a deadline."""
    world = World(sql_error=SqlUnavailable("away"))
    for _ in range(BREAKER_THRESHOLD):
        await world.read(ReadMode.SQL)
    world.asked.clear()
    assert (await world.read(ReadMode.SQL)).fallback is FallbackReason.BREAKER_OPEN
    assert world.asked == ["firestore"]


@pytest.fixture
def is_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for which SQL is left alone is always over."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", -1.0)


async def fail(world: World, count: int = BREAKER_THRESHOLD) -> None:
    """Let SQL fail a few times."""
    world.sql_error = SqlUnavailable("away")
    for _ in range(count):
        await world.read(ReadMode.SQL)
    world.sql_error = None


async def called_off(world: World) -> None:
    """Let a caller go away while SQL is asked."""
    world.gate, world.is_sql_asked = asyncio.Event(), asyncio.Event()
    reading = asyncio.create_task(world.read(ReadMode.SQL))
    await world.is_sql_asked.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    world.gate = None


@pytest.mark.usefixtures("is_tried_at_once")
async def test_one_read_at_a_time_tries_sql_again() -> None:
    """All of them would wait out a deadline if it is still down (issue 7)."""
    world = World()
    await fail(world)
    world.asked.clear()
    world.gate = asyncio.Event()
    reads = [asyncio.create_task(world.read(ReadMode.SQL)) for _ in range(100)]
    others = await asyncio.gather(*reads[1:])
    assert {read.fallback for read in others} == {FallbackReason.BREAKER_OPEN}
    assert world.asked.count("sql") == 1
    world.gate.set()
    assert (await reads[0]).served is Served.SQL
    assert (await world.read(ReadMode.SQL)).served is Served.SQL


@pytest.mark.usefixtures("is_tried_at_once")
async def test_a_trial_that_is_called_off_decides_nothing() -> None:
    """SQL is tried again by the next read, and by that alone (issue 7)."""
    world = World()
    await fail(world)
    await called_off(world)
    world.asked.clear()
    world.gate = asyncio.Event()
    reads = [asyncio.create_task(world.read(ReadMode.SQL)) for _ in range(10)]
    await asyncio.gather(*reads[1:])
    assert world.asked.count("sql") == 1
    world.gate.set()
    assert (await reads[0]).served is Served.SQL


async def test_a_trial_that_fails_leaves_sql_alone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as before."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", 3_600.0)
    world = World()
    await fail(world)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 3_601)
    await fail(world, 1)
    world.asked.clear()
    assert (await world.read(ReadMode.SQL)).fallback is FallbackReason.BREAKER_OPEN
    assert world.asked == ["firestore"]


async def test_a_call_that_is_called_off_is_no_success_of_sql_s() -> None:
    """Clients give up because SQL hangs: that must not keep it in use (issue 7)."""
    world = World()
    await fail(world, BREAKER_THRESHOLD - 1)
    await called_off(world)
    await fail(world, 1)
    assert (await world.read(ReadMode.SQL)).fallback is FallbackReason.BREAKER_OPEN


async def test_leaving_sql_alone_keeps_nothing_of_the_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library raises one and the same exception at every read (issue 7)."""
    opened: list[OpenedState] = []
    refuse = OpenedState.handle_new_request

    def noted(state: OpenedState, context: Context) -> None:
        opened.append(state)
        refuse(state, context)

    monkeypatch.setattr(OpenedState, "handle_new_request", noted)
    world = World()
    await fail(world)
    for _ in range(3):
        await world.read(ReadMode.SQL)
    assert len(opened) == 3
    assert {state.__traceback__ for state in opened} == {None}


async def test_a_write_that_is_not_there_yet_is_waited_for() -> None:
    """Read your writes: a few milliseconds of lag cost no fallback."""
    world = World(reached_after_count=1)
    assert (await world.read(ReadMode.SQL, has_written=True)).served is Served.SQL


async def test_a_write_that_does_not_come_is_read_from_firestore() -> None:
    """Where it was written; and that is no failure of SQL's."""
    world = World(reached_after_count=10_000)
    for _ in range(BREAKER_THRESHOLD + 1):
        routed = await world.read(ReadMode.SQL, has_written=True)
        assert routed.fallback is FallbackReason.WRITE_NOT_THERE


@pytest.mark.parametrize(
    ("world", "status"),
    [
        (World(sql_error=SqlUnavailable("away")), "UNAVAILABLE"),
        (World(is_sql_stuck=True), "DEADLINE_EXCEEDED"),
    ],
    ids=["outage", "stuck"],
)
async def test_sql_alone_has_nobody_behind_it(world: World, status: str) -> None:
    """An error is an error, and Firestore is not asked."""
    with pytest.raises(CallRefused) as refused:
        await world.read(ReadMode.SQL_ONLY)
    assert refused.value.status == status
    assert world.asked == ["sql"]


async def test_sql_alone_does_not_show_a_state_before_the_callers_own_write() -> None:
    """It would look as if the message had been lost."""
    with pytest.raises(CallRefused) as refused:
        await World(reached_after_count=10_000).read(ReadMode.SQL_ONLY, has_written=True)
    assert refused.value.status == "UNAVAILABLE"


async def test_with_both_sides_down_the_caller_is_told() -> None:
    """The error of the last one asked."""
    down = World(sql_error=SqlUnavailable("away"), firestore_error=SourceUnavailable("away"))
    with pytest.raises(SourceUnavailable):
        await down.read(ReadMode.SQL)
    stuck = World(is_sql_stuck=True, is_firestore_stuck=True)
    with pytest.raises(CallRefused) as refused:
        await stuck.read(ReadMode.SQL)
    assert refused.value.status == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("mode", "status"),
    [(ReadMode.SQL, "UNAVAILABLE"), (ReadMode.FIRESTORE, "FAILED_PRECONDITION")],
)
async def test_what_firestore_cannot_serve_in_sqls_place_is_an_outage(
    mode: ReadMode, status: str
) -> None:
    """SQL serves it when it is back: no app is told of a mistake that it did not make (issue 7)."""
    too_many = CallRefused("FAILED_PRECONDITION", "too many conversations: SQL alone serves them")
    world = World(sql_error=SqlUnavailable("away"), firestore_error=too_many)
    with pytest.raises(CallRefused) as refused:
        await world.read(mode)
    assert refused.value.status == status


async def test_a_refusal_of_firestores_for_the_caller_stays_one_in_sqls_place() -> None:
    """Calling again would not help."""
    gone = CallRefused("NOT_FOUND", "there is no such conversation")
    with pytest.raises(CallRefused) as refused:
        await World(sql_error=SqlUnavailable("away"), firestore_error=gone).read(ReadMode.SQL)
    assert refused.value is gone


async def test_an_answer_of_sql_says_up_to_when_it_shows_everything() -> None:
    """For whoever shows it: a chat that is a minute old says so."""
    routed = await World(age_s=5.0).read(ReadMode.SQL)
    assert routed.as_of_us is not None
    age_us = SystemClock().now_us() - routed.as_of_us
    assert age_us >= 5 * SECOND_US


async def test_a_refusal_of_the_callers_own_is_no_fallback() -> None:
    """NOT_FOUND from SQL is the answer, and no failure."""
    world = World(sql_error=CallRefused("NOT_FOUND", "there is no such conversation"))
    for _ in range(BREAKER_THRESHOLD + 1):
        with pytest.raises(CallRefused):
            await world.read(ReadMode.SQL)
    assert set(world.asked) == {"sql"}


@pytest.mark.parametrize("error", [SchemaBoundElsewhere("planted"), SqlUnavailable("planted")])
async def test_sql_that_was_not_seen_to_be_the_mirror_is_not_read(error: Exception) -> None:
    """Another project's tables have users of the same ids, whose messages are nobody's here."""
    world = World(schema_error=error)
    routed = await world.read(ReadMode.SQL)
    assert (routed.served, routed.fallback) == (
        Served.FIRESTORE,
        FallbackReason.SCHEMA_UNVERIFIED,
    )
    with pytest.raises(CallRefused) as refused:
        await world.read(ReadMode.SQL_ONLY)
    assert refused.value.status == "UNAVAILABLE"
    await world.read(ReadMode.SHADOW)
    await world.background[0]()
    assert "sql" not in world.asked
    assert world.compared == []
    assert world.router.fallbacks == {FallbackReason.SCHEMA_UNVERIFIED: 1}


async def test_fallbacks_are_counted_and_said_once() -> None:
    """A line for each read of an outage buries whatever else the log has to say."""
    world = World(sql_error=SqlUnavailable("planted"))
    with capture_logs() as logs:
        for _ in range(3):
            await world.read(ReadMode.SQL)
    assert [log["event"] for log in logs] == ["gateway.read_failed", "gateway.read_fell_back"]
    assert world.router.fallbacks == {FallbackReason.ERROR: 3}


async def test_a_write_that_never_was_is_not_looked_for_all_the_time() -> None:
    """Anybody can make up a token; each look is a statement, or two."""
    world = World(reached_after_count=1_000)
    world.waits_for_writes(10.0)
    routed = await world.read(ReadMode.SQL, has_written=True)
    assert routed.fallback is FallbackReason.WRITE_NOT_THERE
    assert 5 < 1_000 - world.reached_after_count < 25
