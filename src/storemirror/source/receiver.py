"""
The trigger receiver: takes Eventarc's deliveries over HTTP and puts their events on the bus.

A delivery is answered with success only when the bus has its event; Eventarc repeats any other for
24 hours, under the same id.  What can never be read is published as it came, for the writer to set
aside: refused, it would be lost after those 24 hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from storemirror.bus.port import Message, Publisher
from storemirror.clock import Clock
from storemirror.errors import BusRefused, ConfigError, EntityUnknown, TransientError
from storemirror.model.entity import Model
from storemirror.source.eventarc import decode_delivery, traceparent_of
from storemirror.source.gathering import GatheringPublisher
from storemirror.source.port import DocumentChange
from storemirror.source.receiver_auth import CallerRules, CallerVerifier, Refusal
from storemirror.source.triggers import Unmirrored, change_of, message_of
from storemirror.source.unreadable import KEPT_MAX_BYTES, Unreadable, unreadable_message
from storemirror.telemetry import LogEvent

#: Largest body that can tell of a document: two images of 1 MiB, which an array of booleans makes
#: four times as large in protobuf, and base64 by another third.
BODY_MAX_BYTES: Final = 12 * 1024 * 1024
#: Deliveries under way at a time; more are answered 503, and come again.
REQUESTS_MAX_COUNT: Final = 256
#: How long deliveries under way may take once the receiver is to stop.
SHUTDOWN_TIMEOUT_S: Final = 10

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ReceiverCounts:
    """What a receiver has done since it exists.  Every delivery is in exactly one of these."""

    #: Deliveries whose event is on the bus.
    published_count: int = 0
    #: Deliveries that could not be read, or whose event the bus refused; on the bus as they came.
    unreadable_count: int = 0
    #: Of documents that no declared entity is for.
    undeclared_count: int = 0
    #: Writes that changed nothing; only the emulator tells of them.
    nothing_changed_count: int = 0
    #: Deletes of documents that were not there; only the emulator tells of them.
    never_existed_count: int = 0
    #: Callers who could not prove that they may deliver.
    caller_refused_count: int = 0
    #: The bus did not take the event: answered 503, delivered again.
    bus_failed_count: int = 0
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
        self.counts = ReceiverCounts()
        self._gathering = GatheringPublisher(publisher)
        self._model = model
        self._source = source
        self._verifier = None if callers is None else CallerVerifier(callers, clock)
        self._is_bus_failing = False
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
        return {
            **asdict(self.counts),
            "duplicate_count": self._gathering.duplicate_count,
            "batch_count": self._gathering.batch_count,
            "is_bus_failing": self._is_bus_failing,
        }

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
        headers = dict(request.headers)
        try:
            body, size_bytes = await _body_of(request)
        except ClientDisconnect:
            self.counts.interrupted_count += 1
            return Response(status_code=400)
        if size_bytes > BODY_MAX_BYTES:
            reason = f"the body has {size_bytes} bytes, more than any document of Firestore"
            told: Message | Unreadable | None = Unreadable(reason=reason)
        else:
            told = self._told(headers, body)
        return Response(status_code=await self._published(told, headers, body))

    async def _refusal_of(self, request: Request) -> Refusal | None:
        """Tell why a caller may not deliver; None when it may."""
        if "origin" in request.headers:
            # On loopback every page that a browser shows here could fill the dead letters.
            return Refusal(status=403, reason="browsers do not deliver")
        if self._verifier is None:
            return None
        return await self._verifier.refusal_of(request.headers.get("authorization", ""))

    def _told(self, headers: Mapping[str, str], body: bytes) -> Message | Unreadable | None:
        """Turn a delivery into what goes to the bus; None when nothing does."""
        delivery = decode_delivery(headers, body, source=self._source)
        if isinstance(delivery, Unreadable):
            return delivery
        return self._event_of(delivery, traceparent_of(headers))

    def _event_of(self, delivery: DocumentChange, traceparent: str | None) -> Message | None:
        change = change_of(delivery, traceparent=traceparent)
        match change:
            case Unmirrored.NEVER_EXISTED:
                self.counts.never_existed_count += 1
                return None
            case Unmirrored.NOTHING_CHANGED:
                self.counts.nothing_changed_count += 1
                return None
        try:
            entity, _ = self._model.match(delivery.path)
        except EntityUnknown:
            self.counts.undeclared_count += 1
            return None
        return message_of(change, entity.name, self._source)

    async def _published(
        self, told: Message | Unreadable | None, headers: Mapping[str, str], body: bytes
    ) -> int:
        """Publish what a delivery tells, and give the answer's status."""
        if told is None:
            return 204
        try:
            if isinstance(told, Message):
                refusal = await self._refusal_by_bus(told)
                if refusal is None:
                    self.counts.published_count += 1
                    return self._answered_by_bus()
                # Too large, or a path that cannot be stored: repeated, it would be refused again.
                told = Unreadable(reason=str(refusal), path=told.properties.get("path", ""))
            await self._gathering.publish(
                unreadable_message(told, headers, body, source=self._source)
            )
        except (TransientError, BusRefused) as exc:
            self.counts.bus_failed_count += 1
            if not self._is_bus_failing:
                _log.error(LogEvent.BUS_FAILED.value, error=str(exc), hint=exc.hint)
            self._is_bus_failing = True
            return 503
        self.counts.unreadable_count += 1
        _log.error(LogEvent.DELIVERY_UNREADABLE.value, reason=told.reason, path=told.path)
        return self._answered_by_bus()

    async def _refusal_by_bus(self, message: Message) -> BusRefused | None:
        try:
            await self._gathering.publish(message)
        except BusRefused as exc:
            return exc
        return None

    def _answered_by_bus(self) -> int:
        if self._is_bus_failing:
            _log.info(LogEvent.BUS_RECOVERED.value)
        self._is_bus_failing = False
        return 204


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
    """
    Listen until `stop` is set; deliveries under way are answered first, in `SHUTDOWN_TIMEOUT_S`.

    Args:
        app: the receiver.
        host: address to listen on.
        port: 0 takes a free one.
        stop: ends it.
        on_listening: told the port, once connections are taken.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    with _listening(host, port) as listener:
        if on_listening is not None:
            on_listening(listener.getsockname()[1])
        server = _Server(_config(app))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            await serving


def _config(app: TriggerReceiver) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=REQUESTS_MAX_COUNT,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


class _Server(uvicorn.Server):
    """Leaves signals to the command line, which sets `stop`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=REQUESTS_MAX_COUNT)
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"cannot listen on {host} port {port}: {exc}") from exc
    with listener:
        yield listener


async def _body_of(request: Request) -> tuple[bytes, int]:
    """Read the body: what of it is kept, and how many bytes it had."""
    size_bytes = 0
    chunks: list[bytes] = []
    async for chunk in request.stream():
        size_bytes += len(chunk)
        # The rest of what is too large is read and dropped: unread, the answer would not arrive.
        if size_bytes <= BODY_MAX_BYTES:
            chunks.append(chunk)
    body = b"".join(chunks)
    return (
        (body, size_bytes) if size_bytes <= BODY_MAX_BYTES else (body[:KEPT_MAX_BYTES], size_bytes)
    )
