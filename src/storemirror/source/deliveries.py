"""
What becomes of a trigger's delivery, whoever took it over HTTP: an event on the bus, or nothing.

The trigger receiver and the Firebase Functions are both hosts of this.  A delivery is answered
with success only when the bus has its event; Eventarc repeats any other for 24 hours, under the
same id.  What can never be read is published as it came, for the writer to set aside: refused, it
would be lost after those 24 hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from storemirror.bus.port import Message, Publisher
from storemirror.errors import BusRefused, EntityUnknown, MessageRefused, TransientError
from storemirror.model.entity import Model
from storemirror.source.eventarc import decode_delivery, traceparent_of
from storemirror.source.gathering import GatheringPublisher
from storemirror.source.port import DocumentChange
from storemirror.source.triggers import Unmirrored, change_of, message_of
from storemirror.source.unreadable import Unreadable, unreadable_message
from storemirror.telemetry import LogEvent

#: Largest body that can tell of a document: two images of 1 MiB, which an array of booleans makes
#: four times as large in protobuf, and base64 by another third.
BODY_MAX_BYTES: Final = 12 * 1024 * 1024

#: HTTP statuses of an answer: the delivery is dealt with; it is to come again.
DONE_STATUS: Final = 204
AGAIN_STATUS: Final = 503

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class DeliveryCounts:
    """What became of deliveries.  Every one that was answered is in exactly one of these."""

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
    #: The bus did not take the event: answered 503, delivered again.
    bus_failed_count: int = 0


class Deliveries:
    """Turns deliveries into events.  Safe for concurrent use, in one event loop."""

    def __init__(self, *, publisher: Publisher, model: Model, source: str) -> None:
        """
        Take deliveries for one database.

        Args:
            publisher: where events go; not closed here.
            model: the declared entities; deliveries of other documents are counted and let go.
            source: the database whose deliveries are taken; see
                `storemirror.event.envelope.source_of`.
        """
        self.counts = DeliveryCounts()
        self._gathering = GatheringPublisher(publisher)
        self._model = model
        self._source = source
        self._is_bus_failing = False

    def status(self) -> Mapping[str, object]:
        """Give the counts, and how they went to the bus."""
        return {
            **asdict(self.counts),
            "duplicate_count": self._gathering.duplicate_count,
            "batch_count": self._gathering.batch_count,
            "is_bus_failing": self._is_bus_failing,
        }

    async def take(
        self, headers: Mapping[str, str], body: bytes, *, size_bytes: int | None = None
    ) -> int:
        """
        Deal with one delivery, and give the HTTP status of its answer.

        Args:
            headers: of the request, by lower-case name, as Latin-1 text.
            body: of the request; of one above `BODY_MAX_BYTES` the beginning is enough.
            size_bytes: how many bytes the body had; None: `body` is all of it.

        Returns:
            `DONE_STATUS`: the bus has its event, or there is nothing to tell.  `AGAIN_STATUS`:
            published or not is unknown, or the bus says no; the delivery must come again.
        """
        size_bytes = len(body) if size_bytes is None else size_bytes
        if size_bytes > BODY_MAX_BYTES:
            reason = f"the body has {size_bytes} bytes, more than any document of Firestore"
            told: Message | Unreadable | None = Unreadable(reason=reason)
        else:
            told = self._told(headers, body)
        if told is None:
            return DONE_STATUS
        return await self._published(told, headers, body)

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
        self, told: Message | Unreadable, headers: Mapping[str, str], body: bytes
    ) -> int:
        """Publish what a delivery tells, and give the answer's status."""
        try:
            if isinstance(told, Message):
                refusal = await self._refusal_of(told)
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
            return AGAIN_STATUS
        self.counts.unreadable_count += 1
        _log.error(LogEvent.DELIVERY_UNREADABLE.value, reason=told.reason, path=told.path)
        return self._answered_by_bus()

    async def _refusal_of(self, message: Message) -> MessageRefused | None:
        try:
            await self._gathering.publish(message)
        except MessageRefused as exc:
            return exc
        return None

    def _answered_by_bus(self) -> int:
        if self._is_bus_failing:
            _log.info(LogEvent.BUS_RECOVERED.value)
        self._is_bus_failing = False
        return DONE_STATUS


def is_from_browser(headers: Mapping[str, str]) -> bool:
    """
    Tell whether a page in a browser calls: on loopback every page could fill the dead letters.

    Args:
        headers: of the request, by lower-case name.

    >>> is_from_browser({"origin": "https://example.com"}), is_from_browser({"ce-id": "1"})
    (True, False)
    """
    return "origin" in headers
