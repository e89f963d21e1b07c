"""A batch that the server does not finish in time is given up whole, and holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.event.change import Outcome, RowState
from storemirror.model.load import load_model
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Server


@pytest.mark.parametrize("is_callers", [False, True], ids=["the mirror's", "the caller's"])
async def test_a_batch_that_is_given_up_leaves_nothing_and_holds_nobody_up(
    server: Server, *, is_callers: bool
) -> None:
    """What it had locked and written before it waited is free, and gone, before it comes again."""
    model = load_model()
    docs = Documents(model, SystemClock().now_us() - 3_600_000_000)
    installed = await server.installed(model)
    await installed.mirror.apply([docs.conversation("a", 1), docs.conversation("b", 1)])
    waiting = [docs.message("a", "m", 2), docs.message("b", "m", 2), docs.follow("x", "y", 2)]
    async with installed.holding(model["DmConversation"], ("b",)):
        mirror, timeout_s = (
            (installed.mirror, 1.0) if is_callers else (installed.impatient(1.0), None)
        )
        with pytest.raises(SqlUnavailable):
            await mirror.apply(waiting, timeout_s=timeout_s)
        # The first of the two conversations is not held any more: the batch is over at the server.
        async with asyncio.timeout(60):
            assert await installed.mirror.apply([docs.message("a", "n", 3)]) == [Outcome.APPLIED]
    assert await installed.mirror.row(model["DmMessage"], ("a", "m")) is None
    edge = await installed.mirror.row(model["FollowEdge"], ("x", "y"))
    assert edge is None or edge.state is RowState.STUB
    assert await installed.mirror.apply(waiting) == [Outcome.APPLIED] * 3


async def test_a_writer_that_is_cancelled_leaves_a_mirror_that_is_right(server: Server) -> None:
    """Its batch is applied whole or not at all; coming again, it is one or the other."""
    model = load_model()
    docs = Documents(model, SystemClock().now_us() - 3_600_000_000)
    installed = await server.installed(model)
    await installed.mirror.apply([docs.conversation("a", 1)])
    batch = [docs.message("a", "m", 2), docs.message("a", "n", 3)]
    async with installed.beside() as other, installed.holding(model["DmConversation"], ("a",)):
        applying = asyncio.create_task(other.mirror.apply(batch))
        # One turn of the loop at least: it is under way, wherever it is.
        await SystemClock().sleep(0.05)
        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying
    outcomes = await installed.mirror.apply(batch)
    assert set(outcomes) in ({Outcome.APPLIED}, {Outcome.DUPLICATE})
    row = await installed.mirror.row(model["DmConversation"], ("a",))
    assert row is not None
    assert (row.columns["messageCount"], row.columns["lastMessageId"]) == (2, "n")
