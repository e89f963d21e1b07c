"""
`make exhaustive`: every order of every event twice, and a million random schedules.

Ends with 1 when a schedule ends otherwise than Firestore did; prints the smallest one that does.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from storemirror.clock import SystemClock
from storemirror.sql.postgres.server import ServerSettings, running_server
from tests.exhaustive import running
from tests.exhaustive.backend import ScheduleFailed
from tests.exhaustive.database_orders import CHUNK as ORDERS_CHUNK
from tests.exhaustive.database_orders import has_orders
from tests.exhaustive.faults import FAULTS
from tests.exhaustive.orders import OrdersDone, all_cases
from tests.exhaustive.running import Chunk, Failure
from tests.support.databases import folder_in_memory
from tests.support.servers import NEEDED, VARIABLE

PARTS = ("orders", "model", "postgres", "sqlserver")
#: Parts that run on a database, on which nothing can be planted by name.
ON_DATABASES = ("postgres", "sqlserver")
_SAY_EVERY_S = 10.0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make exhaustive ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="another one, other schedules")
    parser.add_argument("--schedules", type=int, default=1_000_000, help="on the model")
    parser.add_argument("--first", type=int, default=0, help="begin at this number")
    parser.add_argument("--minutes", type=float, default=20.0, help="on each database")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    parser.add_argument("--only", type=int, help="one schedule, by its number")
    parser.add_argument("--plant", choices=sorted(FAULTS), help="a fault, on the model alone")
    return parser.parse_args(given)


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Progress:
    """Counts schedules, and says now and then how many."""

    def __init__(self, name: str, goal: str) -> None:
        """Start the clock."""
        self._name, self._goal = name, goal
        self._clock = SystemClock()
        self._start_s = self._said_s = self._clock.monotonic_s()
        self.count = 0

    def add(self, count: int) -> None:
        """Count some more."""
        self.count += count
        if self._clock.monotonic_s() - self._said_s > _SAY_EVERY_S:
            self._said_s = self._clock.monotonic_s()
            say(f"  {self._name}: {self.text}")

    @property
    def elapsed_s(self) -> float:
        """Give the seconds since the start."""
        return self._clock.monotonic_s() - self._start_s

    @property
    def text(self) -> str:
        """Give what was done, and how fast."""
        speed = self.count / max(self.elapsed_s, 0.001)
        return f"{self.count:,} of {self._goal}, {self.elapsed_s:.0f} s, {speed:,.0f} a second"


def failure_text(failure: Failure, part: str) -> str:
    """Say how a schedule failed, and give the smallest that does."""
    steps = "\n".join(f"    {step}," for step in failure.minimal)
    return (
        f"FAILED  {part}: seed {failure.seed}, schedule {failure.number}: {failure.problem}\n"
        f"  minimal, {len(failure.minimal)} of {len(failure.schedule)} steps: "
        f"{failure.minimal_problem}\n{steps}\n"
        f'  again: make exhaustive ARGS="--seed {failure.seed} --part {part}'
        f' --only {failure.number}"'
    )


def chunks_of(
    numbers: Iterator[int],
    submit: Callable[[int], Future[Chunk]],
    progress: Progress,
    *,
    workers: int,
    part: str,
) -> bool:
    """Run chunks until there are no more, or one fails; tells whether all were sound."""
    calls = (functools.partial(submit, first) for first in numbers)
    for chunk in running.as_they_end(calls, ahead=2 * workers):
        progress.add(chunk.count)
        if chunk.failure:
            say(failure_text(chunk.failure, part))
            return False
    say(f"ok      {part}: {progress.text}")
    return True


def run_orders_part(pool: ProcessPoolExecutor, options: argparse.Namespace) -> bool:
    """Run every order on the model."""
    progress = Progress("orders", "all")

    def submit(case: tuple[str, str]) -> Future[OrdersDone]:
        return pool.submit(running.run_orders_case, *case, options.plant)

    calls = (functools.partial(submit, case) for case in all_cases())
    batch_count = 0
    try:
        for done in running.as_they_end(calls, ahead=2 * options.workers):
            progress.add(done.schedule_count)
            batch_count += done.batch_count
    except ScheduleFailed as exc:
        say(f"FAILED  orders: {exc}")
        return False
    say(f"ok      orders: {progress.text}; {batch_count:,} batches from different states")
    return True


def run_model_part(pool: ProcessPoolExecutor, options: argparse.Namespace) -> bool:
    """Run random schedules on the model."""
    last = options.first + options.schedules
    numbers = iter(range(options.first, last, running.MODEL_CHUNK))
    if options.only is not None:
        numbers = iter([options.only])

    def submit(first: int) -> Future[Chunk]:
        count = min(running.MODEL_CHUNK, last - first)
        count = 1 if options.only is not None else count
        return pool.submit(running.run_model_chunk, options.seed, first, count, options.plant)

    progress = Progress("model", f"{options.schedules:,}")
    return chunks_of(numbers, submit, progress, workers=options.workers, part="model")


def run_postgres_part(pool: ProcessPoolExecutor, options: argparse.Namespace) -> bool:
    """Run on a PostgreSQL of its own."""
    with running_server(ServerSettings(is_durable=False, parent=folder_in_memory())) as server:
        return _run_on(server.dsn("postgres"), "postgres", pool, options)


def run_sqlserver_part(pool: ProcessPoolExecutor, options: argparse.Namespace) -> bool:
    """Run on the T-SQL endpoint for tests; nothing to do where there is none."""
    dsn = os.environ.get(VARIABLE, "")
    if not dsn:
        say(f"not run sqlserver: {NEEDED}")
        return True
    return _run_on(dsn, "sqlserver", pool, options)


def _run_on(dsn: str, part: str, pool: ProcessPoolExecutor, options: argparse.Namespace) -> bool:
    """Run orders on a database for a quarter of the time, then random schedules."""
    if options.only is None and not _orders_on(dsn, part, pool, options):
        return False
    progress = Progress(part, f"{options.minutes:g} minutes")
    limit_s = 60 * options.minutes * 3 / 4

    def numbers() -> Iterator[int]:
        if options.only is not None:
            yield options.only
            return
        for first in itertools.count(options.first, running.DATABASE_CHUNK):
            if progress.elapsed_s > limit_s:
                return
            yield first

    def submit(first: int) -> Future[Chunk]:
        count = 1 if options.only is not None else running.DATABASE_CHUNK
        return pool.submit(running.run_database_chunk, dsn, options.seed, first, count)

    return chunks_of(numbers(), submit, progress, workers=options.workers, part=part)


def _orders_on(dsn: str, part: str, pool: ProcessPoolExecutor, options: argparse.Namespace) -> bool:
    progress = Progress(f"{part} orders", f"{options.minutes / 4:g} minutes")
    limit_s = 60 * options.minutes / 4
    cases = dict.fromkeys(reversed(all_cases()), 0)

    def calls() -> Iterator[Callable[[], Future[int]]]:
        while progress.elapsed_s < limit_s and cases:
            for (entity, history), first in list(cases.items()):
                if progress.elapsed_s > limit_s:
                    return
                if not has_orders(history, first):
                    del cases[entity, history]
                    continue
                cases[entity, history] = first + ORDERS_CHUNK
                yield functools.partial(
                    pool.submit,
                    running.run_database_orders_chunk,
                    dsn,
                    options.seed,
                    entity,
                    history,
                    first,
                )

    try:
        for count in running.as_they_end(calls(), ahead=2 * options.workers):
            progress.add(count)
    except ScheduleFailed as exc:
        say(f"FAILED  {part} orders: {exc}")
        return False
    say(f"ok      {part} orders: {progress.text}")
    return True


_RUNS = {
    "orders": run_orders_part,
    "model": run_model_part,
    "postgres": run_postgres_part,
    "sqlserver": run_sqlserver_part,
}


def main(given: list[str] | None = None) -> int:
    """Run the parts asked for; gives the exit status."""
    options = arguments(given)
    parts = options.part or PARTS
    if options.plant:
        parts = [part for part in parts if part not in ON_DATABASES]
    if options.only is not None:
        parts = [part for part in parts if part != "orders"]
    say(f"seed {options.seed}, {options.workers} processes, {', '.join(parts)}")
    # Processes of its own for each part: they keep a database until they end.
    results = []
    for part in parts:
        with running.processes(options.workers) as pool:
            results.append(_RUNS[part](pool, options))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
