"""
*scale* and *hot*: the writer with ten times the rows in the tables, and on one conversation alone.

Nothing in the path may grow with the tables, nor with one conversation.
"""

from __future__ import annotations

from bench.apply import Contestant, Measured, measure, writer
from bench.databases import BenchServer
from bench.real_writer import prepare_writer
from bench.verify import verify_mirror
from bench.workload import Workload, WorkloadShape, make_workload
from storemirror.apply.port import WriterSettings
from storemirror.clock import Clock
from storemirror.sql.postgres.connection import Database

#: Message ids and event ids of the rows that are there before begin so.
ADDED = "before-"

_FILL = (
    "INSERT INTO storemirror.dm_conversation (conversation_id, row_state, message_count)"
    " SELECT c, 'stub', %(count)s FROM unnest(%(ids)s::text[]) AS c",
    "INSERT INTO storemirror.dm_message (conversation_id, message_id, row_state, last_event_id,"
    " last_event_version, mapping_revision, sender_id, body, sent_at)"
    " SELECT c, 'before-' || n, 'live', 'before-' || n, 2, 1, 'user-' || n,"
    " repeat('as long as a message is ', 3), timestamptz '2020-01-01' + n * interval '1 minute'"
    " FROM unnest(%(ids)s::text[]) AS c, generate_series(1, %(count)s) AS n",
    "INSERT INTO storemirror.dm_message_audit SELECT c, 'before-' || n, 2, 'before-' || n,"
    " 'storemirror.document.written.v1', timestamptz '2020-01-01'"
    " FROM unnest(%(ids)s::text[]) AS c, generate_series(1, %(count)s) AS n",
    "VACUUM ANALYZE",
)


async def measure_scale(
    server: BenchServer,
    workload: Workload,
    clock: Clock,
    settings: WriterSettings,
    *,
    round_count: int,
) -> dict[str, Measured]:
    """
    Measure the writer with as many rows in the tables as it writes ("1x"), and ten times as many.

    Raises:
        ResultsWrong: the tables are not what the workload says.
    """
    newest = workload.newest()
    ids = sorted({key[0] for key in newest})
    contestants = []
    for factor in (1, 10):
        count = max(1, factor * len(newest) // len(ids))
        template = await _filled(server, ids, count)
        contestants.append(_filled_writer(f"{factor}x", workload, clock, settings, template, count))
    measured = await measure(server, contestants, clock, round_count=round_count)
    for contestant in contestants:
        await server.drop_database(contestant.template)
    return measured


def _filled_writer(
    name: str,
    workload: Workload,
    clock: Clock,
    settings: WriterSettings,
    template: str,
    count: int,
) -> Contestant:
    return Contestant(
        name=name,
        prepare=lambda mirror, made: prepare_writer(mirror, made, clock, settings),
        verify=lambda mirror, made: verify_mirror(
            mirror.database, made, added=ADDED, count_before=count
        ),
        workload=workload,
        template=template,
    )


async def _filled(server: BenchServer, ids: list[str], count: int) -> str:
    """Make a database whose conversations hold `count` messages each."""
    name = await server.create_database()
    async with server.mirror(name) as mirror:
        await fill(mirror.database, ids, count)
    return name


async def fill(database: Database, ids: list[str], count: int) -> None:
    """Put `count` messages into each conversation, past the procedures."""
    async with database.connection() as conn:
        for statement in _FILL:
            is_maintenance = statement.startswith("VACUUM")
            await conn.execute(statement, None if is_maintenance else {"ids": ids, "count": count})


async def measure_hot(
    server: BenchServer,
    shape: WorkloadShape,
    clock: Clock,
    settings: WriterSettings,
    *,
    round_count: int,
) -> dict[str, Measured]:
    """
    Measure one and two writers on many conversations ("spread"), and on one ("hot").

    Raises:
        ResultsWrong: the tables are not what the workload says.
    """
    spread = make_workload(shape)
    hot = make_workload(
        WorkloadShape(event_count=shape.event_count, conversation_count=1, seed=shape.seed)
    )
    contestants = [
        writer(made, clock, settings, name=f"{name}_{count}", writer_count=count)
        for name, made in (("spread", spread), ("hot", hot))
        for count in (1, 2)
    ]
    return await measure(server, contestants, clock, round_count=round_count)
