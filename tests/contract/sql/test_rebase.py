"""A rebase closes the mirror, marks it, sets versions to 0, and opens it again."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from storemirror.errors import RebaseUnderWay, SqlUnavailable
from storemirror.event.change import Outcome, RowState
from storemirror.sql.port import RebaseStep
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed

CLOSED = [RebaseStep.CLOSED, RebaseStep.PURGED, RebaseStep.MARKED]
STEPS = list(RebaseStep)


async def advance_to(sql: Installed, step: RebaseStep, mark_us: int) -> None:
    """Begin a rebase and go on to a step."""
    await sql.ledger.close("r1")
    for after, to in itertools.pairwise(STEPS[: STEPS.index(step) + 1]):
        mark = mark_us if to is RebaseStep.MARKED else None
        await sql.ledger.advance("r1", after=after, to=to, mark_us=mark)


async def test_a_mirror_that_was_never_rebased_says_so(sql: Installed) -> None:
    """It has no mark, and nothing expires for it."""
    assert await sql.ledger.state() is None


async def test_every_step_is_remembered(sql: Installed, base_us: int) -> None:
    """Another process goes on from there after a kill."""
    for step in STEPS:
        await advance_to(sql, step, base_us)
        state = await sql.ledger.state()
        assert state is not None
        assert (state.run, state.step) == ("r1", step)
        assert state.mark_us == base_us or STEPS.index(step) < STEPS.index(RebaseStep.MARKED)


async def test_the_mark_of_the_last_rebase_holds_until_the_next_one_sets_its_own(
    sql: Installed, base_us: int
) -> None:
    """Late deliveries of before the first restore do not become welcome meanwhile."""
    await sql.rebased(base_us)
    await sql.ledger.close("r2")
    state = await sql.ledger.state()
    assert state is not None
    assert (state.run, state.step, state.mark_us) == ("r2", RebaseStep.CLOSED, base_us)


@pytest.mark.parametrize("step", STEPS, ids=[step.value for step in STEPS])
async def test_a_closed_mirror_takes_no_event_and_says_so(
    step: RebaseStep, sql: Installed, docs: Documents, base_us: int
) -> None:
    """A writer of any version that applied one now would keep a version of before the restore."""
    await advance_to(sql, step, base_us - 1_000)
    events = [docs.message("c1", "m1", 1), docs.conversation("c1", 1)]
    if step not in CLOSED:
        await sql.mirror.probe()
        assert await sql.mirror.apply(events) == [Outcome.APPLIED] * 2
        return
    for part in (events, events[:1], events[1:]):
        with pytest.raises(RebaseUnderWay, match="no event is applied"):
            await sql.mirror.apply(part)
    with pytest.raises(RebaseUnderWay, match=f"step {step.value} is done"):
        await sql.mirror.probe()
    assert "SM005" in await sql.rejected("UpsertDmConversation", sql.encoded(events[1:]))
    row = await sql.mirror.row(sql.model["DmConversation"], ("c1",))
    assert row is None or row.state is RowState.STUB


async def test_closing_waits_for_the_batch_in_hand(sql: Installed) -> None:
    """Its version must not be written after all of them have been set to 0."""
    async with sql.writing():
        closing = asyncio.create_task(sql.ledger.close("r1"))
        done, _ = await asyncio.wait([closing], timeout=0.3)
        assert not done
    await closing


async def test_versions_become_0_in_every_state_page_by_page(
    sql: Installed, docs: Documents
) -> None:
    """A tombstone too: the document may have been restored to life with an older commit time."""
    messages = [docs.message("c1", f"m{n}", n) for n in range(7)]
    gone = docs.message("c1", "m3", 3)
    await sql.mirror.apply(messages)
    await sql.mirror.apply([docs.gone("DmMessage", ("c1", "m3"), 3)])
    await sql.rebased(docs.base_us - 10, until=RebaseStep.MARKED)
    for entity in sql.model:
        after: tuple[str, ...] | None = None
        page_count = 0
        while True:
            after = await sql.ledger.reset_versions("r1", entity, after=after, max_count=3)
            page_count += 1
            if after is None:
                break
        assert page_count == (3 if entity.name == "DmMessage" else 1)
    rows = [row async for row in sql.mirror.rows(sql.model["DmMessage"], after=None, up_to=None)]
    assert [row.version for row in rows] == [0] * 7
    assert [row.state for row in rows].count(RowState.TOMBSTONE) == 1
    await sql.rebased(docs.base_us - 10)
    restored = docs.message("c1", "m3", 2)
    assert restored.change.version < gone.change.version
    assert await sql.mirror.apply([restored]) == [Outcome.APPLIED]


async def test_two_rebases_at_once_are_refused(sql: Installed, base_us: int) -> None:
    """The second would purge events that the first has already begun to rely on."""
    async with sql.ledger.held():
        with pytest.raises(RebaseUnderWay, match="another process"):
            async with sql.ledger.held():
                pass
    async with sql.ledger.held():
        await advance_to(sql, RebaseStep.PURGED, base_us)


async def test_a_step_that_another_process_has_passed_is_refused(
    sql: Installed, base_us: int
) -> None:
    """Whoever lost the lock unawares does nothing more."""
    await advance_to(sql, RebaseStep.MARKED, base_us)
    with pytest.raises(RebaseUnderWay, match="another process went on"):
        await sql.ledger.advance("r1", after=RebaseStep.CLOSED, to=RebaseStep.PURGED)
    with pytest.raises(SqlUnavailable):
        await sql.ledger.advance("r0", after=RebaseStep.MARKED, to=RebaseStep.OPENED)


@pytest.mark.parametrize("step", [s for s in RebaseStep if s is not RebaseStep.MARKED])
async def test_a_reset_that_was_overtaken_touches_no_row(
    sql: Installed, docs: Documents, step: RebaseStep
) -> None:
    """Its process lost the lock; behind the one that opened the mirror, older events could win."""
    await sql.mirror.apply([docs.message("c1", "m1", 1), docs.conversation("c1", 1)])
    entity = sql.model["DmMessage"]
    before = await sql.mirror.row(entity, ("c1", "m1"))
    await sql.rebased(docs.base_us - 10, until=step)
    with pytest.raises(RebaseUnderWay, match="another process went on"):
        await sql.ledger.reset_versions("r1", entity, after=None, max_count=10)
    assert await sql.mirror.row(entity, ("c1", "m1")) == before


async def test_another_rebase_does_not_go_on_with_this_reset(
    sql: Installed, docs: Documents
) -> None:
    """Each has a mark of its own."""
    await sql.mirror.apply([docs.message("c1", "m1", 1), docs.conversation("c1", 1)])
    await sql.rebased(docs.base_us - 10, run="r2", until=RebaseStep.MARKED)
    with pytest.raises(RebaseUnderWay, match="rebase r1 is no longer"):
        await sql.ledger.reset_versions("r1", sql.model["DmMessage"], after=None, max_count=10)
