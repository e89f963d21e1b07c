"""
*apply*: events from an in-memory bus through the real writer into PostgreSQL.

Beside it, in the same run: the same procedures without our Python, a bare guarded upsert, a row at
a time.  The contestants take turns in rounds, so that all of them meet the same machine, and each
is verified after each round.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.databases import EMPTY, BenchMirror, BenchServer
from bench.machine import Usage, usage
from bench.real_writer import prepare_writer
from bench.same_sql import prepare_same_sql
from bench.upserts import TABLE, prepare_bare, prepare_row_at_a_time
from bench.verify import verify_messages, verify_mirror
from bench.workload import Workload
from storemirror.apply.port import WriterSettings
from storemirror.clock import Clock

Run = Callable[[], Awaitable[None]]
Prepare = Callable[[BenchMirror, Workload], Awaitable[Run]]
Verify = Callable[[BenchMirror, Workload], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Somebody who applies a workload."""

    name: str
    prepare: Prepare
    verify: Verify
    workload: Workload
    #: Database that each round begins with a copy of.
    template: str = EMPTY


@dataclass(frozen=True, slots=True)
class Measured:
    """One contestant's rounds."""

    event_count: int
    rounds: Sequence[Usage]

    @property
    def per_s(self) -> float:
        """Give events a second, the median of the rounds."""
        return self.event_count / median(r.at_s for r in self.rounds)

    @property
    def own_cpu_us(self) -> float:
        """Give this process's microseconds of processor time an event."""
        return 1e6 * median(r.own_cpu_s for r in self.rounds) / self.event_count

    @property
    def postgres_cpu_us(self) -> float:
        """Give PostgreSQL's microseconds of processor time an event."""
        return 1e6 * median(r.postgres_cpu_s for r in self.rounds) / self.event_count


async def measure(
    server: BenchServer,
    contestants: Sequence[Contestant],
    clock: Clock,
    *,
    round_count: int,
) -> dict[str, Measured]:
    """
    Let contestants take turns, each in a fresh database.

    Raises:
        ResultsWrong: a contestant's tables are not what its workload says.
    """
    rounds: dict[str, list[Usage]] = {c.name: [] for c in contestants}
    for _ in range(round_count):
        for contestant in contestants:
            async with server.new_mirror(contestant.template) as mirror:
                run = await contestant.prepare(mirror, contestant.workload)
                begun = usage(clock, server.process_id)
                await run()
                rounds[contestant.name].append(usage(clock, server.process_id).since(begun))
                await contestant.verify(mirror, contestant.workload)
    return {c.name: Measured(len(c.workload.events), rounds[c.name]) for c in contestants}


def writer(
    workload: Workload,
    clock: Clock,
    settings: WriterSettings,
    *,
    name: str = "writer",
    writer_count: int = 1,
) -> Contestant:
    """Give the real writer, or several, behind an in-memory bus."""
    return Contestant(
        name=name,
        prepare=lambda mirror, made: prepare_writer(
            mirror, made, clock, settings, writer_count=writer_count
        ),
        verify=lambda mirror, made: verify_mirror(mirror.database, made),
        workload=workload,
    )


def same_sql(workload: Workload, settings: WriterSettings) -> Contestant:
    """Give the same procedures with everything ready."""
    return Contestant(
        name="same_sql",
        prepare=lambda mirror, made: prepare_same_sql(mirror, made, settings),
        verify=lambda mirror, made: verify_mirror(mirror.database, made),
        workload=workload,
    )


def bare_upsert(workload: Workload) -> Contestant:
    """Give the guarded upsert without audit and roll-ups."""
    return Contestant(
        name="bare_upsert",
        prepare=prepare_bare,
        verify=lambda mirror, made: verify_messages(mirror.database, made, TABLE),
        workload=workload,
    )


def row_at_a_time(workload: Workload) -> Contestant:
    """Give the same upsert, a row a statement and a commit each."""
    return Contestant(
        name="row_at_a_time",
        prepare=prepare_row_at_a_time,
        verify=lambda mirror, made: verify_messages(mirror.database, made, TABLE),
        workload=workload,
    )
