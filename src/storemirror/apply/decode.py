"""
A delivered message as an event about a row.

Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import replace

from storemirror.bus.port import Message
from storemirror.errors import EntityUnknown
from storemirror.event.binding import structured_body
from storemirror.event.change import Change, Origin
from storemirror.event.envelope import Reference, decode_change, decode_event
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import check_key, compiled_mapping
from storemirror.model.types import DialectLimits
from storemirror.sql.port import RowEvent


class EventDecoder:
    """Reads messages of one Firestore database for one declared model and one SQL dialect."""

    def __init__(self, *, model: Model, limits: DialectLimits, source: str) -> None:
        """
        Say what is read.

        Args:
            model: the declared entities.
            limits: what the SQL database cannot hold.
            source: the only CloudEvents source whose events are taken
                (`storemirror.event.envelope.source_of`).
        """
        self._model = model
        self._limits = limits
        self._source = source
        self._mappings = {e.name: compiled_mapping(e, limits) for e in model}

    def decode(self, message: Message) -> RowEvent:
        """
        Read one message that carries its contents.

        Args:
            message: a CloudEvent, in structured or binary mode.

        Raises:
            PoisonEventError: it can never be applied; the class carries the reason, the message
                event id and path, never contents.
        """
        return self._row_event(decode_change(_structured(message), source=self._source))

    def decode_event(self, message: Message) -> RowEvent | Reference:
        """
        Read one message, with its contents or without.

        Raises:
            PoisonEventError: see `decode`.
        """
        event = decode_event(_structured(message), source=self._source)
        return event if isinstance(event, Reference) else self._row_event(event)

    def decode_read(self, reference: Reference, message: Message) -> RowEvent:
        """
        Read the message that says what was found where a reference pointed.

        Is it the very version that was referred to, it is applied for the reason that it was sent
        for: a repair stays a repair.

        Raises:
            PoisonEventError: see `decode`.
        """
        change = decode_change(_structured(message), source=self._source)
        is_same = change.version == reference.version
        if is_same and reference.origin is not Origin.DUAL_WRITE:
            change = replace(
                change, origin=reference.origin, expected_version=reference.expected_version
            )
        return self._row_event(change)

    def _row_event(self, change: Change) -> RowEvent:
        event_id = change.event_id
        entity, key = self._match(change.path, event_id)
        check_key(entity, key, self._limits, event_id=event_id, path=change.path)
        row = None
        if change.fields is not None:
            row = self._mappings[entity.name].row_of(
                change.fields, event_id=event_id, path=change.path
            )
        return RowEvent(entity=entity, change=change, key=key, row=row)

    def _match(self, path: str, event_id: str) -> tuple[Entity, tuple[str, ...]]:
        try:
            return self._model.match(path)
        except EntityUnknown:
            message = "no entity is declared for this path"
            raise EntityUnknown(message, event_id=event_id, path=path) from None


def _structured(message: Message) -> bytes:
    return structured_body(
        message.body, content_type=message.content_type, properties=message.properties
    )
