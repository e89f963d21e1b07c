"""
The demonstration: the whole path on embedded parts, with faults, and a comparison at the end.

    social app -> document store -> triggers -> bus -> writer (a process of its own) -> SQL
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storemirror.bus.faults import FaultyPublisher
from storemirror.bus.port import BusAdmin
from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import run_check
from storemirror.config import Settings, load_settings
from storemirror.demo.app import SocialApp
from storemirror.demo.child import WriterProcess
from storemirror.demo.outcome import DemoResult
from storemirror.demo.writer import FAULTS, LOCK_DURATION_S
from storemirror.errors import CheckIncomplete
from storemirror.event.change import Change
from storemirror.observe.status import read_status
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.relay import TriggerRelay
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.server import EmbeddedServer, ServerSettings, running_server
from storemirror.wiring import Parts

_DATABASES: Final = ("documents", "bus", "mirror")
_LOOK_EVERY_S: Final = 0.25
#: A writer that was killed leaves its locks behind; then the rest must drain.
_DRAIN_TIMEOUT_S: Final = 60.0
#: In an endless run the writer is killed after so many events.
_DIE_AFTER_EVENTS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a person asked for."""

    #: Stop after so many document writes; None: when asked to.
    events: int | None
    #: Document writes a second that the app aims at.
    rate_per_s: float
    seed: int
    #: Port of the embedded PostgreSQL; 0: any free one.
    port: int


@dataclass(slots=True, kw_only=True)
class DemoProgress:
    """What the terminal shows while it runs."""

    phase: str = "starting"
    duration_s: float = 0.0
    written: int = 0
    deleted: int = 0
    recreated: int = 0
    published: int = 0
    settled: int = 0
    outcomes: Mapping[str, int]
    depth: int = 0
    dead_letters: int = 0
    latency_ms: Mapping[str, float | None]
    restarts: int = 0


Show = Callable[[DemoProgress], None]


async def run_demo(options: DemoOptions, stop: asyncio.Event, show: Show) -> DemoResult:
    """
    Run the demo until `options.events` writes are done or `stop` is set, then compare.

    Raises:
        EmbeddedServerFailed: PostgreSQL did not start.
        WriterFailed: the writer process ended by itself.
        CheckIncomplete: the backlog did not drain.
    """
    with _embedded_parts(options) as (server, environment, folder):
        await _create_databases(server)
        async with Parts(load_settings(None, environment)) as parts:
            return await Demo(options, parts, environment, folder, show).run(stop)


@contextlib.contextmanager
def _embedded_parts(
    options: DemoOptions,
) -> Iterator[tuple[EmbeddedServer, Mapping[str, str], Path]]:
    """Start PostgreSQL, and give it with the settings that name its databases."""
    # The user's own settings file is not the demo's.
    named = os.environ.get("STOREMIRROR_POSTGRES_BIN")
    bin_dir = Path(named) if named else None
    with running_server(ServerSettings(bin_dir=bin_dir, port=options.port)) as server:
        folder = server.folder / "demo"
        folder.mkdir()
        config = folder / "storemirror.toml"
        config.write_text('[firestore]\nproject = "demo"\n')
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FIRESTORE_", "STOREMIRROR_", "SQL_PROC_", "SERVICEBUS_"))
        }
        environment = inherited | {
            "STOREMIRROR_CONFIG": str(config),
            "STOREMIRROR_DOCUMENTS_DSN": server.dsn("documents"),
            "STOREMIRROR_BUS_DSN": server.dsn("bus"),
            "STOREMIRROR_SQL_DSN": server.dsn("mirror"),
            "USE_SQL_DM_WRITE_MIRROR": "true",
        }
        yield server, environment, folder


