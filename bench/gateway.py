"""
*gateway*: what users read, beside the bare SQL queries through the same driver.

Each contestant answers the same calls.  First as many as it can, from a few clients that each ask
again when they are answered; then at a rate, whatever it answers: a latency counts from the moment
at which a call was due, so that a contestant that falls behind does not look quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from bench.databases import BenchMirror
from bench.gateway_workload import Ask, SocialWorkload, load_into_sql
from bench.machine import Usage, family_cpu_s, usage
from bench.verify import ResultsWrong
from storemirror.clock import Clock

PAGE: Final = 20
#: Answers that are compared with the workload before anything is measured.
_CHECKED: Final = 50


class Call(enum.StrEnum):
    """What is asked; a callable each."""

    LIST_CONVERSATIONS = "list_conversations"
    LIST_MESSAGES = "list_messages"
    GET_RELATIONSHIP = "get_relationship"


#: Answers one call, and gives how many items it had; of a relationship the sides that are.
Answer = Callable[[Call, Ask], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayWorld:
    """What every contestant reads."""

    mirror: BenchMirror
    workload: SocialWorkload
    clock: Clock
    #: Of the server, for its processor time.
    postgres_pid: int
    #: Empty databases for the embedded document store, and for the bus.
    documents_dsn: str
    bus_dsn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A contestant that is ready."""

    answer: Answer
    #: The process that answers, for its processor time; None: the benchmark's own.
    process_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayContestant:
    """Somebody who answers."""

    name: str
    #: Opens what it needs, and lends what answers.
    opened: Callable[[GatewayWorld], AbstractAsyncContextManager[Opened]]
    #: Calls a second when they are paced.
    rate_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFigures:
    """One contestant and call: medians of the rounds."""

    per_s: float
    #: Processor time a call, flat out: of the process that answers, and of PostgreSQL.
    own_cpu_us: float
    postgres_cpu_us: float
    #: "p50", "p95", "p99" at the rate.
    latency_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How hard and how long is asked."""

    client_count: int
    duration_s: float
    round_count: int


@dataclass(frozen=True, slots=True)
class _Round:
    """What one contestant did with one call in one round."""

    answered_count: int
    usage: Usage
    latencies_ms: Sequence[float]


async def measure_gateway(
    world: GatewayWorld, contestants: Sequence[GatewayContestant], pace: Pace
) -> Mapping[tuple[str, Call], CallFigures]:
    """
    Load the workload, and let contestants take turns at each call.

    Raises:
        ResultsWrong: a contestant's answers are not what the workload says.
    """
    await load_into_sql(world.workload, world.mirror.mirror, world.mirror.model)
    async with world.mirror.database.connection() as conn:
        await conn.execute("VACUUM (ANALYZE)")
    rounds: dict[tuple[str, Call], list[_Round]] = {}
    async with contextlib.AsyncExitStack() as stack:
        ready = {c.name: await stack.enter_async_context(c.opened(world)) for c in contestants}
        for name, opened in ready.items():
            await _verify(name, opened.answer, world.workload)
        for number, call, one in itertools.product(range(pace.round_count), Call, contestants):
            asked = _Asked(ready[one.name], call, world.workload.asks(1_000, seed=number))
            rounds.setdefault((one.name, call), []).append(await _round(world, asked, one, pace))
    return {which: _figures(found) for which, found in rounds.items()}


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked what."""

    opened: Opened
    call: Call
    asks: Sequence[Ask]

    def again(self) -> Iterator[Awaitable[int]]:
        """Ask without an end; nothing is asked before it is awaited."""
        return (self.opened.answer(self.call, ask) for ask in itertools.cycle(self.asks))

    def usage(self, world: GatewayWorld) -> Usage:
        """Read the clock and the processor time used."""
        now = usage(world.clock, world.postgres_pid)
        pid = self.opened.process_id
        return now if pid is None else replace(now, own_cpu_s=family_cpu_s(pid))


async def _round(
    world: GatewayWorld, asked: _Asked, contestant: GatewayContestant, pace: Pace
) -> _Round:
    begun = asked.usage(world)
    answered_count = await _flat_out(asked, world.clock, pace)
    used = asked.usage(world).since(begun)
    latencies_ms = await _paced(asked, world.clock, contestant.rate_per_s, pace)
    return _Round(answered_count, used, latencies_ms)


def _figures(rounds: Sequence[_Round]) -> CallFigures:
    return CallFigures(
        per_s=median(r.answered_count / r.usage.at_s for r in rounds),
        own_cpu_us=median(1e6 * r.usage.own_cpu_s / r.answered_count for r in rounds),
        postgres_cpu_us=median(1e6 * r.usage.postgres_cpu_s / r.answered_count for r in rounds),
        latency_ms=_quantiles([r.latencies_ms for r in rounds]),
    )


async def _flat_out(asked: _Asked, clock: Clock, pace: Pace) -> int:
    """Give how many calls are answered to clients that ask again once they are answered."""
    calls = asked.again()
    begun_s = clock.monotonic_s()
    answered_count = 0

    async def client() -> None:
        nonlocal answered_count
        while clock.monotonic_s() - begun_s < pace.duration_s:
            await next(calls)
            answered_count += 1

    await asyncio.gather(*(client() for _ in range(pace.client_count)))
    return answered_count


async def _paced(asked: _Asked, clock: Clock, rate_per_s: float, pace: Pace) -> list[float]:
    """Give the latencies, ms, of calls that are made when they are due."""
    latencies_ms: list[float] = []
    count = max(1, round(rate_per_s * pace.duration_s))
    begun_s = clock.monotonic_s()

    async def one(due_s: float, call: Awaitable[int]) -> None:
        await call
        latencies_ms.append((clock.monotonic_s() - due_s) * 1_000)

    async with asyncio.TaskGroup() as group:
        for number, call in enumerate(itertools.islice(asked.again(), count)):
            due_s = begun_s + number / rate_per_s
            if (wait_s := due_s - clock.monotonic_s()) > 0:
                await clock.sleep(wait_s)
            group.create_task(one(due_s, call))
    return latencies_ms


def _quantiles(rounds: Sequence[Sequence[float]]) -> Mapping[str, float]:
    """Give the median of the rounds' quantiles."""
    found = [sorted(latencies) for latencies in rounds]
    return {
        f"p{percent}": median(r[min(len(r) - 1, len(r) * percent // 100)] for r in found)
        for percent in (50, 95, 99)
    }


async def _verify(name: str, answer: Answer, workload: SocialWorkload) -> None:
    """Compare some answers with the workload."""
    for ask in workload.asks(_CHECKED, seed=0):
        edges = sum(
            f"users/{a}/{collection}/{b}" in workload.documents
            for collection in ("following", "blocks")
            for a, b in ((ask.user, ask.target), (ask.target, ask.user))
        )
        expected = {
            Call.LIST_CONVERSATIONS: min(PAGE, len(workload.conversations[ask.user])),
            Call.LIST_MESSAGES: min(PAGE, workload.message_counts[ask.conversation]),
            Call.GET_RELATIONSHIP: edges,
        }
        for call, count in expected.items():
            found = await answer(call, ask)
            if found != count:
                raise ResultsWrong(f"{name}: {call} of {ask} has {found} items, {count} are there")
