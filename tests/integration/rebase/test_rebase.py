"""After a restore from backup a rebase makes both sides agree, and keeps what is late out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.errors import CheckIncomplete, RebaseUnderWay
from storemirror.event.change import RowState
from storemirror.source.budget import ReadBudget
from storemirror.sql.port import RebaseState, RebaseStep
from tests.integration.rebase.world import RebaseWorld

pytestmark = pytest.mark.postgres


class Killed(Exception):
    """The process ends here; nothing after it is done."""


async def assert_rebased(restored: RebaseWorld) -> None:
    """See that both sides agree, and go on doing so when all that was undone is delivered late."""
    assert (await restored.world.check()).is_clean
    live = await live_keys(restored)
    async with restored.filled.writing():
        await restored.world.publisher.publish(restored.undone)
    assert (await restored.world.check()).is_clean
    assert await live_keys(restored) == live
    found = await restored.filled.reconcile(run="at-last")
    assert (found.published_count, found.backwards_count) == (0, 0)
    assert (await restored.world.admin.stats(SUBSCRIPTION_SQL_WRITER)).dead_letter_count == 0


async def live_keys(restored: RebaseWorld) -> set[tuple[str, ...]]:
    """Give entity and key of every live row."""
    return {
        (entity.name, *row.key)
        for entity in restored.world.model
        async for row in restored.world.mirror.rows(entity, after=None, up_to=None)
        if row.state is RowState.LIVE
    }


async def test_a_restore_is_said_by_check_and_by_reconcile(restored: RebaseWorld) -> None:
    """Newest wins would refuse the restored documents for ever, and nobody would know why."""
    found = await restored.world.check()
    assert not found.is_clean
    assert found.backwards_count > 0
    again = await restored.filled.reconcile(is_dry_run=True)
    assert again.backwards_count == found.backwards_count


async def test_both_sides_agree_after_a_rebase_and_late_deliveries_change_nothing(
    restored: RebaseWorld,
) -> None:
    """Deliveries are repeated for 24 hours: those of before the restore are not over yet."""
    assert len(restored.undone) > 50
    async with restored.filled.writing():
        state = await restored.rebase()
    assert (state.run, state.step) == ("r1", RebaseStep.DONE)
    assert restored.reconciled is not None
    # What the undone time had created is not in the restored documents.
    assert sum(c.deleted_count for c in restored.reconciled.counts.values()) > 0
    assert not restored.file.path.exists()
    await assert_rebased(restored)


async def test_late_deliveries_during_the_rebase_change_nothing_either(
    restored: RebaseWorld,
) -> None:
    """At every step some arrive: on the bus that is purged, and on the one that is not."""
    late = restored.undone
    share = len(late) // len(RebaseStep)

    async def deliver(step: RebaseStep) -> None:
        start = list(RebaseStep).index(step) * share
        await restored.world.publisher.publish(late[start : start + share])
        await restored.filled.live(5, seed=10 + start)

    async with restored.filled.writing():
        await restored.rebase(on_step=deliver)
    assert (await restored.world.check()).is_clean
    found = await restored.filled.reconcile(run="at-last")
    assert (found.published_count, found.backwards_count) == (0, 0)


class Dying:
    """Hands calls on, and ends the process before or after one of them."""

    def __init__(self, inner: object, name: str, *, at_call: int, is_after: bool) -> None:
        self._inner = inner
        self._name = name
        self._calls_left = at_call
        self._is_after = is_after

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Any] = getattr(self._inner, name)
        if name != self._name:
            return call

        async def struck(*arguments: object, **options: object) -> object:
            self._calls_left -= 1
            if self._calls_left == 0 and not self._is_after:
                raise Killed
            result = await call(*arguments, **options)
            if self._calls_left == 0:
                raise Killed
            return result

        return struck


#: In the order in which a rebase comes past them: part, call, which one, and before or after it.
KILLS = [
    ("ledger", "close", 1, False),
    ("ledger", "close", 1, True),
    ("bus", "purge", 1, False),
    ("bus", "purge", 1, True),
    ("ledger", "advance", 1, False),
    ("ledger", "advance", 1, True),  # purged
    ("ledger", "advance", 1, False),
    ("ledger", "advance", 1, True),  # marked
    ("ledger", "reset_versions", 1, True),
    ("ledger", "reset_versions", 3, True),
    ("ledger", "advance", 1, False),
    ("ledger", "advance", 1, True),  # opened
    ("ledger", "advance", 1, False),
    ("ledger", "advance", 1, True),  # refilled
    ("ledger", "advance", 1, False),
]


async def test_a_rebase_killed_at_every_step_goes_on(restored: RebaseWorld) -> None:
    """Left closed for ever, the mirror would be worse off than before."""
    async with restored.filled.writing():
        for part, call, at_call, is_after in KILLS:
            whole: Any = restored.world.sql.ledger if part == "ledger" else restored.world.admin
            dying: Any = Dying(whole, call, at_call=at_call, is_after=is_after)
            restored.ledger = dying if part == "ledger" else restored.world.sql.ledger
            restored.bus_admin = dying if part == "bus" else restored.world.admin
            with pytest.raises(Killed):
                await restored.rebase()
        restored.ledger, restored.bus_admin = restored.world.sql.ledger, restored.world.admin
        state = await restored.rebase(run="r2")
    assert (state.run, state.step) == ("r1", RebaseStep.DONE)
    await assert_rebased(restored)


async def test_the_progress_of_an_earlier_rebase_is_not_gone_on_with(
    restored: RebaseWorld,
) -> None:
    """What it had read has version 0 again."""
    async with restored.filled.writing():
        restored.budget = ReadBudget(40)
        state = await restored.rebase()
        assert state.step is RebaseStep.OPENED
        assert restored.file.path.exists()
        old = restored.file.path.read_bytes()
        restored.budget = ReadBudget()
        assert (await restored.rebase()).step is RebaseStep.DONE
        restored.file.path.write_bytes(old)
        assert (await restored.rebase(run="r2")).run == "r2"
    assert restored.reconciled is not None
    assert sum(c.older_count for c in restored.reconciled.counts.values()) == 0
    await assert_rebased(restored)


async def test_a_rebase_that_is_told_to_stop_leaves_the_mirror_open(restored: RebaseWorld) -> None:
    """Ctrl-C must not leave writers waiting."""
    stop = asyncio.Event()
    stop.set()
    async with restored.filled.writing():
        state = await restored.rebase(stop=stop)
        assert state.step is RebaseStep.OPENED
        await restored.world.mirror.probe()
        with pytest.raises(CheckIncomplete, match="is under way"):
            await restored.world.check()
        assert (await restored.rebase()).step is RebaseStep.DONE
    await assert_rebased(restored)


async def test_a_rebase_is_stopped_in_its_second_reading_too(restored: RebaseWorld) -> None:
    """Without a writer it would wait out its patience, and whoever pressed Ctrl-C with it."""
    stop = asyncio.Event()

    async def stop_and_leave_something(step: RebaseStep) -> None:
        if step is RebaseStep.REFILLED:
            await restored.world.publisher.publish(restored.undone[:1])
            stop.set()

    state = await restored.rebase(stop=stop, on_step=stop_and_leave_something)
    assert state.step is RebaseStep.REFILLED
    assert restored.reconciled is not None
    assert (restored.reconciled.is_finished, restored.reconciled.is_stopped) == (False, True)
    async with restored.filled.writing():
        assert (await restored.rebase()).step is RebaseStep.DONE
    await assert_rebased(restored)


async def test_without_a_writer_the_reconcile_waits_in_vain_and_says_so(
    restored: RebaseWorld,
) -> None:
    """The next run goes on with the reconcile, and reads no document again before it."""

    async def leave_something(step: RebaseStep) -> None:
        if step is RebaseStep.REFILLED:
            await restored.world.publisher.publish(restored.undone[:1])

    with pytest.raises(CheckIncomplete, match="did not drain"):
        await restored.rebase(on_step=leave_something, drain_timeout_s=0.1)
    state = await restored.ledger.state()
    assert state is not None
    assert state.step is RebaseStep.REFILLED
    read = sum(restored.filled.store.read_counts.values())
    async with restored.filled.writing():
        assert (await restored.rebase()).step is RebaseStep.DONE
    assert sum(restored.filled.store.read_counts.values()) == read
    await assert_rebased(restored)


async def test_a_second_rebase_at_the_same_time_is_refused(restored: RebaseWorld) -> None:
    """It would purge what the first one relies on."""
    states: list[RebaseState | None] = []

    async def begin_another(_: RebaseStep) -> None:
        with pytest.raises(RebaseUnderWay, match="another process"):
            async with restored.world.sql.ledger.held():
                pass
        states.append(await restored.ledger.state())

    async with restored.filled.writing():
        await restored.rebase(on_step=begin_another)
    assert [s.step for s in states if s is not None] == list(RebaseStep)
