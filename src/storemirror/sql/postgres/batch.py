"""The procedures' input: events as JSON arrays with PostgreSQL's column names.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import EventType
from storemirror.model.entity import Entity, Model
from storemirror.sql.names import snake_case
from storemirror.sql.port import RowEvent

_ENCODER = msgspec.json.Encoder()
_WRITTEN: Final = EventType.WRITTEN.value
_DELETED: Final = EventType.DELETED.value


@dataclass(frozen=True, slots=True)
class _EntityNames:
    """One entity's names as PostgreSQL has them, spelled once."""

    keys: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    children: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
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
        return _ENCODER.encode([self._event(event) for event in events]).decode()

    def keys_json(self, keys: Mapping[str, Iterable[tuple[str, ...]]]) -> str:
        """Write rows to lock or to make: entity name -> keys, as {"table": [{"key": …}]}."""
        return _ENCODER.encode(
            {
                snake_case(name): [
                    dict(zip(self._names[name].keys, key, strict=True)) for key in sorted(wanted)
                ]
                for name, wanted in keys.items()
            }
        ).decode()

    def _event(self, event: RowEvent) -> dict[str, object]:
        change = event.change
        names = self._names[event.entity.name]
        version, observed_at_us = change.version, change.observed_at_us
        commit_time_us = version // 2
        committed_at = rfc3339_from_us(commit_time_us)
        # One display and no assignments: this is made for every event.  msgspec writes an Enum's
        # value faster than Python finds it.
        encoded: dict[str, object] = {
            "last_event_id": change.event_id,
            "last_event_type": _DELETED if version % 2 else _WRITTEN,
            "last_event_time": committed_at,
            "last_event_version": str(version),
            "last_event_origin": change.origin,
            "last_event_digest": change.digest,
            "mapping_revision": names.revision,
            # A trigger's two times are the same.
            "observed_at": committed_at
            if observed_at_us == commit_time_us
            else rfc3339_from_us(observed_at_us),
        }
        encoded.update(zip(names.keys, event.key, strict=True))
        if change.expected_version is not None:
            encoded["expected_version"] = str(change.expected_version)
        row = event.row
        if row is None:
            return encoded
        columns = row.columns
        for declared, column in names.columns:
            encoded[column] = columns[declared]
        if row.lossy_fields:
            encoded["lossy_fields"] = row.lossy_fields
        if row.raw is not None:
            encoded["raw_document"] = row.raw
        if names.children:
            encoded["children"] = {
                table: [
                    {column: child[declared] for declared, column in columns}
                    for child in row.children[name]
                ]
                for name, table, columns in names.children
            }
        return encoded


def _names_of(entity: Entity, revision: int) -> _EntityNames:
    return _EntityNames(
        revision=revision,
        keys=tuple(snake_case(k.name) for k in entity.keys),
        columns=tuple((c.name, snake_case(c.name)) for c in entity.columns),
        children=tuple(
            (
                t.name,
                snake_case(t.name),
                tuple((n, snake_case(n)) for n in (t.key.name, *(c.name for c in t.columns))),
            )
            for t in entity.children
        ),
    )
