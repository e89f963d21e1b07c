"""Lag is not a mismatch, and what was not compared is not called clean."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.check.compare import MismatchKind
from storemirror.check.result import CheckSettings
from storemirror.check.run import run_check
from storemirror.clock import datetime_from_us
from storemirror.errors import CheckIncomplete, UsageRefused
from tests.integration.check.world import World
from tests.unit.check.samples import MOMENT

pytestmark = pytest.mark.postgres

EDGE = "users/u1/following/u2"
OTHER = "users/u1/following/u3"


class Meanwhile:
    """What the application does while a check runs, one step each time the outbox is asked for.

    The check asks once before it scans, and once before each further look.
    """

    def __init__(
        self, world: World, *steps: Callable[[], Awaitable[object]], catches_up: bool = False
    ) -> None:
        self.world = world
        self.steps = list(steps)
        self.asked_count = 0
        self.catches_up = catches_up

    async def __call__(self, moment_us: int) -> int:
        """Tell the truth about the outbox, then let the application take its next step."""
        if self.catches_up:
            await self.world.catch_up()
        count = await self.world.store.pending_count(moment_us)
        if count == 0 and self.asked_count < len(self.steps):
            await self.steps[self.asked_count]()
            self.asked_count += 1
        return count


@contextlib.asynccontextmanager
async def catching_up(world: World) -> AsyncIterator[None]:
    """Keep relay and writer at work in the background."""
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await world.catch_up()
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        stop.set()
        await task


async def test_a_backlog_is_waited_for(world: World) -> None:
    """Documents that are on their way are no differences."""
    for number in range(50):
        await world.write(f"users/u1/following/u{number}", {})
    async with catching_up(world):
        found = await world.check()
    assert found.is_clean
    assert (found.counts["follow"].document_count, found.counts["follow"].row_count) == (50, 50)


async def test_an_unpublished_change_makes_the_check_incomplete(world: World) -> None:
    """The check must not report the source's lag as the mirror's fault, nor wait for ever."""
    await world.write(EDGE, {})
    with pytest.raises(CheckIncomplete, match="1 changes not published, 0 messages"):
        await world.check(drain_timeout_s=0.1)


async def test_an_unsettled_message_makes_the_check_incomplete(world: World) -> None:
    """How deep and how old the backlog is tells the operator where to look."""
    await world.write(EDGE, {})
    await world.publish()
    with pytest.raises(
        CheckIncomplete, match=r"1 messages on sql-writer, the oldest \d+\.\d s old"
    ):
        await world.check(drain_timeout_s=0.1)
    await world.settle()
    assert (await world.check()).is_clean


async def test_a_change_after_the_pinned_moment_is_no_difference(world: World) -> None:
    """The row is newer than the pinned document; both are right."""
    await world.write(EDGE, {})
    await world.catch_up()

    async def change_and_create() -> None:
        await world.write(EDGE, {"createdAt": datetime_from_us(1)})
        await world.write(OTHER, {})
        await world.catch_up()

    found = await world.check(pending=Meanwhile(world, change_and_create))
    assert found.is_clean


async def test_a_delete_after_the_pinned_moment_is_no_difference(world: World) -> None:
    """The pinned document is there, the row a tombstone; both are right."""
    await world.write(EDGE, {})
    await world.catch_up()

    async def delete() -> None:
        await world.write(EDGE, None)
        await world.catch_up()

    assert (await world.check(pending=Meanwhile(world, delete))).is_clean


async def test_a_change_on_its_way_at_the_second_look_is_waited_for(world: World) -> None:
    """The row is behind the document once more, as it would be under steady writing."""
    await world.write(EDGE, {})
    await world.catch_up()

    async def change() -> None:
        await world.write(EDGE, {"createdAt": datetime_from_us(1)})
        await world.catch_up()

    async def change_without_delivery() -> None:
        await world.write(EDGE, {})

    meanwhile = Meanwhile(world, change, change_without_delivery)
    async with catching_up_from(world, meanwhile, step=2):
        found = await world.check(pending=meanwhile)
    assert found.is_clean
    assert meanwhile.asked_count == 2


@contextlib.asynccontextmanager
async def catching_up_from(world: World, meanwhile: Meanwhile, *, step: int) -> AsyncIterator[None]:
    """Keep relay and writer at work from the given step on."""
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            if meanwhile.asked_count >= step:
                await world.catch_up()
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        stop.set()
        await task


async def test_a_document_created_and_deleted_meanwhile_is_no_difference(world: World) -> None:
    """A live row, no document then and none now: it was there in between."""

    async def create() -> None:
        await world.write(EDGE, {})
        await world.catch_up()

    async def delete_without_delivery() -> None:
        await world.write(EDGE, None)

    meanwhile = Meanwhile(world, create, delete_without_delivery)
    async with catching_up_from(world, meanwhile, step=2):
        found = await world.check(pending=meanwhile)
    assert found.is_clean


def always_changing(world: World, path: str) -> Meanwhile:
    """Change a document before the scan, and again before every look, always ahead of its row."""
    moments = itertools.count(1)

    async def change() -> None:
        await world.catch_up()
        await world.write(path, {"createdAt": datetime_from_us(next(moments))})

    async def change_and_deliver() -> None:
        await change()
        await world.catch_up()

    return Meanwhile(world, change_and_deliver, *[change] * 9, catches_up=True)


async def test_a_document_that_always_changes_is_not_called_equal(world: World) -> None:
    """Neither clean nor different was shown, and the check says so."""
    await world.write(EDGE, {})
    await world.catch_up()
    with pytest.raises(CheckIncomplete, match=f"1 documents changed at every look.*{EDGE}"):
        await world.check(pending=always_changing(world, EDGE), max_rounds=3)


async def test_differences_are_reported_beside_a_document_that_always_changes(world: World) -> None:
    """What was proved stays proved."""
    await world.write(EDGE, {})
    await world.write(OTHER, {})
    await world.catch_up()
    await world.sql.execute("DELETE FROM storemirror.follow_edge WHERE followee_id = 'u3'")
    found = await world.check(pending=always_changing(world, EDGE), max_rounds=3)
    assert [(m.kind, m.path) for m in found.mismatches] == [(MismatchKind.MISSING_ROW, OTHER)]
    assert found.unsettled_count == 1
    assert not found.is_clean


async def test_damage_is_found_while_writing_goes_on(world: World) -> None:
    """A check that needs a quiet hour is never run."""
    await world.write(EDGE, {})
    for number in range(5):
        await world.write(f"users/u1/following/v{number}", {})
    await world.catch_up()
    await world.sql.execute("DELETE FROM storemirror.follow_edge WHERE followee_id = 'u2'")
    stop = asyncio.Event()

    async def live() -> None:
        number = 0
        while not stop.is_set():
            await world.write(
                f"users/u1/following/v{number % 5}", {"createdAt": datetime_from_us(number + 1)}
            )
            await world.catch_up()
            number += 1

    task = asyncio.create_task(live())
    found = await world.check(max_rounds=50)
    stop.set()
    await task
    assert [(m.kind, m.path) for m in found.mismatches] == [(MismatchKind.MISSING_ROW, EDGE)]


async def test_an_undeliverable_document_is_named_until_its_loss_is_accepted(world: World) -> None:
    """Its dead letter is on the bus; once a person accepted the loss it is counted apart."""
    path = "conversations/c1/messages/m1"
    await world.write(path, {"senderId": 7})
    await world.catch_up()
    found = await world.check()
    assert [(m.kind, m.path, m.field) for m in found.mismatches] == [
        (MismatchKind.UNDELIVERABLE, path, "senderId")
    ]
    assert found.dead_letter_count == 1
    assert await world.repair(found) == 0

    [letter] = await world.admin.peek_dead_letters(SUBSCRIPTION_SQL_WRITER, limit=10)
    await world.admin.acknowledge(
        SUBSCRIPTION_SQL_WRITER, letter.sequence_number, reason="written by a broken client"
    )
    found = await world.check()
    assert (found.mismatch_count, found.accepted_count, found.dead_letter_count) == (0, 1, 0)

    await world.write(path, {"senderId": 8})
    await world.catch_up()
    assert (await world.check()).mismatch_count == 1


async def test_ids_that_cannot_be_keys_do_not_hide_their_neighbours(world: World) -> None:
    """They stand at the ends of pages, where the range of rows to read is taken from."""
    for shop in ("a", "b", "c"):
        await world.write(f"shops/{shop}/orders/o1", {"buyer": "ann"})
        await world.write(f"shops/{shop}/orders/too-long-for-a-key", {"buyer": "ann"})
    await world.catch_up()
    await world.sql.execute("UPDATE storemirror.shop_order SET buyer = 'bob' WHERE shop_id = 'b'")
    found = await world.check(page_size=1)
    wanted = [
        (MismatchKind.UNDELIVERABLE, f"shops/{shop}/orders/too-long-for-a-key", "orderId")
        for shop in ("a", "b", "c")
    ]
    wanted.insert(1, (MismatchKind.FIELD_DIFFERS, "shops/b/orders/o1", "buyer"))
    listed = [(m.kind, m.path, m.field) for m in found.mismatches]
    assert [m for m in listed if m[2] == "orderId"] == [m for m in wanted if m[2] == "orderId"]
    assert {m[1] for m in listed if m[2] != "orderId"} == {"shops/b/orders/o1"}


@pytest.mark.parametrize("followee", ["a0", "u15", "z9"], ids=["before", "between", "behind"])
async def test_a_row_without_document_is_found_wherever_it_stands(
    world: World, followee: str
) -> None:
    """Before the first document, between two pages, and behind the last one."""
    for number in range(4):
        await world.write(f"users/u1/following/u{number}", {})
    await world.catch_up()
    await world.sql.execute(
        "INSERT INTO storemirror.follow_edge"
        " (follower_id, followee_id, row_state, last_event_version) VALUES ('u1', %s, 'live', 2)",
        (followee,),
    )
    found = await world.check(page_size=2)
    assert [(m.kind, m.path) for m in found.mismatches] == [
        (MismatchKind.ROW_OF_GONE_DOCUMENT, f"users/u1/following/{followee}")
    ]


async def test_a_limit_compares_the_first_documents_only(world: World) -> None:
    """A quick look at a large mirror; rows behind the last document are not judged."""
    for number in range(4):
        await world.write(f"users/u1/following/u{number}", {})
    await world.catch_up()
    await world.sql.execute("DELETE FROM storemirror.follow_edge WHERE followee_id IN ('u1', 'u3')")
    found = await world.check(limit=2)
    assert [m.path for m in found.mismatches] == ["users/u1/following/u1"]
    assert found.counts["follow"].document_count == 2


async def test_only_the_named_checks_run(world: World) -> None:
    """The operator asks for messages; blocks cost nothing."""
    await world.write(EDGE, {})
    await world.catch_up()
    await world.sql.execute("DELETE FROM storemirror.follow_edge")
    found = await world.check(checks=("blocks", "messages"))
    assert found.is_clean
    assert set(found.counts) == {"blocks", "messages"}


async def test_an_unknown_check_is_refused_before_anything_is_read(world: World) -> None:
    """A typing mistake must not pass as a clean check."""
    with pytest.raises(UsageRefused, match="unknown check mesages; there are: blocks"):
        await world.check(checks=("mesages",))


async def test_progress_is_told(world: World) -> None:
    """A full check of a large mirror takes minutes; the operator sees it move."""
    await world.write(EDGE, {})
    await world.catch_up()
    await world.check(checks=("follow",))
    told = [(p.check, p.document_count, p.row_count) for p in world.progress]
    assert told == [(None, 0, 0), ("follow", 1, 1), ("follow", 1, 1)]


async def test_a_rollup_must_differ_at_both_looks(world: World) -> None:
    """What was mended while the check ran is not reported, nor what broke only then."""
    await world.write("conversations/c1/messages/m1", {"senderId": "u1", "sentAt": MOMENT})
    await world.catch_up()
    damage = "UPDATE storemirror.dm_conversation SET message_count = 7"
    assert await world.sql.execute(damage) == 1

    async def nothing() -> None: ...

    async def mend_and_break() -> None:
        await world.mirror.recompute_rollups(world.model["DmMessage"])
        await world.sql.execute("UPDATE storemirror.dm_conversation SET last_message_id = 'x'")

    found = await world.check(pending=Meanwhile(world, nothing, mend_and_break))
    assert found.is_clean
    [mismatch] = (await world.check()).mismatches
    assert mismatch.field == "lastMessageId"


async def test_without_an_outbox_the_bus_alone_is_waited_for(world: World) -> None:
    """Firestore's triggers cannot be asked how far they are."""
    await world.write(EDGE, {})
    await world.catch_up()
    found = await run_check(
        store=world.store,
        mirror=world.mirror,
        model=world.model,
        bus_admin=world.admin,
        subscription=SUBSCRIPTION_SQL_WRITER,
        pending=None,
        clock=world.clock,
        settings=CheckSettings(),
    )
    assert found.is_clean
