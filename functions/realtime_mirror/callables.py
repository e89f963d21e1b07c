"""
The callables: one function each, all answered by the same gateway.

They take the whole HTTP request, as the ASGI server does: the SDK's own `on_call` knows no service
accounts, and its errors are not ours (ADR 13).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import functions_framework
from firebase_functions import https_fn
from flask import Request, Response
from flask.typing import ResponseReturnValue

from realtime_mirror.deployment import options_of
from realtime_mirror.loop import LOOP
from realtime_mirror.settings import load
from storemirror.config import Settings
from storemirror.gateway.callables import CALLABLES
from storemirror.wiring import Parts
from storemirror.wiring.gateway import Gateway, gateway_settings, opened_gateway

#: How long closing connections may take when an instance is stopped.
_CLOSE_TIMEOUT_S: Final = 5.0

CallableFunction = Callable[[Request], ResponseReturnValue]


class OpenGateway:
    """The process's gateway: opened by the first call, and again after it could not be."""

    def __init__(self) -> None:
        """Open nothing."""
        self._opening = asyncio.Lock()
        self._gateway: Gateway | None = None
        self._opened = contextlib.AsyncExitStack()

    def answer(self, name: str, request: Request) -> ResponseReturnValue:
        """Answer one request."""
        headers = {key.lower(): text for key, text in request.headers.items()}
        body = request.get_data(cache=False)
        answer = LOOP.run(self._answered(name, request.method, headers, body))
        return Response(answer.body, status=answer.status, headers=dict(answer.headers))

    async def _answered(
        self, name: str, method: str, headers: Mapping[str, str], body: bytes
    ) -> Any:
        gateway = await self._open()
        return await gateway.calls.answer(name, method, headers, body)

    async def _open(self) -> Gateway:
        async with self._opening:
            if self._gateway is None:
                async with contextlib.AsyncExitStack() as stack:
                    parts = await stack.enter_async_context(Parts(load()))
                    self._gateway = await stack.enter_async_context(opened_gateway(parts))
                    self._opened = stack.pop_all()
                    atexit.register(self._close)
            return self._gateway

    def _close(self) -> None:
        with contextlib.suppress(TimeoutError):
            LOOP.run(self._opened.aclose(), timeout_s=_CLOSE_TIMEOUT_S)


#: The process's only one.
GATEWAY: Final = OpenGateway()


def callable_functions() -> Mapping[str, CallableFunction]:
    """Give every callable's function, by the name under which clients call it."""
    settings = load()
    return {name: _function(name, settings) for name in CALLABLES}


def _function(name: str, settings: Settings) -> CallableFunction:
    """Make one callable's function, with what `firebase deploy` reads of it."""

    def take(request: Request) -> ResponseReturnValue:
        return GATEWAY.answer(name, request)

    take.__name__ = take.__qualname__ = name
    function: Any = functions_framework.http(take)
    function.__firebase_endpoint__ = _endpoint(name, settings)
    named: CallableFunction = function
    return named


def _endpoint(name: str, settings: Settings) -> Any:
    """Describe one function for `firebase deploy`: a callable, open to whoever has a token."""

    def described(_: object) -> None:
        """Lend the decorator a name; never called."""

    described.__name__ = name
    decorated: Any = https_fn.on_call(
        concurrency=settings.functions.concurrency,
        min_instances=settings.functions.min_instances,
        max_instances=settings.functions.max_instances,
        **options_of(settings, needed=gateway_settings(Parts(settings))),
    )(described)
    return decorated.__firebase_endpoint__
