"""
What the tables hold after a run, compared with what the workload says.

A benchmark that measures wrong results is worthless: every contestant is compared, row by row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bench.workload import Key, Workload, WorkloadEvent, sent_at_of
from storemirror.errors import StoreMirrorError
from storemirror.sql.postgres.connection import Database, sql

#: Differences that the message names; the others are counted.
_NAMED = 3


class ResultsWrong(StoreMirrorError):
    """The tables are not what the workload says; the figures are worth nothing."""


async def verify_messages(
    database: Database, workload: Workload, table: sql.Composable, *, added: str = ""
) -> None:
    """
    Compare every message's row with the newest event.

    Args:
        database: holds the table.
        workload: what was applied, in whatever order.
        table: with the columns of `dm_message`.
        added: rows whose message id begins so were there before, and are left out.

    Raises:
        ResultsWrong: the message names the first keys that differ.
    """
    rows = await database.fetch(
        sql.SQL(
            "SELECT conversation_id, message_id, row_state, last_event_version, last_event_digest,"
            " sender_id, body, sent_at, edited_at, attachments FROM {}"
        ).format(table)
    )
    found = {
        (row[0], row[1]): tuple(row[2:])
        for row in rows
        if not added or not row[1].startswith(added)
    }
    expected = {key: _contents(event) for key, event in workload.newest().items()}
    _compare("dm_message", expected, found)


def _contents(event: WorkloadEvent) -> tuple[Any, ...]:
    document = event.document or {}
    names = ("senderId", "body", "sentAt", "editedAt", "attachments")
    state = "tombstone" if event.document is None else "live"
    return (
        state,
        event.change.version,
        event.change.digest,
        *(document.get(name) for name in names),
    )


async def verify_audit(database: Database, workload: Workload, *, added: str = "") -> None:
    """Compare the audit with the distinct events; see `verify_messages`."""
    rows = await database.fetch("SELECT last_event_id FROM storemirror.dm_message_audit")
    found = [row[0] for row in rows if not added or not row[0].startswith(added)]
    if len(set(found)) != len(found) or set(found) != workload.distinct_ids():
        raise ResultsWrong(
            f"the audit holds {len(found)} rows, and there were {len(workload.distinct_ids())}"
            " distinct events"
        )


async def verify_rollups(database: Database, workload: Workload, *, count_before: int = 0) -> None:
    """
    Compare each conversation's count and latest message with its live messages.

    Args:
        database: holds the mirror.
        workload: what was applied.
        count_before: live messages that each conversation held before, all sent earlier.
    """
    live: defaultdict[str, list[WorkloadEvent]] = defaultdict(list)
    for key, event in workload.newest().items():
        live[key[0]].extend([event] if event.document is not None else [])
    rows = await database.fetch(
        "SELECT conversation_id, message_count, last_message_id, last_message_at,"
        " last_message_preview FROM storemirror.dm_conversation"
    )
    found = {row[0]: row[1:] for row in rows}
    expected: dict[str, tuple[Any, ...]] = {}
    for conversation_id, events in live.items():
        if not events:
            continue
        last = max(events, key=lambda event: (sent_at_of(event), event.key[1]))
        document = last.document or {}
        expected[conversation_id] = (
            len(events) + count_before,
            last.key[1],
            document["sentAt"],
            str(document["body"])[:140],
        )
    _compare("dm_conversation", expected, {k: v for k, v in found.items() if k in expected})
    if set(found) != set(live):
        raise ResultsWrong(f"{len(found)} conversations, and {len(live)} have messages")


async def verify_mirror(
    database: Database, workload: Workload, *, added: str = "", count_before: int = 0
) -> None:
    """Compare messages, audit and roll-ups; see the functions above."""
    table = sql.Identifier("storemirror", "dm_message")
    await verify_messages(database, workload, table, added=added)
    await verify_audit(database, workload, added=added)
    await verify_rollups(database, workload, count_before=count_before)


def _compare(
    table: str, expected: Mapping[Any, Sequence[Any]], found: Mapping[Any, Sequence[Any]]
) -> None:
    differing: list[Key | str] = [
        key
        for key in expected.keys() | found.keys()
        if key not in found or key not in expected or tuple(expected[key]) != tuple(found[key])
    ]
    if differing:
        raise ResultsWrong(
            f"{table}: {len(differing)} of {len(expected)} rows are not what the workload says,"
            f" {sorted(map(str, differing))[:_NAMED]} among them"
        )
