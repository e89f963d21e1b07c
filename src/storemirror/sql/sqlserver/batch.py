"""The procedures' input: events as JSON arrays with SQL Server's column names.  Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import EventType
from storemirror.model.entity import ChildTable, Entity, Model
from storemirror.model.mapping import JsonScalar
from storemirror.model.types import ColumnType
from storemirror.sql.names import pascal_case
from storemirror.sql.port import RowEvent

#: Most events that a procedure takes in one call.
CALL_LIMIT: Final = 1_000

_ENCODER = msgspec.json.Encoder()
_WRITTEN: Final = EventType.WRITTEN.value
_DELETED: Final = EventType.DELETED.value
#: U+0000 as JSON writes it, and not a backslash that is followed by the same letters.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_Spell = Callable[[JsonScalar], JsonScalar]
#: Declared name, column, and how a value is written where that is not as it is mapped.
_Columns = tuple[tuple[str, str, _Spell | None], ...]


@dataclass(frozen=True, slots=True)
class _EntityNames:
    """One entity's names as SQL Server has them, spelled once."""

    keys: tuple[str, ...]
    columns: _Columns
    children: tuple[tuple[str, _Columns], ...]
    #: Mapping revision that its events are mapped by.
    revision: int


class BatchEncoder:
    """Writes events as the procedures take them."""

    def __init__(self, model: Model, revisions: Mapping[str, int]) -> None:
        """
        Spell every name once.

        Args:
            model: the declarations.
            revisions: entity name -> mapping revision that the events are mapped by.
        """
        self._names = {e.name: _names_of(e, revisions[e.name]) for e in model}

    def events_json(self, events: Sequence[RowEvent]) -> str:
        """Write events of one entity and verb as a JSON array."""
        return _ENCODER.encode(
            [self._event(event, place) for place, event in enumerate(events)]
        ).decode()

    def keys_json(self, keys: Mapping[str, Iterable[tuple[str, ...]]]) -> str:
        """Write rows to lock or to make: entity name -> keys, as {"Table": [{"Key": …}]}."""
        return _ENCODER.encode(
            {
                name: [
                    dict(zip(self._names[name].keys, key, strict=True)) for key in sorted(wanted)
                ]
                for name, wanted in keys.items()
            }
        ).decode()

    def _event(self, event: RowEvent, place: int) -> dict[str, object]:
        change = event.change
        names = self._names[event.entity.name]
        version, observed_at_us = change.version, change.observed_at_us
        commit_time_us = version // 2
        committed_at = rfc3339_from_us(commit_time_us)
        encoded: dict[str, object] = {
            "_Position": place,
            "LastEventId": change.event_id,
            "LastEventType": _DELETED if version % 2 else _WRITTEN,
            "LastEventTime": committed_at,
            "LastEventVersion": str(version),
            "LastEventOrigin": change.origin,
            "LastEventDigest": change.digest,
            "MappingRevision": names.revision,
            # A trigger's two times are the same.
            "ObservedAt": committed_at
            if observed_at_us == commit_time_us
            else rfc3339_from_us(observed_at_us),
        }
        encoded.update(zip(names.keys, event.key, strict=True))
        if change.expected_version is not None:
            encoded["ExpectedVersion"] = str(change.expected_version)
        row = event.row
        if row is None:
            return encoded
        encoded.update(_spelled(names.columns, row.columns))
        if row.lossy_fields:
            encoded["LossyFields"] = _ENCODER.encode(row.lossy_fields).decode()
        if row.raw is not None:
            encoded["RawDocument"] = row.raw
        if names.children:
            encoded["Children"] = {
                table: [_spelled(columns, child) for child in row.children[table]]
                for table, columns in names.children
            }
        return encoded


def holds_nul(events: str) -> bool:
    r"""
    Tell whether encoded events hold U+0000, which the mapping lets none through.

    SQL Server would take it, and end the text there wherever it is handed on to C.

    >>> holds_nul('["a\\u0000"]'), holds_nul('["a\\\\u0000"]')
    (True, False)
    """
    return "\\u0000" in events and _NUL.search(events.encode()) is not None


def _spelled(columns: _Columns, values: Mapping[str, JsonScalar]) -> dict[str, object]:
    return {
        column: values[declared] if spell is None else spell(values[declared])
        for declared, column, spell in columns
    }


def _hex(value: JsonScalar) -> JsonScalar:
    """Write base64 as hexadecimal digits, which CONVERT reads everywhere."""
    return base64.b64decode(value).hex() if isinstance(value, str) else value


def _names_of(entity: Entity, revision: int) -> _EntityNames:
    return _EntityNames(
        revision=revision,
        keys=tuple(pascal_case(k.name) for k in entity.keys),
        columns=tuple(_column(c.name, c.type) for c in entity.columns),
        children=tuple((t.name, _child_columns(t)) for t in entity.children),
    )


def _child_columns(table: ChildTable) -> _Columns:
    key = _column(table.key.name, ColumnType.STRING)
    return (key, *(_column(c.name, c.type) for c in table.columns))


def _column(name: str, kind: ColumnType) -> tuple[str, str, _Spell | None]:
    return name, pascal_case(name), _hex if kind is ColumnType.BYTES else None
