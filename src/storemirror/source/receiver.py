"""
The trigger receiver: takes Eventarc's deliveries over HTTP.

What becomes of them is decided in `storemirror.source.deliveries`; here is who may deliver, and
how much of a body is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from storemirror import serving
from storemirror.bus.port import Publisher
from storemirror.clock import Clock
from storemirror.model.entity import Model
from storemirror.source.deliveries import BODY_MAX_BYTES, Deliveries, is_from_browser
from storemirror.source.receiver_auth import CallerRules, CallerVerifier, Refusal
from storemirror.source.unreadable import KEPT_MAX_BYTES
from storemirror.telemetry import LogEvent

#: Deliveries under way at a time; more are answered 503, and come again.
DELIVERIES_MAX_COUNT: Final = 256

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class CallerCounts:
    """Requests that were not taken as deliveries."""

    #: Callers who could not prove that they may deliver.
    caller_refused_count: int = 0
    #: The caller went away before all of its delivery had come.
    interrupted_count: int = 0


class TriggerReceiver:
    """An ASGI application.  Every path takes deliveries; GET /healthz tells the counts."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        model: Model,
        source: str,
        clock: Clock,
        callers: CallerRules | None,
    ) -> None:
        """See `create_trigger_receiver`."""
        self.counts = CallerCounts()
        self.deliveries = Deliveries(publisher=publisher, model=model, source=source)
        self._under_way_count = 0
        self._verifier = None if callers is None else CallerVerifier(callers, clock)
        self._app = Starlette(
            routes=[
                # Cloud Run keeps some paths that end in z to itself: the second name is for it.
                Route("/healthz", self._health, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/{path:path}", self._deliver, methods=["POST"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)

    def status(self) -> Mapping[str, object]:
        """Give the counts, and how they went to the bus."""
        return {**asdict(self.counts), **self.deliveries.status()}

    async def _health(self, _: Request) -> Response:
        return JSONResponse(self.status())

    async def _deliver(self, request: Request) -> Response:
        refusal = await self._refusal_of(request)
        if refusal is not None:
            self.counts.caller_refused_count += 1
            _log.warning(
                LogEvent.CALLER_REFUSED.value, reason=refusal.reason, status=refusal.status
            )
            return Response(status_code=refusal.status)
        # Counted once the caller may deliver: nobody else can take a delivery's place.
        if self._under_way_count == DELIVERIES_MAX_COUNT:
            return Response(status_code=503)
        self._under_way_count += 1
        try:
            return await self._take(request)
        finally:
            self._under_way_count -= 1

    async def _take(self, request: Request) -> Response:
        """Take a delivery of somebody who may deliver."""
        headers = dict(request.headers)
        try:
            body, size_bytes = await serving.body_of(
                request.receive, max_bytes=BODY_MAX_BYTES, kept_bytes=KEPT_MAX_BYTES
            )
        except serving.ClientDisconnected:
            self.counts.interrupted_count += 1
            return Response(status_code=400)
        status = await self.deliveries.take(headers, body, size_bytes=size_bytes)
        return Response(status_code=status)

    async def _refusal_of(self, request: Request) -> Refusal | None:
        """Tell why a caller may not deliver; None when it may."""
        if is_from_browser(request.headers):
            return Refusal(status=403, reason="browsers do not deliver")
        if self._verifier is None:
            return None
        return await self._verifier.refusal_of(request.headers.get("authorization", ""))


def create_trigger_receiver(
    *,
    publisher: Publisher,
    model: Model,
    source: str,
    clock: Clock,
    callers: CallerRules | None,
) -> TriggerReceiver:
    """
    Make the receiver.

    Args:
        publisher: where events go; not closed here.
        model: the declared entities; deliveries of other documents are counted and let go.
        source: the database whose deliveries are taken; see
            `storemirror.event.envelope.source_of`.
        clock: for the age of the callers' keys.
        callers: who may deliver; see `storemirror.source.receiver_auth.caller_rules`.  None only
            where no other machine can call.
    """
    return TriggerReceiver(
        publisher=publisher, model=model, source=source, clock=clock, callers=callers
    )


async def serve(
    app: TriggerReceiver,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Listen until `stop` is set; see `storemirror.serving.serve`."""
    await serving.serve(app, host, port, stop, on_listening=on_listening)
