"""Old tombstones go, and what arrives afterwards about them is not believed."""

from __future__ import annotations

import contextlib

import pytest

from storemirror.cli.purge import purge_entity
from storemirror.clock import SystemClock
from storemirror.errors import StoreMirrorError
from storemirror.event.change import Origin, Outcome, RowState
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed

DAY_S = 86_400.0
HOUR_S = 3_600.0
FOLLOW = ("FollowEdge", ("a", "b"))


async def state(sql: Installed, entity: str, *key: str) -> RowState | None:
    """Give the state of a row; None where there is none."""
    row = await sql.mirror.row(sql.model[entity], key)
    return None if row is None else row.state


async def purged(sql: Installed, entity: str, *, max_count: int = 100) -> int:
    """Purge what was applied over an hour ago."""
    return await sql.mirror.purge(sql.model[entity], older_than_s=HOUR_S, max_count=max_count)


async def test_only_old_tombstones_are_purged(sql: Installed, docs: Documents) -> None:
    """A live row never is, however old."""
    await sql.mirror.apply([docs.follow("a", "b", 1), docs.follow("a", "live", 1)])
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1)])
    await sql.age(sql.model["FollowEdge"], DAY_S)
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "young"), 1)])
    assert await purged(sql, "FollowEdge") == 1
    assert await state(sql, "FollowEdge", "a", "b") is None
    assert await state(sql, "FollowEdge", "a", "live") is RowState.LIVE
    assert await state(sql, "FollowEdge", "a", "young") is RowState.TOMBSTONE


async def test_after_a_purge_late_events_are_expired(sql: Installed, docs: Documents) -> None:
    """A write from before the deletion would else bring the document back for good."""
    write = docs.follow("a", "b", 1)
    await sql.mirror.apply([write])
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1)])
    # Rows are aged past `base_us`, so that the horizon comes to lie after the events.
    await sql.age(sql.model["FollowEdge"], HOUR_S - 60)
    assert await sql.mirror.purge(sql.model["FollowEdge"], older_than_s=700, max_count=9) == 1
    assert await sql.mirror.apply([write]) == [Outcome.EXPIRED]
    assert await state(sql, "FollowEdge", "a", "b") in (None, RowState.STUB)
    # An expired event leaves nothing behind that would make the next one acceptable.
    assert await sql.mirror.apply([write, write]) == [Outcome.EXPIRED, Outcome.EXPIRED]


async def test_what_is_read_again_after_a_purge_is_applied(sql: Installed, docs: Documents) -> None:
    """The document's write may be older than the horizon; that it was seen later counts."""
    await sql.set_horizon(sql.model["FollowEdge"], docs.base_us + 10)
    reread = docs.follow("a", "b", 1, origin=Origin.REREAD, observed=11)
    assert await sql.mirror.apply([docs.follow("a", "b", 1)]) == [Outcome.EXPIRED]
    assert await sql.mirror.apply([reread]) == [Outcome.APPLIED]
    assert await sql.mirror.apply([docs.follow("a", "b", 1)]) == [Outcome.DUPLICATE]


async def test_the_horizon_lies_past_every_version_that_was_purged(
    sql: Installed, docs: Documents
) -> None:
    """A version may lie up to 5 minutes after its row was applied."""
    now_us = SystemClock().now_us()
    ahead = now_us - docs.base_us + 240_000_000
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), ahead)])
    await sql.age(sql.model["FollowEdge"], DAY_S)
    await purged(sql, "FollowEdge")
    horizon_us = await sql.horizon_us(sql.model["FollowEdge"])
    assert horizon_us is not None
    applied_us = SystemClock().now_us() - int(DAY_S * 1e6)
    assert 299_000_000 < horizon_us - applied_us <= 300_000_000 + 1
    # and so before what is read again from now on, even by a clock that is 5 minutes slow.
    assert horizon_us < now_us - 300_000_000


async def test_the_horizon_never_goes_back(sql: Installed, docs: Documents) -> None:
    """A later purge of older rows must not forget the earlier one."""
    await sql.set_horizon(sql.model["FollowEdge"], docs.base_us)
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1, observed=99)])
    await sql.age(sql.model["FollowEdge"], DAY_S)
    assert await purged(sql, "FollowEdge") == 1
    assert await sql.horizon_us(sql.model["FollowEdge"]) == docs.base_us


async def test_a_purge_without_anything_to_purge_leaves_the_horizon(
    sql: Installed, docs: Documents
) -> None:
    """Else every late event would cost a read of Firestore for nothing."""
    await sql.mirror.apply([docs.follow("a", "b", 1)])
    await sql.age(sql.model["FollowEdge"], DAY_S)
    assert await purged(sql, "FollowEdge") == 0
    assert await sql.horizon_us(sql.model["FollowEdge"]) is None


async def test_a_purge_beside_a_writer_raises_the_horizon_and_removes_nothing(
    sql: Installed, docs: Documents
) -> None:
    """The writer may have read the old horizon; the rows go next time."""
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1)])
    await sql.age(sql.model["FollowEdge"], DAY_S)
    async with sql.writing():
        assert await purged(sql, "FollowEdge") == 0
        assert await state(sql, "FollowEdge", "a", "b") is RowState.TOMBSTONE
        assert await sql.horizon_us(sql.model["FollowEdge"]) is not None
    assert await purged(sql, "FollowEdge") == 1


