"""A rebase closes the mirror: writers and drainers wait, and go on by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storemirror.apply.port import Step
from storemirror.bus.port import Delivery, Message
from storemirror.event.change import Origin, RowState
from storemirror.sql.port import RebaseStep
from tests.integration.apply.faulty import FaultyConsumer, FaultyMirror
from tests.integration.apply.pipe import (
    START_US,
    NoReread,
    Pipe,
    a_change,
    a_chat_message,
    a_follow,
    message_of,
)

pytestmark = pytest.mark.postgres

#: Above the commit times of all that is written here.
MARK_US = START_US + 86_400_000_000


class Gone:
    """A document store in which there is nothing."""

    async def reread(self, path: str, *, run: str) -> Message:
        return message_of(a_change(path, None, MARK_US + 1, origin=Origin.REREAD), run=run)


class Opening:
    """Opens a closed mirror at the n-th probe from now on."""

    def __init__(self, pipe: Pipe, after_probes: int) -> None:
        self._pipe = pipe
        self.probes_left = after_probes

    async def __call__(self) -> None:
        self.probes_left -= 1
        ledger = self._pipe.under_test.ledger
        state = await ledger.state()
        if self.probes_left > 0 or state is None or not state.is_closed:
            return
        for after, to, mark_us in (
            (RebaseStep.CLOSED, RebaseStep.PURGED, None),
            (RebaseStep.PURGED, RebaseStep.MARKED, MARK_US),
            (RebaseStep.MARKED, RebaseStep.OPENED, None),
        ):
            await ledger.advance("r1", after=after, to=to, mark_us=mark_us)


async def test_a_writer_receives_nothing_from_a_closed_mirror_and_goes_on_once_it_is_open(
    pipe: Pipe,
) -> None:
    """It waits and does not fail: nobody need start it again."""
    await pipe.under_test.ledger.close("r1")
    await pipe.publish([a_follow(1)])
    consumer, mirror = FaultyConsumer(pipe.new_consumer()), FaultyMirror(pipe)
    opening = Opening(pipe, after_probes=5)
    received_while_closed: list[int] = []

    async def before_probe() -> None:
        received_while_closed.append(len(consumer.received))
        await opening()

    mirror.before_probe = before_probe
    writer = pipe.processor(mirror=mirror, consumer=consumer, reread=Gone())
    await pipe.run_until_empty(writer)
    assert received_while_closed[:5] == [0] * 5
    assert (writer.stats.abandoned, writer.stats.expired, writer.stats.applied) == (0, 1, 1)


async def test_a_batch_in_hand_when_the_mirror_closes_is_read_again(pipe: Pipe) -> None:
    """What it holds is of before the mark; applied, it would bring back what a restore removed."""
    events = [a_chat_message(number) for number in range(10)]
    await pipe.publish(events)
    mirror = FaultyMirror(pipe)

    async def close(step: Step, _: Sequence[Delivery]) -> None:
        if step is Step.BEFORE_APPLY and await pipe.under_test.ledger.state() is None:
            await pipe.under_test.ledger.close("r1")
            mirror.before_probe = Opening(pipe, after_probes=3)

    writer = pipe.processor(mirror=mirror, hooks=close, reread=Gone(), retry_within_s=0.05)
    await pipe.run_until_empty(writer)
    assert await pipe.dead_letters() == []
    for number in range(10):
        row = await pipe.under_test.mirror.row(pipe.model["DmMessage"], ("c1", f"m{number}"))
        assert row is not None
        assert row.state is RowState.TOMBSTONE


async def test_a_drain_of_a_closed_mirror_takes_nothing_and_ends_in_time(pipe: Pipe) -> None:
    """It runs every minute, and a rebase may take longer."""
    await pipe.under_test.ledger.close("r1")
    await pipe.publish([a_follow(1)])
    consumer = FaultyConsumer(pipe.new_consumer())
    drained = await pipe.drain(consumer=consumer, reread=NoReread(), max_duration_s=0.3)
    assert consumer.received == []
    assert (drained.received, drained.depth, drained.abandoned) == (0, 1, 0)
