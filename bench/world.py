"""
The whole embedded pipeline: document store, triggers, bus, and the real writers, each a process.

    commits -> embedded store -> relay -> PostgreSQL bus -> `storemirror writer` -> SQL
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.databases import BenchServer
from bench.workload import PROJECT, new_message
from storemirror.check.result import CheckSettings
from storemirror.check.run import run_check
from storemirror.clock import Clock
from storemirror.config import load_settings
from storemirror.errors import StoreMirrorError
from storemirror.event.value import encode_fields
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import Write
from storemirror.source.relay import TriggerRelay
from storemirror.telemetry import LogEvent
from storemirror.wiring import Parts

#: How often the depth is looked at while the pipeline drains.
_LOOK_EVERY_S: Final = 0.02
_DRAIN_TIMEOUT_S: Final = 120.0
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0
_CONVERSATIONS: Final = 2_000


class PipelineFailed(StoreMirrorError):
    """The pipeline did not do what it was measured for."""


@dataclass(slots=True)
class WriterChild:
    """One `storemirror writer` in a process of its own."""

    process: asyncio.subprocess.Process
    log: Path
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Give its process id."""
        return self.process.pid

    @property
    def is_started(self) -> bool:
        """Tell whether it receives; before that a signal ends it without a word."""
        return LogEvent.WRITER_STARTED.value in self.log.read_text(errors="replace")

    def last_words(self) -> str:
        """Give the end of its log."""
        return self.log.read_text(errors="replace").strip()[-2_000:]


class World:
    """The pipeline while it is measured.  Made by `running_world`."""

    def __init__(self, parts: Parts, store: EmbeddedDocumentStore, seed: int) -> None:
        """See `running_world`."""
        self.parts = parts
        self.store = store
        self.clock: Clock = parts.clock
        self.writers: list[WriterChild] = []
        self.draw = random.Random(seed)  # noqa: S311 - a workload, no secret
        self._numbers = itertools.count()
        self.committed_count = 0

    def new_writes(self, count: int) -> list[Write]:
        """Draw writes of new messages."""
        writes = []
        for _ in range(count):
            conversation = f"conversation-{self.draw.randrange(_CONVERSATIONS):06}"
            document = new_message(self.draw, self.clock.now_us())
            path = f"conversations/{conversation}/messages/m{next(self._numbers):012}"
            writes.append(Write(path=path, fields=encode_fields(document)))
        return writes

    async def commit(self, writes: Sequence[Write]) -> None:
        """Commit documents at once."""
        await self.store.commit(writes)
        self.committed_count += len(writes)

    async def drained(self) -> None:
        """Wait until everything is on the bus and settled."""
        admin = await self.parts.bus_admin()
        deadline_s = self.clock.monotonic_s() + _DRAIN_TIMEOUT_S
        while await self.store.pending_count() or (await self._depth(admin)) > 0:
            self._refuse_ended()
            if self.clock.monotonic_s() > deadline_s:
                raise PipelineFailed(f"the backlog did not drain in {_DRAIN_TIMEOUT_S:.0f} s")
            await self.clock.sleep(_LOOK_EVERY_S)

    async def started(self) -> None:
        """Wait until every writer receives; the first one alone could settle a first event."""
        deadline_s = self.clock.monotonic_s() + _START_TIMEOUT_S
        while not all(writer.is_started for writer in self.writers):
            self._refuse_ended()
            if self.clock.monotonic_s() > deadline_s:
                raise PipelineFailed(f"a writer did not start in {_START_TIMEOUT_S:.0f} s")
            await self.clock.sleep(_LOOK_EVERY_S)

    async def _depth(self, admin: Any) -> int:
        return int((await admin.stats(self.parts.subscription)).depth)

    def _refuse_ended(self) -> None:
        for writer in self.writers:
            if writer.process.returncode is not None:
                raise PipelineFailed(f"a writer ended by itself:\n{writer.last_words()}")

    async def stop_writers(self) -> None:
        """Ask every writer to finish, and keep the figures that it prints."""
        for writer in self.writers:
            writer.process.send_signal(signal.SIGTERM)
        for writer in self.writers:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                printed, _ = await writer.process.communicate()
            if writer.process.returncode != 0:
                raise PipelineFailed(f"a writer did not end well:\n{writer.last_words()}")
            writer.result = json.loads(printed)
        self.settled_count = sum(int(w.result["settled"]) for w in self.writers)

    async def verify(self) -> None:
        """
        Compare documents with rows, in full, by the checker.

        Raises:
            PipelineFailed: they differ, or not every change was settled.
        """
        found = await run_check(
            store=self.store,
            mirror=await self.parts.mirror(),
            model=self.parts.model,
            bus_admin=await self.parts.bus_admin(),
            subscription=self.parts.subscription,
            pending=self.store.pending_count,
            clock=self.clock,
            settings=CheckSettings(),
        )
        wrong = found.mismatch_count + found.unsettled_count + found.dead_letter_count
        if wrong or self.settled_count < self.committed_count:
            raise PipelineFailed(
                f"{found.mismatch_count} mismatches, {found.dead_letter_count} dead letters;"
                f" {self.committed_count} committed, {self.settled_count} settled"
            )


