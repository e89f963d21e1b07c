"""
A delivered message as an event about a row.

Pure: no I/O.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final, NamedTuple

from storemirror.bus.port import Message
from storemirror.errors import EntityUnknown, PoisonEventError
from storemirror.event.binding import structured_body
from storemirror.event.change import Change, Origin
from storemirror.event.envelope import Reference, decode_change, decode_event
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import CompiledMapping, check_key, compiled_mapping
from storemirror.model.types import DialectLimits
from storemirror.sql.port import RowEvent

#: Collections whose entity and key are remembered, some 500 bytes each.
_MOST_COLLECTIONS: Final = 8_192


class _Collection(NamedTuple):
    """What all documents of one collection share: a conversation has many messages."""

    entity: Entity
    mapping: CompiledMapping
    #: The key but for its last part, the document's id; sound.
    key: tuple[str, ...]
    #: Longest id, in code points.
    max_length: int


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
        self.model = model
        self._limits = limits
        self._source = source
        self._mappings = {e.name: compiled_mapping(e, limits) for e in model}
        self._collection = functools.lru_cache(_MOST_COLLECTIONS)(self._collection_of)

    @property
    def remembered_count(self) -> int:
        """Give of how many collections entity and key are remembered."""
        return self._collection.cache_info().currsize

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
        path = change.path
        collection_path, _, document_id = path.rpartition("/")
        try:
            entity, mapping, parent_key, max_length = self._collection(collection_path)
        except PoisonEventError:
            max_length = 0
        is_plain = 0 < len(document_id) <= max_length and document_id[-1] != " "
        if is_plain and "\0" not in document_id:
            key = (*parent_key, document_id)
        else:
            entity, key = self._match(path, change.event_id)
            check_key(entity, key, self._limits, event_id=change.event_id, path=path)
            mapping = self._mappings[entity.name]
        fields = change.fields
        row = None
        if fields is not None:
            row = mapping.row_of(fields, event_id=change.event_id, path=path)
        return RowEvent(entity=entity, change=change, key=key, row=row)

    def _collection_of(self, path: str) -> _Collection:
        """
        Give what the documents of a collection share.

        Raises:
            PoisonEventError: none of them can be applied.  It is not remembered: a path that fits
                no declaration has no bounds.
        """
        # Of which entity a document is, its collection decides: ids are parameters.
        entity, key = self.model.match(f"{path}/x")
        check_key(entity, key, self._limits)
        return _Collection(
            entity, self._mappings[entity.name], key[:-1], entity.keys[-1].max_length
        )

    def _match(self, path: str, event_id: str) -> tuple[Entity, tuple[str, ...]]:
        try:
            return self.model.match(path)
        except EntityUnknown:
            message = "no entity is declared for this path"
            raise EntityUnknown(message, event_id=event_id, path=path) from None


def _structured(message: Message) -> bytes:
    return structured_body(
        message.body, content_type=message.content_type, properties=message.properties
    )
