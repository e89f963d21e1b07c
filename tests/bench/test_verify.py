"""A benchmark that measures wrong results is seen to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bench.apply import measure, writer
from bench.databases import BenchMirror, BenchServer, bench_server
from bench.real_writer import prepare_writer
from bench.verify import ResultsWrong, verify_mirror
from bench.workload import Workload, WorkloadShape, make_workload
from storemirror.apply.port import WriterSettings
from storemirror.clock import SystemClock
from storemirror.sql.postgres.server import EmbeddedServer

pytestmark = pytest.mark.postgres

SETTINGS = WriterSettings(is_mirror_on=True)

DAMAGES = {
    "a row's text": "UPDATE storemirror.dm_message SET body = body || '!' WHERE message_id ="
    " (SELECT max(message_id) FROM storemirror.dm_message WHERE row_state = 'live')",
    "a row that is gone": "DELETE FROM storemirror.dm_message WHERE message_id ="
    " (SELECT max(message_id) FROM storemirror.dm_message)",
    "a tombstone that lives": "UPDATE storemirror.dm_message SET row_state = 'live',"
    " sender_id = 'u', sent_at = now() WHERE row_state = 'tombstone'",
    "a count": "UPDATE storemirror.dm_conversation SET message_count = message_count + 1"
    " WHERE message_count > 0",
    "an audit row": "DELETE FROM storemirror.dm_message_audit WHERE last_event_id ="
    " (SELECT max(last_event_id) FROM storemirror.dm_message_audit)",
}


@pytest.fixture(scope="module")
def workload() -> Workload:
    """A few events, with everything in them."""
    return make_workload(WorkloadShape(event_count=600, conversation_count=7, seed=3))


@pytest.fixture
async def server(postgres: EmbeddedServer) -> AsyncIterator[BenchServer]:
    """The tests' server, as the benchmarks use theirs."""
    async with bench_server(postgres, is_durable=False) as made:
        yield made


@pytest.fixture
async def applied(server: BenchServer, workload: Workload) -> AsyncIterator[BenchMirror]:
    """A mirror that the real writer has applied the workload to."""
    async with server.new_mirror() as mirror:
        await (await prepare_writer(mirror, workload, SystemClock(), SETTINGS))()
        yield mirror


def test_a_workload_has_what_it_says() -> None:
    """The figures are only worth something for this mixture."""
    made = make_workload(WorkloadShape(event_count=10_000, conversation_count=100))
    events = made.events
    versions: dict[object, int] = {}
    late_count = 0
    for event in events:
        late_count += event.change.version < versions.get("newest", 0)
        versions["newest"] = max(versions.get("newest", 0), event.change.version)
    assert len(events) == 10_000
    assert len(made.distinct_ids()) == 8_000
    assert (
        sum(event.document is None for event in {e.change.event_id: e for e in events}.values())
        == 500
    )
    assert late_count > 2_000
    assert len({event.key[0] for event in events}) == 100


async def test_what_the_writer_applied_is_verified(
    applied: BenchMirror, workload: Workload
) -> None:
    """Rows, audit and roll-ups are what the documents say."""
    await verify_mirror(applied.database, workload)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_wrong_result_is_no_figure(
    damage: str, applied: BenchMirror, workload: Workload
) -> None:
    """Else a writer that skips work would seem fast."""
    async with applied.database.connection() as conn:
        await conn.execute(DAMAGES[damage].encode())
    with pytest.raises(ResultsWrong):
        await verify_mirror(applied.database, workload)


async def test_a_contestant_is_verified_in_each_round(
    server: BenchServer, workload: Workload
) -> None:
    """A contestant that left out events raises, and gives no figure."""
    short = Workload(workload.events[: len(workload.events) // 2])
    contestant = writer(short, SystemClock(), SETTINGS)
    wrong = type(contestant)(
        name="short",
        prepare=contestant.prepare,
        verify=lambda mirror, _: verify_mirror(mirror.database, workload),
        workload=short,
    )
    with pytest.raises(ResultsWrong):
        await measure(server, [wrong], SystemClock(), round_count=1)
