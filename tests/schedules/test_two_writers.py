"""
Schedules on a database: two writers, one of them held inside its transaction or killed there.

A small run of what `make exhaustive` does for minutes; and classic mistakes, planted in the
rendered procedures, seen to be found by the schedules that find them on the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from storemirror.clock import SystemClock
from storemirror.sql.postgres.rendering import Rendering
from tests.contract.sql.documents import Documents
from tests.exhaustive.database import Session
from tests.exhaustive.database_orders import run_database_orders
from tests.exhaustive.documents import built_in_model
from tests.exhaustive.orders import ENTITIES
from tests.exhaustive.postgres import PostgresSession
from tests.exhaustive.running import database_world, problem_of, run_schedules
from tests.faults.sql.planted import FAULTS
from tests.schedules.conftest import Sessions
from tests.schedules.known import KNOWN
from tests.support.mirrors import SCHEMA

_STUB = f"""
            INSERT INTO {SCHEMA}.dm_conversation (conversation_id, row_state)
            SELECT DISTINCT x.conversation_id, 'stub'
            FROM jsonb_to_recordset(p_events) AS x (conversation_id text)
            ON CONFLICT DO NOTHING;"""
_LOCKED = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.locked(p_events jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM {SCHEMA}.lock_rows_of_dm_message(p_events);
    RETURN p_events;
END;
$$;
"""


def rendered() -> str:
    """Give PostgreSQL's procedures as they are installed."""
    return Rendering(built_in_model(), schema_name=SCHEMA, procedures={}).procedures_sql()


def between(text: str, start: str, end: str) -> str:
    """Give the text from one mark up to another."""
    first = text.index(start)
    return text[first : text.index(end, first)]


def rollup_in_the_write() -> tuple[str, str]:
    """Make one statement of the write of messages and of their roll-up."""
    body = between(
        rendered(), f'        INSERT INTO "{SCHEMA}"."dm_message" AS d', "        IF v_pos"
    )
    write = between(body, "        INSERT", "        -- Audit")
    audit = between(body, "        -- Audit", "        -- Roll up")
    rollup = body[body.index("        UPDATE ") :]
    written = write.rstrip().removesuffix(";")
    return body, f"{audit}        WITH written AS (\n{written}\n        RETURNING 1)\n{rollup}"


def classified_before_the_lock() -> tuple[tuple[str, str], ...]:
    """Read the rows of messages in the statement that waits for their locks."""
    text = rendered()
    head = text[: text.index("\n")]
    lock = f'    PERFORM "{SCHEMA}"."lock_rows_of_dm_message"(p_events);\n'
    after = text[text.index(lock) :]
    source = between(after, "                FROM ROWS FROM (jsonb_to_recordset(v_pending)", "obs")
    locked = source.replace("(v_pending)", f"({SCHEMA}.locked(v_pending))")
    return ((head, _LOCKED + head), (lock, ""), (source, locked))


def stub_inside() -> tuple[str, str]:
    """Make missing parents where their locks are taken."""
    refused = between(rendered(), "        RAISE EXCEPTION '% of the parents in DmC", "    END IF")
    return refused, f"{_STUB}\n"


#: Name in KNOWN -> the same mistake's name in FAULTS.
SHARED = {
    "equal-version-applied-twice": "an equal version is applied twice",
    "tombstone-dropped": "a tombstone is dropped",
    "count-added-twice": "a count is added twice",
    "horizon-forgotten": "an expired event is applied",
}
#: Dialect -> name in KNOWN -> what is replaced in the rendered procedures, and by what.
PLANTED: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "postgres": {
        "rollup-in-the-statement-of-the-write": (rollup_in_the_write(),),
        "classified-before-the-lock": classified_before_the_lock(),
        "horizon-without-skew": (("v_newest + interval '5 minutes'", "v_newest"),),
    },
    "sqlserver": {
        "classified-before-the-lock": (
            ("WITH (UPDLOCK, ROWLOCK, FORCESEEK)", "WITH (ROWLOCK, FORCESEEK)"),
        ),
        "horizon-without-skew": (("DATEADD(MINUTE, 5, @Newest)", "@Newest"),),
    },
}


