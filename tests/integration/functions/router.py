"""What Firebase does between the emulator and functions: each trigger's deliveries to its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from storemirror.bus.waiting import News
from storemirror.source.receiver import TriggerReceiver, serve
from tests.integration.functions.framework import Function
from tests.integration.receiver.hosted import HOST, call

_TIMEOUT_S = 60.0
#: Said anew on each connection.
_OF_THE_CONNECTION = ("host", "connection", "content-length", "transfer-encoding")


class Router:
    """Passes each delivery on as it is, and notes the answers."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._answered = News()
        #: How many answers each function gave, by status.
        self.answers: dict[str, Counter[int]] = {name: Counter() for name in functions}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        name = request.url.path.rsplit("/", 1)[-1]
        headers = {n: t for n, t in request.headers.items() if n not in _OF_THE_CONNECTION}
        function = self._functions[name]
        answer = await call(function.port, "POST", request.url.path, headers, await request.body())
        await Response(status_code=answer.status)(scope, receive, send)
        self.answers[name][answer.status] += 1
        self._answered.tell()

    async def delivered(self, count: int) -> None:
        """Wait until so many deliveries were answered, and see that there were no more."""
        async with asyncio.timeout(_TIMEOUT_S):
            news = self._answered.next()
            while self._count() < count:
                await news.wait()
                news = self._answered.next()
        assert self._count() == count

    def _count(self) -> int:
        return sum(answers.total() for answers in self.answers.values())


@contextlib.asynccontextmanager
async def routed(functions: Mapping[str, Function], port: int) -> AsyncIterator[Router]:
    """Lend a router that listens where the emulator delivers to."""
    router, stop = Router(functions), asyncio.Event()
    listening = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(cast("TriggerReceiver", router), HOST, port, stop, on_listening=listening.set_result)
    )
    try:
        await listening
        yield router
    finally:
        stop.set()
        await serving
