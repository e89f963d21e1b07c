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

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from storemirror import serving
from storemirror.gateway.calls import Calls

#: How long a request's body may take to come.
BODY_TIMEOUT_S: Final = 30.0

#: Cloud Run keeps some paths that end in z to itself: the second name is for it.
_HEALTH_PATHS: Final = ("/healthz", "/health")


class GatewayApp:
    """
    An ASGI application; GET /healthz tells the counts.

    Without a framework's router: there are two shapes of path, and finding that out by one cost a
    tenth of a call.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        status: Callable[[], Mapping[str, object]] | None = None,
        room: serving.BodyRoom | None = None,
    ) -> None:
        """
        Take what answers.

        Args:
            calls: answers.
            status: what /healthz tells beside the counts; None for nothing.
            room: for bodies that are still coming; None: of its own.
        """
        self._calls = calls
        self._status = status
        self._room = room or serving.BodyRoom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._response(scope, receive)
        await response(scope, receive, send)

    async def _response(self, scope: Scope, receive: Receive) -> Response:
        path: str = scope["path"]
        if path in _HEALTH_PATHS and scope["method"] in ("GET", "HEAD"):
            more = {} if self._status is None else self._status()
            return JSONResponse({**asdict(self._calls.counts), **more})
        name = callable_named(path)
        if name is None:
            return Response("Not Found", status_code=404)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body, size_bytes = await serving.body_of(
                    receive, max_bytes=self._calls.limits.body_max_bytes, room=self._room
                )
        except serving.BodiesFull:
            # Before anybody has proved who they are: counted, and not logged.
            self._calls.counts.failed_count += 1
            return Response(status_code=503, headers={"connection": "close"})
        except (serving.ClientDisconnected, TimeoutError):
            # Nobody is left to read it, or the connection is of no use any more.
            return Response(status_code=408, headers={"connection": "close"})
        answer = await self._calls.answer(
            name, scope["method"], serving.headers_of(scope), body, size_bytes=size_bytes
        )
        return Response(answer.body, status_code=answer.status, headers=answer.headers)


def callable_named(path: str) -> str | None:
    """
    Give the name of the callable that a path stands for; None: no callable has such a path.

    >>> callable_named("/sqlGatewayDmSend"), callable_named("/p/us-central1/sqlGatewayDmSend")
    ('sqlGatewayDmSend', 'sqlGatewayDmSend')
    >>> callable_named("/"), callable_named("/a/b"), callable_named("/a//c")
    (None, None, None)
    """
    parts = path.split("/")[1:]
    return parts[-1] if len(parts) in (1, 3) and all(parts) else None


async def serve(
    app: GatewayApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Listen until `stop` is set; see `storemirror.serving.serve`."""
    await serving.serve(app, host, port, stop, on_listening=on_listening)
