"""Events of the built-in entities for tests of the SQL stage, made without the writer's mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import Change, Fields, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import MappedRow
from storemirror.sql.port import RowEvent


def written(
    model: Model,
    name: str,
    key: tuple[str, ...],
    at_us: int,
    *,
    origin: Origin = Origin.TRIGGER,
    observed_at_us: int | None = None,
    expected_version: int | None = None,
    participants: Mapping[str, int | None] | None = None,
    lossy_fields: tuple[str, ...] = (),
    **columns: Any,
) -> RowEvent:
    """A document as it was after a write at `at_us`; columns not named are NULL."""
    entity = model[name]
    row = MappedRow(
        columns={c.name: _json_scalar(columns.get(c.name)) for c in entity.columns},
        children={t.name: _participants(participants or {}) for t in entity.children},
        raw=None,
        lossy_fields=lossy_fields,
    )
    contents = {name: {"stringValue": str(value)} for name, value in columns.items()}
    contents["participants"] = {"stringValue": str(participants)}
    change = _change(
        entity,
        key,
        at_us,
        contents,
        origin,
        observed_at_us=observed_at_us,
        expected=expected_version,
    )
    return RowEvent(entity=entity, change=change, key=key, row=row)


def deleted(
    model: Model,
    name: str,
    key: tuple[str, ...],
    at_us: int,
    *,
    origin: Origin = Origin.TRIGGER,
    observed_at_us: int | None = None,
    expected_version: int | None = None,
) -> RowEvent:
    """A document's deletion, seen by a trigger with `at_us` as the before-image's update time."""
    entity = model[name]
    change = _change(
        entity, key, at_us, None, origin, observed_at_us=observed_at_us, expected=expected_version
    )
    return RowEvent(entity=entity, change=change, key=key, row=None)


def _change(
    entity: Entity,
    key: tuple[str, ...],
    at_us: int,
    contents: Fields | None,
    origin: Origin,
    *,
    observed_at_us: int | None,
    expected: int | None,
) -> Change:
    return Change(
        path=entity.path_of(key),
        version=version_of(at_us, is_deleted=contents is None),
        origin=origin,
        observed_at_us=at_us if observed_at_us is None else observed_at_us,
        fields=contents,
        digest=digest_of(contents),
        expected_version=expected,
    )


def _participants(participants: Mapping[str, int | None]) -> list[dict[str, str | bool | None]]:
    return [
        {"userId": user, "lastReadAt": None if read is None else rfc3339_from_us(read)}
        for user, read in participants.items()
    ]


def _json_scalar(value: Any) -> str | bool | None:
    """Times are given as microseconds, the only integers here."""
    if isinstance(value, int) and not isinstance(value, bool):
        return rfc3339_from_us(value)
    if value is None or isinstance(value, str | bool):
        return value
    raise TypeError(f"no column of a test holds {type(value).__name__}")
