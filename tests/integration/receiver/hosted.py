"""A receiver on a real port, a real bus behind it, and somebody who calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from storemirror.bus.port import Message, Publisher, PublishResult
from storemirror.bus.waiting import News
from storemirror.clock import SystemClock
from storemirror.model.load import load_model
from storemirror.source.receiver import TriggerReceiver, serve
from storemirror.source.receiver_auth import CallerRules
from tests.integration.apply.pipe import Pipe
from tests.support.deliveries import HEADERS, SOURCE, told

HOST = "127.0.0.1"
A_MESSAGE = {"senderId": "u1", "body": "hi", "sentAt": None}


class ForwardClock(SystemClock):
    """The machine's clock, put forward on request."""

    def __init__(self) -> None:
        self.shift_s = 0.0
        self.wall_shift_us = 0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.shift_s

    def now_us(self) -> int:
        return super().now_us() + self.wall_shift_us


class FaultyPublisher:
    """The real publisher; it fails when it is told to, and waits while `gate` is closed."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        #: Raised, one a call, before anything is published.
        self.faults_before: deque[Exception] = deque()
        #: Raised, one a call, when the bus has it already.
        self.faults_after: deque[Exception] = deque()
        self.sizes: list[int] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        self.sizes.append(len(messages))
        self.called.set()
        await self.gate.wait()
        if self.faults_before:
            raise self.faults_before.popleft()
        result = await self._publisher.publish(messages)
        if self.faults_after:
            raise self.faults_after.popleft()
        return result

    async def aclose(self) -> None:
        await self._publisher.aclose()


class WatchedReceiver(TriggerReceiver):
    """The receiver; it tells a test when it has answered."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.answered = News()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        self.answered.tell()


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


@dataclass
class Hosted:
    """What a test needs: call the receiver, make the bus fail, look at the bus."""

    pipe: Pipe
    receiver: WatchedReceiver
    publisher: FaultyPublisher
    clock: ForwardClock
    port: int
    stop: asyncio.Event
    serving: asyncio.Task[None]

    async def post(
        self, body: bytes, headers: Mapping[str, str] = HEADERS, path: str = "/"
    ) -> Answer:
        return await call(self.port, "POST", path, headers, body)

    async def write(self, document: Mapping[str, object] | None = None, **headers: str) -> int:
        """Deliver a write of a message, as Eventarc does; gives the answer's status."""
        body = told(A_MESSAGE if document is None else document).SerializeToString()
        return (await self.post(body, {**HEADERS, **headers})).status

    async def counts(self) -> dict[str, Any]:
        """Ask for the counts over HTTP; those of zero are left out."""
        counts = json.loads((await call(self.port, "GET", "/healthz", {}, b"")).body)
        return {name: count for name, count in counts.items() if count}

    async def depth(self) -> int:
        return (await self.pipe.stats()).depth


async def call(
    port: int, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> Answer:
    """Make one HTTP request on a connection of its own."""
    reader, writer = await asyncio.open_connection(HOST, port)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", "Connection: close"]
    lines += [f"Content-Length: {len(body)}", *(f"{n}: {text}" for n, text in headers.items())]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ", 2)[1]), rest)


@contextlib.asynccontextmanager
async def hosted(
    pipe: Pipe, *, callers: CallerRules | None = None, port: int = 0
) -> AsyncIterator[Hosted]:
    """Lend a receiver that listens."""
    publisher, clock = FaultyPublisher(pipe.publisher), ForwardClock()
    receiver = WatchedReceiver(
        publisher=publisher, model=load_model(), source=SOURCE, clock=clock, callers=callers
    )
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(receiver, HOST, port, stop, on_listening=listening.set_result)
    )
    try:
        bound = await listening
        yield Hosted(pipe, receiver, publisher, clock, bound, stop, serving)
    finally:
        stop.set()
        await serving
