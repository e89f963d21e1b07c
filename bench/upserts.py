"""
The contestants without our procedures: plain guarded upserts, with neither audit nor roll-ups.

*Bare* is the limit: 500 rows a statement, nothing but the newest version kept.  *Row at a time*
is what a function does that a trigger calls: one statement and one commit an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, LiteralString

import msgspec

from bench.databases import BenchMirror
from bench.workload import Workload, WorkloadEvent
from storemirror.clock import datetime_from_us
from storemirror.sql.postgres.connection import psycopg, sql

#: Rows of one statement of the bare upsert.
BARE_BATCH: Final = 500
#: Applies everything; awaited while the clock runs.
Run = Callable[[], Awaitable[None]]

TABLE: Final = sql.Identifier("bare_message")
_MAKE_TABLE: Final = """
CREATE TABLE bare_message (LIKE storemirror.dm_message INCLUDING DEFAULTS,
    PRIMARY KEY (conversation_id, message_id)) WITH (fillfactor = 85)
"""
_BARE: Final = """
INSERT INTO bare_message AS d (
    conversation_id, message_id, row_state, last_event_id, last_event_time, last_event_version,
    last_event_digest, sender_id, body, sent_at, edited_at, attachments
)
SELECT DISTINCT ON (conversation_id, message_id)
    conversation_id, message_id, row_state, last_event_id, last_event_time, last_event_version,
    last_event_digest, sender_id, body, sent_at, edited_at, attachments
FROM jsonb_to_recordset(%s::jsonb) AS e (
    conversation_id text, message_id text, row_state text, last_event_id text,
    last_event_time timestamptz, last_event_version bigint, last_event_digest text,
    sender_id text, body text, sent_at timestamptz, edited_at timestamptz, attachments jsonb
)
ORDER BY conversation_id, message_id, last_event_version DESC
ON CONFLICT (conversation_id, message_id) DO UPDATE SET
    row_state = EXCLUDED.row_state, last_event_id = EXCLUDED.last_event_id,
    last_event_time = EXCLUDED.last_event_time, last_event_version = EXCLUDED.last_event_version,
    last_event_digest = EXCLUDED.last_event_digest, sender_id = EXCLUDED.sender_id,
    body = EXCLUDED.body, sent_at = EXCLUDED.sent_at, edited_at = EXCLUDED.edited_at,
    attachments = EXCLUDED.attachments
WHERE d.last_event_version < EXCLUDED.last_event_version
"""


async def prepare_bare(mirror: BenchMirror, workload: Workload) -> Run:
    """Make batches of 500 ready as JSON; the run sends one after the other on one connection."""
    return await _prepared(mirror, workload, BARE_BATCH)


async def prepare_row_at_a_time(mirror: BenchMirror, workload: Workload) -> Run:
    """Make each event ready as JSON; the run sends and commits one after the other."""
    return await _prepared(mirror, workload, 1)


async def _prepared(mirror: BenchMirror, workload: Workload, size: int) -> Run:
    rows = [row_of(event) for event in workload.events]
    batches = deque(
        msgspec.json.encode(rows[start : start + size]).decode()
        for start in range(0, len(rows), size)
    )
    conn = await psycopg.AsyncConnection.connect(mirror.dsn, autocommit=True)
    await conn.execute(_MAKE_TABLE)

    async def run() -> None:
        statement: LiteralString = _BARE
        while batches:
            await conn.execute(statement, (batches.popleft(),))
        await conn.close()

    return run


def row_of(event: WorkloadEvent) -> Mapping[str, Any]:
    """Give an event as a plain row."""
    change, document = event.change, event.document or {}
    return {
        "conversation_id": event.key[0],
        "message_id": event.key[1],
        "row_state": "tombstone" if event.document is None else "live",
        "last_event_id": change.event_id,
        "last_event_time": datetime_from_us(change.commit_time_us),
        "last_event_version": change.version,
        "last_event_digest": change.digest,
        "sender_id": document.get("senderId"),
        "body": document.get("body"),
        "sent_at": document.get("sentAt"),
        "edited_at": document.get("editedAt"),
        "attachments": document.get("attachments"),
    }
