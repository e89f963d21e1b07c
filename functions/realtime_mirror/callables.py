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
import structlog
from firebase_functions import https_fn
from flask import Request, Response
from flask.typing import ResponseReturnValue

from realtime_mirror.deployment import options_of
from realtime_mirror.loop import LOOP
from realtime_mirror.settings import load
from storemirror.config import Settings
from storemirror.errors import CallRefused
from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.cors import Origins
from storemirror.gateway.protocol import Answer, CallStatus, error_answer, wants_stream
from storemirror.telemetry import LogEvent
from storemirror.wiring import Parts
from storemirror.wiring.gateway import Gateway, gateway_settings, opened_gateway

#: How long closing connections may take when an instance is stopped.
_CLOSE_TIMEOUT_S: Final = 5.0
#: How much of a request's body is read at a time.
_PIECE_BYTES: Final = 65_536

_log = structlog.get_logger(__name__)

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
        body, size_bytes = _body_of(request, max_bytes=load().gateway.body_max_bytes)
        answer = LOOP.run(self._answered(name, request.method, headers, body, size_bytes))
        return Response(answer.body, status=answer.status, headers=dict(answer.headers))

    async def _answered(
        self, name: str, method: str, headers: Mapping[str, str], body: bytes, size_bytes: int
    ) -> Answer:
        try:
            gateway = await self._opened_gateway()
        except CallRefused as refused:
            _log.error(LogEvent.GATEWAY_NOT_OPENED.value, callable=name, exc_info=refused.__cause__)
            return _unopened_answer(refused, method, headers)
        return await gateway.calls.answer(name, method, headers, body, size_bytes=size_bytes)

    async def _opened_gateway(self) -> Gateway:
        """
        Give the gateway.

        Raises:
            CallRefused: it cannot be opened; its cause is for the log alone, and names servers.
        """
        try:
            return await self._open()
        except Exception as exc:
            raise CallRefused(
                CallStatus.UNAVAILABLE, "The gateway cannot be opened; its log says why."
            ) from exc

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


def _body_of(request: Request, *, max_bytes: int) -> tuple[bytes, int]:
    """
    Read a request's body, and give its size in bytes.

    Args:
        request: not read yet.
        max_bytes: a longer one is read and dropped, piece by piece: unread, the framework would
            read it before the answer, all at once.  Cloud Run lets none longer than 32 MiB through.
    """
    body, size_bytes = bytearray(), 0
    while part := request.stream.read(_PIECE_BYTES):
        size_bytes += len(part)
        if size_bytes <= max_bytes:
            body += part
    return bytes(body), size_bytes


def _unopened_answer(refused: CallRefused, method: str, headers: Mapping[str, str]) -> Answer:
    """Refuse a call so that a web app, too, can tell why."""
    origins = Origins(load().gateway.allowed_origins)
    if method == "OPTIONS":
        return origins.preflight(headers)
    answer = error_answer(refused, as_stream=wants_stream(headers))
    shared = origins.headers_for(headers.get("origin", ""))
    return Answer(status=answer.status, headers={**answer.headers, **shared}, body=answer.body)


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