async def _create_databases(server: EmbeddedServer) -> None:
    """Make the three databases: documents, bus and mirror share a server and nothing else."""
    admin = Database(server.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()
    try:
        async with admin.connection() as conn:
            for name in _DATABASES:
                await conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    finally:
        await admin.aclose()


class Demo:
    """One run; its parts are open."""

    def __init__(
        self,
        options: DemoOptions,
        parts: Parts,
        environment: Mapping[str, str],
        folder: Path,
        show: Show,
    ) -> None:
        """See `run_demo`."""
        self._options = options
        self._parts = parts
        self._clock = parts.clock
        self._settings: Settings = parts.settings
        self._show = show
        self._writer = WriterProcess(environment, folder, seed=options.seed)
        self._published_ids: set[str] = set()
        self._begun_s = parts.clock.monotonic_s()

    async def run(self, stop: asyncio.Event) -> DemoResult:
        """Set up, live, drain, compare."""
        parts = self._parts
        await (await parts.schema()).apply()
        self._admin: BusAdmin = await parts.bus_admin()
        await self._admin.provision(parts.topic(lock_duration_s=LOCK_DURATION_S))
        self._store: EmbeddedDocumentStore = await parts.embedded_store()
        await self._store.prepare()
        self._app = SocialApp(self._store, self._clock, seed=self._options.seed)
        draw = random.Random(self._options.seed)  # noqa: S311 - faults, not secrets
        self._publisher = FaultyPublisher(await parts.publisher(), FAULTS, draw)
        relay = TriggerRelay(
            self._store,
            parts.model,
            self._publisher,
            self._clock,
            source=parts.source,
            on_published=self._note_published,
        )
        relay_stop = asyncio.Event()
        die_after = (self._options.events or 3 * _DIE_AFTER_EVENTS) // 3
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._writer.run(die_after_events=max(die_after, 1)))
                group.create_task(relay.run(relay_stop))
                await self._writer.is_ready.wait()
                await self._live(stop)
                await self._drain()
                found = await self._compare()
                relay_stop.set()
                await self._writer.stop()
        except* Exception as failed:
            raise _first(failed) from failed
        finally:
            self._writer.kill()
        return await self._result(found)

    async def _live(self, stop: asyncio.Event) -> None:
        """Let the app write, at its rate, and show how it goes."""
        begun_s = look_at_s = self._clock.monotonic_s()
        while not stop.is_set() and not self._has_written_enough():
            await self._app.step()
            now_s = self._clock.monotonic_s()
            if now_s >= look_at_s:
                await self._look("live")
                look_at_s = now_s + _LOOK_EVERY_S
            due_s = begun_s + self._app.counts.written / self._options.rate_per_s
            await self._clock.sleep(max(0.0, due_s - now_s))

    def _has_written_enough(self) -> bool:
        events = self._options.events
        return events is not None and self._app.counts.written >= events

    async def _drain(self) -> None:
        """Wait until every change is on the bus and settled."""
        deadline_s = self._clock.monotonic_s() + _DRAIN_TIMEOUT_S
        while await self._store.pending_count() or await self._has_backlog():
            if self._clock.monotonic_s() > deadline_s:
                raise CheckIncomplete(f"the backlog did not drain in {_DRAIN_TIMEOUT_S:.0f} s")
            await self._clock.sleep(_LOOK_EVERY_S / 5)

    async def _has_backlog(self) -> bool:
        """Publish the repeats that are due, and tell whether deliveries wait or are held."""
        await self._publisher.flush()
        return await self._look("draining") > 0

    async def _compare(self) -> CheckResult:
        await self._look("comparing")
        return await run_check(
            store=self._store,
            mirror=await self._parts.mirror(),
            model=self._parts.model,
            bus_admin=self._admin,
            subscription=self._parts.subscription,
            pending=self._store.pending_count,
            clock=self._clock,
            settings=CheckSettings(),
        )

    async def _look(self, phase: str) -> int:
        """Show how it goes; gives how many deliveries wait or are held."""
        status = await read_status(self._admin, self._parts.subscription, self._clock)
        counts, tally = self._app.counts, self._writer.tally
        self._show(
            DemoProgress(
                phase=phase,
                duration_s=self._clock.monotonic_s() - self._begun_s,
                written=counts.written,
                deleted=counts.deleted,
                recreated=counts.recreated,
                published=len(self._published_ids),
                settled=len(tally.settled_ids),
                outcomes=tally.outcomes,
                depth=status.depth,
                dead_letters=status.dead_letter_count,
                latency_ms=tally.latency.percentiles_ms(),
                restarts=self._writer.restart_count,
            )
        )
        return status.depth

    def _note_published(self, changes: Sequence[Change]) -> None:
        self._published_ids.update(change.event_id for change in changes)

    async def _result(self, found: CheckResult) -> DemoResult:
        counts, tally = self._app.counts, self._writer.tally
        # The check has waited until nothing is on the bus, or counts what is.
        settled_ids = tally.settled_ids | tally.unsure_ids
        return DemoResult(
            written=counts.written,
            deleted=counts.deleted,
            recreated=counts.recreated,
            published=len(self._published_ids),
            settled=len(self._published_ids & settled_ids),
            applied=tally.outcomes["applied"],
            repaired=tally.outcomes["repaired"],
            duplicate=tally.outcomes["duplicate"],
            stale=tally.outcomes["stale"],
            expired=tally.outcomes["expired"],
            dead_lettered=found.dead_letter_count,
            mismatches=found.mismatch_count + found.unsettled_count,
            latency_ms=tally.latency.percentiles_ms(),
            duration_s=self._clock.monotonic_s() - self._begun_s,
        )


def _first(failed: BaseException) -> BaseException:
    """Give the error that ended the run; the others followed from it."""
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed
