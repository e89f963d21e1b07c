"""A race for one document is nothing to those who want another one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from storemirror.clock import SystemClock
from storemirror.source.embedded_transaction import EmbeddedTransactions
from storemirror.source.port import Decision, Document, TransactionBody, TransactionReads, Write


async def _nothing(paths: Sequence[str]) -> Mapping[str, Document]:
    return {}


async def test_who_runs_again_holds_up_nobody_who_wants_another_document() -> None:
    """One conversation with a hundred marks at once made all others wait for seconds."""
    has_lost: set[str] = set()
    is_again, may_end = asyncio.Event(), asyncio.Event()

    async def commit(writes: Sequence[Write], read: Mapping[str, int | None]) -> int | None:
        path = writes[0].path
        if path in has_lost:
            return 1
        has_lost.add(path)
        return None

    def body_of(path: str) -> TransactionBody[None]:
        async def body(reads: TransactionReads) -> Decision[None]:
            await reads.get(path)
            if path == "rooms/busy" and path in has_lost:
                is_again.set()
                await may_end.wait()
            return Decision(writes=[Write(path=path, fields={})], result=None)

        return body

    transactions = EmbeddedTransactions(_nothing, commit, SystemClock())
    busy = asyncio.create_task(transactions.run(body_of("rooms/busy")))
    await is_again.wait()
    quiet = asyncio.create_task(transactions.run(body_of("rooms/quiet")))
    done, _ = await asyncio.wait({quiet}, timeout=10)
    assert done == {quiet}
    may_end.set()
    await busy
