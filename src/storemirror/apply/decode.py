"""
A delivered message as an event about a row.

Pure: no I/O.
"""

from __future__ import annotations

from storemirror.bus.port import Message
from storemirror.errors import EntityUnknown
from storemirror.event.binding import structured_body
from storemirror.event.envelope import decode_change
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
        Read one message.

        Args:
            message: a CloudEvent, in structured or binary mode.

        Raises:
            PoisonEventError: it can never be applied; the class carries the reason, the message
                event id and path, never contents.
        """
        body = structured_body(
            message.body, content_type=message.content_type, properties=message.properties
        )
        change = decode_change(body, source=self._source)
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
