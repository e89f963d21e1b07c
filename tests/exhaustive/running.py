"""Runs schedules by the thousand on several processes, and cuts down the first one that fails."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import logging
import multiprocessing
import multiprocessing.util
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from storemirror.clock import SECOND_US, SystemClock
from storemirror.sql.sqlserver.address import is_sqlserver
from tests.exhaustive.database import DatabaseBackend, Session
from tests.exhaustive.database_orders import run_database_orders
from tests.exhaustive.faults import FAULTS, SOUND
from tests.exhaustive.orders import OrdersDone, run_orders
from tests.exhaustive.postgres import PostgresSession
from tests.exhaustive.schedule import Schedule, random_schedule
from tests.exhaustive.shrink import minimal
from tests.exhaustive.store import PureMirror
from tests.exhaustive.world import World
from tests.support.databases import new_database

#: Schedules that a process runs before it reports.
MODEL_CHUNK = 1_000
DATABASE_CHUNK = 20
#: On a database a schedule happens this long ago: its events may not lie in the future.
_AGO_US = 48 * 3_600 * SECOND_US


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule that ended otherwise than it must."""

    seed: int
    number: int
    schedule: Schedule
    #: How it ended.
    problem: str
    minimal: Schedule
    #: How that ends.
    minimal_problem: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some schedules that were run."""

    count: int
    failure: Failure | None = None


def problem_of(schedule: Schedule, make_world: Callable[[], World]) -> str | None:
    """Run one schedule; tells how it fails, or None."""
    try:
        make_world().run(schedule)
    except Exception as exc:  # An error of ours is a finding like any other.
        return f"{type(exc).__name__}: {exc}"
    return None


def run_schedules(
    seed: int, first: int, count: int, make_world: Callable[[], World], *, stride: int = 1
) -> Chunk:
    """Run schedules of a seed from number `first` on, up to one that fails; cut that down."""
    for done, number in enumerate(range(first, first + count * stride, stride), start=1):
        schedule = random_schedule(seed, number)
        problem = problem_of(schedule, make_world)
        if problem is not None:
            least = minimal(schedule, lambda one: problem_of(one, make_world) is not None)
            last_words = problem_of(least, make_world) or "it does not fail every time"
            return Chunk(done, Failure(seed, number, schedule, problem, least, last_words))
    return Chunk(count)


def model_world(plant: str | None = None) -> World:
    """Give a world in memory, with a fault planted or none."""
    fault = FAULTS[plant] if plant else SOUND
    return World(fault.make_backend, make_bus=fault.bus)


def database_world(session: Session) -> World:
    """Give a world on a database."""
    start_us = SystemClock().now_us() - _AGO_US
    return World(functools.partial(DatabaseBackend, session), start_us=start_us)


# In the processes.


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def prepare_process() -> None:
    """Look for garbage seldom, since a schedule leaves little; say nothing of cut connections."""
    # A parent that is killed would leave its processes waiting for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_model_chunk(seed: int, first: int, count: int, plant: str | None) -> Chunk:
    """Run a chunk in memory."""
    return run_schedules(seed, first, count, functools.partial(model_world, plant))


def run_orders_case(entity: str, history: str, plant: str | None) -> OrdersDone:
    """Run one history of one entity, every event twice."""
    return run_orders(entity, history, FAULTS[plant].mirror if plant else PureMirror)


@functools.cache
def _session(server_dsn: str) -> Session:
    """Open this process's own database or schema; it is closed when the process ends."""
    session = _opened(server_dsn)
    multiprocessing.util.Finalize(None, session.close, exitpriority=10)
    return session


def _opened(server_dsn: str) -> Session:
    if is_sqlserver(server_dsn):
        # The driver is an extra, and loaded only where a server is.
        from tests.exhaustive.sqlserver import SqlServerSession  # noqa: PLC0415

        return SqlServerSession(server_dsn)
    return PostgresSession(new_database(server_dsn, f"schedules_{os.getpid()}"))


def run_database_chunk(server_dsn: str, seed: int, first: int, count: int) -> Chunk:
    """Run a chunk on a database."""
    session = _session(server_dsn)
    return run_schedules(seed, first, count, lambda: database_world(session))


def run_database_orders_chunk(
    server_dsn: str, seed: int, entity: str, history: str, first: int
) -> int:
    """Run a chunk of a history's orders on a database, every event twice."""
    session = _session(server_dsn)
    return run_database_orders(session, entity, history, seed=seed, first=first)


# In the parent.


@contextlib.contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Lend processes of their own; what they have not begun when it is over is not begun."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_process)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def as_they_end(calls: Iterator[Callable[[], Future[T]]], *, ahead: int) -> Iterator[T]:
    """
    Keep some calls under way, and give what they return, as they end.

    Args:
        calls: each sends one call off to the processes; asked for more while there is room.
        ahead: how many are under way at once.
    """
    running = {call() for call in itertools.islice(calls, ahead)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
        running |= {call() for call in itertools.islice(calls, len(done))}