@contextlib.asynccontextmanager
async def running_world(
    server: BenchServer, folder: Path, *, writer_count: int, seed: int = 1
) -> AsyncIterator[World]:
    """Make databases, start the relay here and the writers as processes; end them all."""
    names = {name: await server.create_database() for name in ("documents", "bus", "sql")}
    environment = _environment(server, names, folder)
    try:
        async with Parts(load_settings(None, environment)) as parts:
            await (await parts.schema()).apply()
            await (await parts.bus_admin()).provision(parts.topic())
            world = World(parts, await parts.embedded_store(), seed)
            async with _relay(world):
                try:
                    for number in range(writer_count):
                        world.writers.append(await _started(environment, folder, number))
                    await world.started()
                    # All is open once a first event went through.
                    await world.commit(world.new_writes(1))
                    await world.drained()
                    yield world
                finally:
                    for writer in world.writers:
                        if writer.process.returncode is None:
                            writer.process.kill()
                            await writer.process.wait()
    finally:
        for name in names.values():
            await server.drop_database(name)


@contextlib.asynccontextmanager
async def _relay(world: World) -> AsyncIterator[None]:
    """Run the relay meanwhile."""
    parts, stop = world.parts, asyncio.Event()
    relay = TriggerRelay(
        world.store, parts.model, await parts.publisher(), parts.clock, source=parts.source
    )
    task = asyncio.create_task(relay.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


def _environment(server: BenchServer, names: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    return settings_in(
        folder,
        STOREMIRROR_DOCUMENTS_DSN=server.server.dsn(names["documents"]),
        STOREMIRROR_BUS_DSN=server.server.dsn(names["bus"]),
        STOREMIRROR_SQL_DSN=server.server.dsn(names["sql"]),
        USE_SQL_DM_WRITE_MIRROR="true",
    )


def settings_in(folder: Path, **variables: str) -> Mapping[str, str]:
    """Give settings, as an environment; a user's own settings are not the benchmark's."""
    config = folder / "storemirror.toml"
    config.write_text(f'[firestore]\nproject = "{PROJECT}"\n')
    foreign = ("FIRESTORE_", "FIREBASE_", "STOREMIRROR_", "SQL_PROC_", "SERVICEBUS_")
    inherited = {name: v for name, v in os.environ.items() if not name.startswith(foreign)}
    return {**inherited, "STOREMIRROR_CONFIG": str(config), **variables}


async def _started(environment: Mapping[str, str], folder: Path, number: int) -> WriterChild:
    log = folder / f"writer-{number}.log"
    command = Path(sys.executable).with_name("storemirror")
    with log.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            str(command),
            "writer",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            env=dict(environment),
        )
    return WriterChild(process, log)
