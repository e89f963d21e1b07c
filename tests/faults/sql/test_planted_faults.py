"""
Each rule of the procedures is seen to be guarded: without it, a small schedule ends otherwise.

A comparison that nobody has seen fail proves nothing; the one used here is the one that every test
of orders and concurrency ends with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest

from storemirror.clock import SystemClock
from storemirror.event.change import Origin
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents
from tests.support.mirrors import MirrorUnderTest, assert_equal, installed_mirror
from tests.support.planted import plant
from tests.support.reference import Reference

pytestmark = pytest.mark.postgres

#: Name -> what is replaced in the rendered procedures, and by what.
FAULTS: dict[str, tuple[str, str]] = {
    "an equal version is applied twice": (
        "WHEN d.last_event_version < e._version THEN 'applied'",
        "WHEN d.last_event_version <= e._version THEN 'applied'",
    ),
    "an older version wins": (
        "WHEN d.last_event_version < e._version THEN 'applied'",
        "WHEN d.last_event_version <> e._version THEN 'applied'",
    ),
    "the oldest of a batch wins": (
        "ORDER BY a._version DESC, a._origin IN",
        "ORDER BY a._version, a._origin IN",
    ),
    "a dual write comes before an observation": (
        "a._origin IN ('dual-write', 'repair'), a._n",
        "a._origin NOT IN ('dual-write', 'repair'), a._n",
    ),
    "a tombstone is dropped": (
        'LEFT JOIN "storemirror"."dm_message" AS d\n                    ON d.',
        'LEFT JOIN "storemirror"."dm_message" AS d\n'
        "                    ON d.row_state <> 'tombstone' AND d.",
    ),
    "a tombstone keeps its contents": (
        '"body" = EXCLUDED."body"',
        '"body" = COALESCE(EXCLUDED."body", d."body")',
    ),
    "a count is added twice": ("+ c._delta", "+ 2 * c._delta"),
    "a deletion is not counted": (
        "sum(CASE WHEN p_is_deleted THEN 0 ELSE 1 END - k._was_live::integer)",
        "sum(CASE WHEN p_is_deleted OR k._was_live THEN 0 ELSE 1 END)",
    ),
    "a repair counts by delta": (
        "bool_or(k.outcome = 'repaired') AS _is_recounted",
        "false AS _is_recounted",
    ),
    "a stub is no row": (
        "WHEN d.row_state IS NULL OR d.row_state = 'stub' THEN",
        "WHEN d.row_state = 'stub' THEN 'stale' WHEN d.row_state IS NULL THEN",
    ),
    "a stub's aggregates are lost": (
        'lossy_fields = EXCLUDED.lossy_fields,\n            "title"',
        'lossy_fields = EXCLUDED.lossy_fields, message_count = 0,\n            "title"',
    ),
    "the audit is skipped": (
        "ON CONFLICT DO NOTHING;\n\n        -- Roll up",
        "ON CONFLICT DO NOTHING;\n"
        "        DELETE FROM storemirror.dm_message_audit WHERE p_is_deleted;\n\n"
        "        -- Roll up",
    ),
    "only what is applied is audited": (
        "last_event_type text, last_event_time timestamptz\n        )\n        ON CONFLICT",
        "last_event_type text, last_event_time timestamptz\n        )\n"
        "        WHERE 'stale' <> ALL (v_outcomes)\n        ON CONFLICT",
    ),
    "the latest is not looked up on a deletion": (
        "(c._delta <> 0 OR c._is_recounted",
        "NOT p_is_deleted AND (c._delta <> 0 OR c._is_recounted",
    ),
    "the latest may be a tombstone": (
        "AND m.row_state = 'live'\n            ORDER BY m.\"sent_at\" DESC",
        "AND m.row_state <> 'stub'\n            ORDER BY m.\"sent_at\" DESC NULLS LAST",
    ),
    "ties of the latest go to the lowest id": (
        'ORDER BY m."sent_at" DESC, m."message_id" DESC',
        'ORDER BY m."sent_at" DESC, m."message_id"',
    ),
    "the latest of an unchanged count is kept": (
        "\n                OR ROW(",
        "\n                AND ROW(",
    ),
    "child rows are not removed": (
        "WHERE e.outcome IN ('applied', 'repaired')\n            AND c.",
        "WHERE false\n            AND c.",
    ),
    "child rows are not changed": (
        '"last_read_at" = EXCLUDED."last_read_at"',
        '"last_read_at" = c."last_read_at"',
    ),
    "what waits for a round is forgotten": (
        "WHERE r.outcome IS NULL;",
        "WHERE r.outcome IS NULL AND false;",
    ),
    "an expired event is applied": (
        "CASE WHEN e.observed_at <= v_horizon THEN 'expired' ELSE 'applied' END",
        "'applied'",
    ),
}


def schedule(docs: Documents) -> list[Sequence[RowEvent]]:
    """A few documents, in an order that needs every rule."""
    t = docs.base_us
    return [
        [docs.message("c", "m1", 10), docs.message("c", "m2", 20), docs.message("c", "m0", 20)],
        [docs.message("c", "m1", 10), docs.message("c", "m1", 5, body="older")],
        [docs.conversation("c", 10, participants={"a": t, "b": None})],
        [docs.conversation("c", 15, participants={"a": t + 1, "e": None})],
        [docs.gone("DmMessage", ("c", "m2"), 20)],
        [docs.message("c", "m2", 20), docs.message("c", "m2", 15)],
        [docs.message("c", "m1", 30, sent=50), docs.message("c", "m1", 40, sent=2)],
        [docs.gone("DmConversation", ("c",), 15), docs.gone("DmMessage", ("d", "m"), 9)],
        [docs.message("d", "m", 9, origin=Origin.DUAL_WRITE), docs.message("c", "m0", 60)],
        [
            docs.message("c", "x", 70, body="sent", origin=Origin.DUAL_WRITE),
            docs.message("c", "x", 70, body="stored"),
            docs.message("c", "x", 70, body="repaired", origin=Origin.REPAIR),
        ],
        [docs.follow("late", "u", 1, observed=-10), docs.follow("a", "b", 1)],
    ]


async def is_found(under_test: MirrorUnderTest) -> bool:
    """Run the schedule, and tell whether it ends otherwise than the reference."""
    docs = Documents(under_test.model, SystemClock().now_us() - 3_600_000_000)
    reference = Reference(under_test.model, horizon_us={"FollowEdge": docs.base_us})
    await under_test.execute(
        "INSERT INTO storemirror.purge_horizon"
        " VALUES ('FollowEdge', timestamptz 'epoch' + %s * interval '1 microsecond')",
        (docs.base_us,),
    )
    for batch in schedule(docs):
        if await differs(under_test, reference, batch):
            return True
    # A damage for repairs to mend.
    await under_test.execute("UPDATE storemirror.dm_conversation SET message_count = 50")
    repairs = [
        docs.message("c", "m1", 40, sent=2, origin=Origin.REPAIR),
        docs.gone("DmMessage", ("d", "m"), 9, origin=Origin.REPAIR),
    ]
    return await differs(under_test, reference, repairs)


async def differs(
    under_test: MirrorUnderTest, reference: Reference, batch: Sequence[RowEvent]
) -> bool:
    """Apply a batch on both sides, and tell whether outcomes or rows differ."""
    expected = reference.apply(batch)
    try:
        assert await under_test.mirror.apply(batch) == expected
        await assert_equal(under_test, reference)
    except (AssertionError, ValueError):
        # ValueError: an outcome that there is not.
        return True
    return False


async def test_the_schedule_ends_as_the_reference_without_a_fault(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Else every fault below would seem to be found."""
    async with installed_mirror(load_model(), await new_database()) as under_test:
        assert not await is_found(under_test)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_is_found(
    fault: str, new_database: Callable[[], Awaitable[str]]
) -> None:
    """The comparison sees it."""
    async with installed_mirror(load_model(), await new_database()) as under_test:
        await plant(under_test, FAULTS[fault])
        assert await is_found(under_test)
