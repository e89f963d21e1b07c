"""Events as SQL Server's procedures take them, made beside the adapter's own encoding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from storemirror.clock import rfc3339_from_us
from storemirror.model.entity import Model
from storemirror.sql.names import pascal_case
from storemirror.sql.port import RowEvent


def events_json(events: Sequence[RowEvent]) -> str:
    """Write events of one entity and verb."""
    return json.dumps([_event(place, event) for place, event in enumerate(events)])


def keys_json(model: Model, keys: Mapping[str, Iterable[tuple[str, ...]]]) -> str:
    """Write rows to lock or to make: entity name -> keys."""
    return json.dumps(
        {
            name: [dict(zip(_keys(model, name), key, strict=True)) for key in wanted]
            for name, wanted in keys.items()
        }
    )


def _keys(model: Model, name: str) -> list[str]:
    return [pascal_case(part.name) for part in model[name].keys]


def _event(place: int, event: RowEvent) -> dict[str, object]:
    change = event.change
    found: dict[str, object] = {
        "_Position": place,
        "LastEventId": change.event_id,
        "LastEventType": change.event_type.value,
        "LastEventTime": rfc3339_from_us(change.commit_time_us),
        "LastEventVersion": str(change.version),
        "LastEventOrigin": change.origin.value,
        "LastEventDigest": change.digest,
        "MappingRevision": 1,
        "ObservedAt": rfc3339_from_us(change.observed_at_us),
    }
    if change.expected_version is not None:
        found["ExpectedVersion"] = str(change.expected_version)
    for part, value in zip(event.entity.keys, event.key, strict=True):
        found[pascal_case(part.name)] = value
    row = event.row
    if row is None:
        return found
    found |= _pascal(row.columns)
    if row.lossy_fields:
        found["LossyFields"] = json.dumps(row.lossy_fields)
    if row.raw is not None:
        found["RawDocument"] = row.raw
    found["Children"] = {
        pascal_case(table): [_pascal(child) for child in children]
        for table, children in row.children.items()
    }
    return found


def _pascal(columns: Mapping[str, object]) -> dict[str, object]:
    return {pascal_case(name): value for name, value in columns.items()}
