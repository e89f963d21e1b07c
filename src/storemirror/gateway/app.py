"""
The gateway as an ASGI application: callables at the paths where Firebase's SDKs look for them.

`/{name}` is a custom domain's and `httpsCallableFromURL`'s, `/{project}/{region}/{name}` the
emulator's.  What is answered is decided in `storemirror.gateway.calls`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from storemirror import serving
from storemirror.gateway.calls import Calls

#: Open connections at a time, idle ones too: an app's are kept for some seconds after each call.
CONNECTIONS_MAX_COUNT: Final = 10_000
#: How long a request's body may take to come.
BODY_TIMEOUT_S: Final = 30.0

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class GatewayApp:
    """An ASGI application; GET /healthz tells the counts."""

    def __init__(
        self, calls: Calls, *, status: Callable[[], Mapping[str, object]] | None = None
    ) -> None:
        """
        Take what answers.

        Args:
            calls: answers.
            status: what /healthz tells beside the counts; None for nothing.
        """
        self._calls = calls
        self._status = status
        self._app = Starlette(
            routes=[
                # Cloud Run keeps some paths that end in z to itself: the second name is for it.
                Route("/healthz", self._health, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/{name}", self._call, methods=_METHODS),
                Route("/{project}/{region}/{name}", self._call, methods=_METHODS),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)

    async def _health(self, _: Request) -> Response:
        more = {} if self._status is None else self._status()
        return JSONResponse({**asdict(self._calls.counts), **more})

    async def _call(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body, size_bytes = await serving.body_of(
                    request, max_bytes=self._calls.limits.body_max_bytes
                )
        except (ClientDisconnect, TimeoutError):
            # Nobody is left to read it, or the connection is of no use any more.
            return Response(status_code=408, headers={"connection": "close"})
        answer = await self._calls.answer(
            request.path_params["name"],
            request.method,
            dict(request.headers),
            body,
            size_bytes=size_bytes,
        )
        return Response(answer.body, status_code=answer.status, headers=dict(answer.headers))


async def serve(
    app: GatewayApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Listen until `stop` is set; see `storemirror.serving.serve`."""
    await serving.serve(
        app, host, port, stop, requests_max_count=CONNECTIONS_MAX_COUNT, on_listening=on_listening
    )
