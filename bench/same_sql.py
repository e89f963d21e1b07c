"""
The same procedures without our Python: what the writer could at best reach.

Batches, lanes, locks, stubs and commits are the writer's; the arguments are ready as JSON before
the clock starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.databases import BenchMirror
from bench.workload import SOURCE, Workload
from storemirror.apply.decode import EventDecoder
from storemirror.apply.lanes import lane_of
from storemirror.apply.port import WriterSettings
from storemirror.sql.parents import Keys, KnownParents
from storemirror.sql.port import RowEvent
from storemirror.sql.postgres.batch import BatchEncoder
from storemirror.sql.postgres.connection import Connection, psycopg, sql
from storemirror.sql.postgres.types import LIMITS

_PARENT_MISSING: Final = "SM001"

#: Applies everything; awaited while the clock runs.
Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _SqlBatch:
    """One transaction of the procedures, its arguments ready."""

    parents: str
    wanted: Keys
    #: Procedure and its events.
    calls: Sequence[tuple[sql.Composed, str]]


async def prepare_same_sql(
    mirror: BenchMirror, workload: Workload, settings: WriterSettings
) -> Run:
    """Make the writer's batches ready as JSON; the run sends them, a connection a lane."""
    decoder = EventDecoder(model=mirror.model, limits=LIMITS, source=SOURCE)
    encoder = BatchEncoder(mirror.model, await mirror.mirror.verify_schema())
    lanes: list[list[RowEvent]] = [[] for _ in range(settings.lane_count)]
    for message in workload.messages():
        event = decoder.decode(message)
        lanes[lane_of(event, settings.lane_count)].append(event)
    size = settings.batch_max_events
    batches = [
        deque(
            _sql_batch(mirror, encoder, lane[start : start + size])
            for start in range(0, len(lane), size)
        )
        for lane in lanes
    ]
    del lanes
    connections = [await _connect(mirror) for _ in batches]

    parents = KnownParents(mirror.model)

    async def run() -> None:
        await asyncio.gather(
            *(_send_all(mirror, c, b, parents) for c, b in zip(connections, batches, strict=True))
        )
        for conn in connections:
            await conn.close()

    return run


def _sql_batch(mirror: BenchMirror, encoder: BatchEncoder, events: Sequence[RowEvent]) -> _SqlBatch:
    calls = []
    for verb, is_deleted in (("Delete", True), ("Upsert", False)):
        chosen = [event for event in events if event.change.is_deleted is is_deleted]
        if chosen:
            procedure = mirror.rendering.procedure_parts(f"{verb}DmMessage")
            call = sql.SQL("SELECT outcome FROM {}(%s::jsonb)").format(sql.Identifier(*procedure))
            calls.append((call, encoder.events_json(chosen)))
    wanted = {"DmConversation": {event.key[:1] for event in events}}
    return _SqlBatch(encoder.keys_json(wanted), wanted, calls)


async def _send_all(
    mirror: BenchMirror, conn: Connection, batches: deque[_SqlBatch], parents: KnownParents
) -> None:
    lock = sql.SQL("SELECT {}(%s::jsonb)").format(
        sql.Identifier(*mirror.rendering.procedure_parts("LockRows"))
    )
    ensure = sql.SQL("SELECT {}(%s::jsonb)").format(
        sql.Identifier(*mirror.rendering.procedure_parts("EnsureParents"))
    )
    while batches:
        batch = batches.popleft()
        makes_first = bool(parents.to_make_first(batch.wanted))
        while makes_first or not await _sent(conn, batch, lock):
            if not makes_first:
                parents.note_missing()
            cursor = await conn.execute(ensure, (batch.parents,))
            [(made,)] = await cursor.fetchall()
            parents.note_made(made)
            makes_first = False
        parents.note_there(batch.wanted)


async def _sent(conn: Connection, batch: _SqlBatch, lock: sql.Composed) -> bool:
    """Run one transaction; False when parents are missing, and nothing was written."""
    try:
        async with conn.transaction():
            if len(batch.calls) > 1:
                cursor = await conn.execute(lock, (batch.parents,))
                missing = await cursor.fetchone()
                if missing is None or missing[0] > 0:
                    raise psycopg.Rollback
            for call, events in batch.calls:
                cursor = await conn.execute(call, (events,))
                await cursor.fetchall()
            return True
    except psycopg.Error as exc:
        if exc.sqlstate != _PARENT_MISSING:
            raise
    return False


async def _connect(mirror: BenchMirror) -> Connection:
    return await psycopg.AsyncConnection.connect(mirror.dsn, autocommit=True)