async def test_a_conversation_with_messages_is_never_purged(
    sql: Installed, docs: Documents
) -> None:
    """Its aggregates and its lock cover them, tombstones among them."""
    await sql.mirror.apply([docs.conversation(c, 1) for c in ("full", "dead", "empty")])
    await sql.mirror.apply([docs.message("full", "m", 1), docs.message("dead", "m", 1)])
    await sql.mirror.apply([docs.message("stub", "m", 1)])
    await sql.mirror.apply([docs.gone("DmMessage", ("dead", "m"), 1)])
    await sql.mirror.apply(
        [docs.gone("DmConversation", (c,), 1) for c in ("full", "dead", "empty")]
    )
    await sql.age(sql.model["DmConversation"], DAY_S)
    await sql.age(sql.model["DmMessage"], DAY_S)
    assert await purged(sql, "DmConversation") == 1
    assert await state(sql, "DmConversation", "empty") is None
    assert await state(sql, "DmConversation", "full") is RowState.TOMBSTONE
    assert await state(sql, "DmConversation", "stub") is RowState.STUB
    # Once the message's tombstone is gone, so may its conversation's.
    assert await purged(sql, "DmMessage") == 1
    assert await purged(sql, "DmConversation") == 1
    assert await state(sql, "DmConversation", "dead") is None
    row = await sql.mirror.row(sql.model["DmConversation"], ("full",))
    assert row is not None
    assert row.columns["messageCount"] == 1


async def test_childless_stubs_are_purged(sql: Installed, docs: Documents) -> None:
    """An expired event, or a message that never came, leaves one."""
    await sql.make_stubs(sql.model["DmConversation"], [("c",), ("d",)])
    await sql.mirror.apply([docs.message("d", "m", 1)])
    await sql.age(sql.model["DmConversation"], DAY_S)
    assert await purged(sql, "DmConversation") == 1
    assert await state(sql, "DmConversation", "c") is None


async def test_a_message_to_a_purged_conversation_makes_a_stub(
    sql: Installed, docs: Documents
) -> None:
    """The message is no less a message."""
    await sql.mirror.apply([docs.gone("DmConversation", ("c",), 1)])
    await sql.age(sql.model["DmConversation"], DAY_S)
    assert await purged(sql, "DmConversation") == 1
    assert await sql.mirror.apply([docs.message("c", "m", 1)]) == [Outcome.APPLIED]
    assert await state(sql, "DmConversation", "c") is RowState.STUB


async def test_a_purge_takes_about_as_many_as_it_was_told(sql: Installed, docs: Documents) -> None:
    """So that no writer waits long."""
    for number in range(5):
        await sql.mirror.apply([docs.gone("FollowEdge", ("a", str(number)), 1)])
    await sql.age(sql.model["FollowEdge"], DAY_S)
    counts = [await purged(sql, "FollowEdge", max_count=2) for _ in range(5)]
    assert sum(counts) == 5
    assert max(counts) < 5


async def test_what_can_be_purged_is_counted_as_it_is_purged(
    sql: Installed, docs: Documents
) -> None:
    """A count of 0 is how a caller knows that it is done, and not only held up by a writer."""
    await sql.mirror.apply([docs.conversation(c, 1) for c in ("full", "empty")])
    await sql.mirror.apply([docs.message("full", m, 1) for m in ("m1", "m2", "m3")])
    await sql.mirror.apply([docs.gone("DmMessage", ("full", m), 1) for m in ("m1", "m2")])
    await sql.mirror.apply([docs.gone("DmConversation", (c,), 1) for c in ("full", "empty")])
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "young"), 1)])
    for name in ("DmConversation", "DmMessage"):
        await sql.age(sql.model[name], DAY_S)

    async def counts() -> dict[str, int]:
        return {
            e.name: await sql.mirror.purgeable_count(e, older_than_s=HOUR_S, max_count=9)
            for e in sql.model
        }

    expected = {"DmConversation": 1, "DmMessage": 2, "FollowEdge": 0, "UserBlock": 0}
    assert await counts() == expected
    messages = sql.model["DmMessage"]
    assert await sql.mirror.purgeable_count(messages, older_than_s=HOUR_S, max_count=1) == 1
    assert {e.name: await purged(sql, e.name) for e in sql.model} == expected
    assert set((await counts()).values()) == {0}


class WriterLeavesClock(SystemClock):
    """Ends a writer's transaction when somebody waits for it."""

    def __init__(self, writer: contextlib.AsyncExitStack) -> None:
        self._writer = writer
        self.sleep_count = 0

    async def sleep(self, duration_s: float) -> None:
        self.sleep_count += 1
        await self._writer.aclose()


async def test_a_purge_command_outlasts_a_writer(sql: Installed, docs: Documents) -> None:
    """On a busy mirror the first try meets a batch; that is no reason to leave tombstones."""
    follow = sql.model["FollowEdge"]
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1)])
    await sql.age(follow, DAY_S)
    async with contextlib.AsyncExitStack() as writer:
        await writer.enter_async_context(sql.writing())
        clock = WriterLeavesClock(writer)
        until_s = clock.monotonic_s() + 60
        gone = await purge_entity(sql.mirror, follow, clock, age_s=HOUR_S, until_s=until_s)
    assert (gone, clock.sleep_count) == (1, 1)
    assert await purge_entity(sql.mirror, follow, clock, age_s=HOUR_S, until_s=0.0) == 0


@pytest.mark.parametrize("older_than_s", [0, 599.999])
async def test_a_purge_of_what_is_young_is_refused(
    older_than_s: float, sql: Installed, docs: Documents
) -> None:
    """The horizon would lie after documents that are being read at this moment."""
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1)])
    with pytest.raises(StoreMirrorError, match="at least 10 minutes"):
        await sql.mirror.purge(sql.model["FollowEdge"], older_than_s=older_than_s, max_count=10)
    assert await sql.horizon_us(sql.model["FollowEdge"]) is None
    assert await state(sql, "FollowEdge", "a", "b") is RowState.TOMBSTONE
