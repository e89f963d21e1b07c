"""A check reads no more documents than it may, and says what it did not come to."""

from __future__ import annotations

import pytest

from storemirror.check.repair import repair
from storemirror.check.result import CheckResult
from storemirror.clock import SystemClock
from storemirror.errors import CheckReadsSpent
from storemirror.event.value import encode_fields
from storemirror.source.budget import ReadBudget
from storemirror.source.firestore import open_firestore
from storemirror.source.firestore_calls import FirestoreAddress
from storemirror.source.port import DocumentRead, Write
from storemirror.sql.port import UnverifiedDocument
from tests.integration.backfill.world import CountingStore
from tests.integration.check.world import SOURCE, World

pytestmark = pytest.mark.postgres

EDGES = [f"users/u{n}/following/v" for n in range(6)]
BLOCKS = [f"users/u{n}/blocks/v" for n in range(3)]
#: The read by which the moment is told.
PINNING = 1
DAMAGE = b"UPDATE storemirror.follow_edge SET created_at = now() WHERE follower_id = ANY(%s)"


async def fill(world: World) -> None:
    """Mirror some documents of two kinds."""
    for path in (*EDGES, *BLOCKS):
        await world.write(path, {"createdAt": None})
    await world.catch_up()


async def damaged(world: World, *followers: str) -> None:
    """Change rows by hand: same version, other contents."""
    assert await world.sql.execute(DAMAGE, (list(followers),)) == len(followers)


class Billed(CountingStore):
    """A store that counts each document that it gives, of scans and of looks at one."""

    async def get(self, path: str) -> DocumentRead:
        self.read_counts[path] += 1
        return await super().get(path)


async def checked(world: World, max_reads: int | None) -> CheckResult:
    """Check both kinds within so many reads, two documents a page; none is made beyond them."""
    budget, store = ReadBudget(max_reads), Billed(world.store)
    try:
        return await world.check(
            checks=("follow", "blocks"), page_size=2, budget=budget, store=store
        )
    finally:
        assert sum(store.read_counts.values()) <= budget.spent_count
        assert max_reads is None or budget.spent_count <= max_reads


async def test_a_check_counts_every_read(world: World) -> None:
    """What it costs is what was read: the moment, each document, and each look again."""
    await fill(world)
    found = await checked(world, None)
    assert found.is_clean
    # Each kind ends with a page that is not full: here with an empty one, or one of one document.
    plain = found.read_count
    assert plain == PINNING + len(EDGES) + 1 + len(BLOCKS)
    await damaged(world, "u1", "u4")
    assert (await checked(world, None)).read_count == plain + 2


async def test_reads_that_run_out_are_no_clean_check(world: World) -> None:
    """Neither equal nor different was shown; what was compared, and what not, is named."""
    await fill(world)
    with pytest.raises(CheckReadsSpent) as ended:
        await checked(world, PINNING + 4)
    assert "in part: follow (the first 4 documents); not: blocks" in str(ended.value)
    with pytest.raises(CheckReadsSpent, match="compared: follow; in part: blocks"):
        await checked(world, PINNING + len(EDGES) + 1 + 2)


async def test_no_budget_is_ever_exceeded_nor_calls_what_it_did_not_see_equal(
    world: World,
) -> None:
    """Wherever the reads run out, with looks again or before them."""
    await fill(world)
    await damaged(world, "u5")
    whole = (await checked(world, None)).read_count
    for max_reads in range(1, whole):
        try:
            found = await checked(world, max_reads)
        except CheckReadsSpent:
            continue
        assert not found.is_clean
        assert [m.path for m in found.mismatches] == [EDGES[5]]
    # One more tells that nothing follows the last document.
    assert (await checked(world, whole + 1)).is_complete


async def test_a_difference_is_proved_before_the_scan_goes_on(world: World) -> None:
    """What seems to differ has a read set aside, else all reads would go into the scan."""
    await fill(world)
    await damaged(world, "u0", "u1")
    found = await world.check(checks=("follow",), page_size=4, budget=ReadBudget(PINNING + 6))
    assert [m.path for m in found.mismatches] == EDGES[:2]
    assert found.unproved_count == 0
    assert (found.is_complete, found.is_clean) == (False, False)
    assert "in part: follow (the first 4 documents)" in found.coverage()


async def test_what_seemed_to_differ_and_was_not_read_again_is_counted(world: World) -> None:
    """It is no difference: nobody ruled lag out; and it is not equal."""
    await fill(world)
    await damaged(world, "u1")
    with pytest.raises(CheckReadsSpent, match="could not be looked at again: 1"):
        await checked(world, PINNING + 2)


async def test_a_mark_is_not_cleared_where_the_reads_ran_out(world: World) -> None:
    """The mark says that an event was lost; only a whole comparison says that it left no trace."""
    await fill(world)
    gone = UnverifiedDocument(
        message_id="e1",
        reason="EventRefused",
        path="users/zz/following/v",
        entity="FollowEdge",
        key=("zz", "v"),
        version=2**62,
    )
    await world.mirror.mark_unverified([gone])
    with pytest.raises(CheckReadsSpent):
        await checked(world, PINNING + 4)
    assert await world.mirror.unverified_count() == 1
    assert (await checked(world, None)).verified_count == 1


async def test_a_repair_sends_what_there_are_reads_for(world: World) -> None:
    """It reads each document once more, and says for how many no read was left."""
    await fill(world)
    await damaged(world, "u0", "u1", "u2")
    found = await checked(world, None)
    repaired = await repair(
        found.mismatches,
        store=world.store,
        mirror=world.mirror,
        model=world.model,
        publisher=world.publisher,
        budget=ReadBudget(2),
        source=SOURCE,
        run="r1",
    )
    assert (repaired.sent_count, repaired.unread_count) == (2, 1)
    await world.settle()
    assert [m.path for m in (await checked(world, None)).mismatches] == [EDGES[2]]


async def test_firestore_is_asked_for_no_more_than_was_paid(
    world: World, emulator_host: str, firestore_project: str
) -> None:
    """The count is ours, the bill is Google's: the adapter's own tally must not be above it."""
    address = FirestoreAddress(project=firestore_project, emulator_host=emulator_host)
    firestore = open_firestore(address, SystemClock())
    fields = encode_fields({"createdAt": None})
    await firestore.commit([Write(path=path, fields=fields) for path in EDGES])
    for max_reads in (5, 8, 100):
        before, budget = firestore.read_count, ReadBudget(max_reads)
        found = await world.check(
            store=firestore, checks=("follow",), page_size=2, grace_s=0.0, budget=budget
        )
        assert {m.path for m in found.mismatches} <= set(EDGES)
        assert found.is_complete == (max_reads == 100)
        assert firestore.read_count - before <= budget.spent_count <= max_reads
    await firestore.aclose()