def changes_of(fault: str, dialect: str) -> tuple[tuple[str, str], ...]:
    """Give what is replaced for a fault of KNOWN; skips what a dialect cannot get wrong."""
    if fault in SHARED:
        return (FAULTS[dialect][SHARED[fault]],)
    if fault not in PLANTED[dialect]:
        pytest.skip("needs SQL Server to write and to read in one statement, which it cannot")
    return PLANTED[dialect][fault]


def test_random_schedules_of_two_writers_end_as_firestore_did(sessions: Sessions) -> None:
    """Each outcome is the rule's, and every row, roll-up, child and audit row the model's."""
    session = sessions.make()
    assert run_schedules(1, 0, 25, lambda: database_world(session)).failure is None


def test_known_schedules_are_sound_on_the_real_procedures(sessions: Sessions) -> None:
    """Else the mistakes below would seem to be found."""
    session = sessions.make()
    found = {name: problem_of(one, lambda: database_world(session)) for name, one in KNOWN.items()}
    assert {name: problem for name, problem in found.items() if problem} == {}


@pytest.mark.parametrize("fault", [*SHARED, *PLANTED["postgres"]])
def test_a_mistake_planted_in_the_procedures_is_found(
    fault: str, sessions: Sessions, dialect: str
) -> None:
    """By the schedule that finds it on the model."""
    session = sessions.make(*changes_of(fault, dialect))
    assert problem_of(KNOWN[fault], lambda: database_world(session)) is not None


@pytest.mark.parametrize("entity", ENTITIES)
def test_every_event_twice_in_every_order_ends_alike_on_a_database(
    entity: str, sessions: Sessions
) -> None:
    """All orders and splits of two changes, and some of four; more of them by command."""
    session = sessions.make()
    assert run_database_orders(session, entity, "WD", seed=1, first=0) == 48
    assert run_database_orders(session, entity, "WDWD", seed=1, first=0, count=60) == 60


async def newest_body(session: PostgresSession) -> object:
    """
    Let a third party make a stub while one writer needs it, then a second writer come.

    Returns:
        The message's text: "newer" or "older".
    """
    docs = Documents(session.model, SystemClock().now_us() - 3_600_000_000)
    older, newer = docs.message("c", "m", 1, body="older"), docs.message("c", "m", 2, body="newer")
    gates = session.gates
    async with gates.closed("write"):
        async with session.installed.database.transaction() as conn:
            await conn.execute(
                "INSERT INTO storemirror.dm_conversation (conversation_id, row_state)"
                " VALUES ('c', 'stub')"
            )
            first = asyncio.create_task(session.gated.apply([older]))
            await gates.wait_for_blocked(first)
        assert await gates.wait_for_gated(first)
        second = asyncio.create_task(session.other.apply([newer]))
        await gates.wait_for_other(second)
    await asyncio.gather(first, second)
    row = await session.other.row(session.model["DmMessage"], ("c", "m"))
    assert row is not None
    return row.columns["body"]


def on_postgresql(session: Session) -> PostgresSession:
    """Give the session; skips in a dialect whose writers lock the gap where a row is absent."""
    if not isinstance(session, PostgresSession):
        pytest.skip("needs SQL Server to let another make a row in a gap that a writer has locked")
    return session


def test_stubs_of_a_transaction_of_their_own_are_locked_afterwards(sessions: Sessions) -> None:
    """Whoever made the stub: the writer holds its lock before it reads what is under it."""
    session = on_postgresql(sessions.make())
    assert session.run(newest_body(session)) == "newer"


def test_a_stub_made_inside_the_locking_transaction_loses_an_update(sessions: Sessions) -> None:
    """What another one has made meanwhile is then neither made nor locked: the older text wins."""
    session = on_postgresql(sessions.make())
    session.run(session.installed.plant(stub_inside()))
    assert session.run(newest_body(session)) == "older"
