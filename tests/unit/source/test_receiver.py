"""How many may deliver at a time, and who counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import TopicSpec
from storemirror.clock import SystemClock
from storemirror.model.load import load_model
from storemirror.source.receiver import (
    DELIVERIES_MAX_COUNT,
    TriggerReceiver,
    create_trigger_receiver,
    serve,
)
from tests.support.deliveries import SOURCE


@pytest.fixture
async def receiver() -> TriggerReceiver:
    bus = MemoryBus(SystemClock())
    await bus.admin().provision(TopicSpec())
    return create_trigger_receiver(
        publisher=bus.publisher(),
        model=load_model(),
        source=SOURCE,
        clock=SystemClock(),
        callers=None,
    )


class Delivery:
    """A delivery whose body comes when a test says so."""

    def __init__(self, receiver: TriggerReceiver, may_end: asyncio.Event) -> None:
        self._may_end = may_end
        #: Set when the body is waited for.
        self.is_under_way = asyncio.Event()
        self.status = 0
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        self.task = asyncio.create_task(receiver(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        self.is_under_way.set()
        await self._may_end.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]


async def test_more_deliveries_than_there_is_room_for_come_again(receiver: TriggerReceiver) -> None:
    """Each holds its body in memory; Eventarc repeats what is answered 503."""
    may_end = asyncio.Event()
    deliveries = [Delivery(receiver, may_end) for _ in range(DELIVERIES_MAX_COUNT)]
    for delivery in deliveries:
        await delivery.is_under_way.wait()
    late = Delivery(receiver, may_end)
    await late.task
    assert late.status == 503
    may_end.set()
    await asyncio.gather(*(delivery.task for delivery in deliveries))
    assert 503 not in {delivery.status for delivery in deliveries}
    later = Delivery(receiver, may_end)
    await later.task
    assert later.status == deliveries[0].status


@contextlib.asynccontextmanager
async def served(receiver: TriggerReceiver) -> AsyncIterator[int]:
    """Lend the port of a receiver that listens."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(receiver, "127.0.0.1", 0, stop, on_listening=port.set_result)
    )
    yield await port
    stop.set()
    await serving


async def test_silent_connections_shut_nobody_out(receiver: TriggerReceiver) -> None:
    """The port is open to anybody, and to be silent needs no token.  Refs #5."""
    async with served(receiver) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        for _, silent_writer in [*silent, (reader, writer)]:
            silent_writer.close()
