"""The procedures' input: events as JSON arrays with PostgreSQL's column names.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import msgspec
from msgspec import UNSET

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import EventType
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import JsonScalar, MappedRow
from storemirror.sql.names import snake_case
from storemirror.sql.port import RowEvent

_ENCODER = msgspec.json.Encoder()
_WRITTEN: Final = EventType.WRITTEN.value
_DELETED: Final = EventType.DELETED.value


#: What every event has, in the order in which `BatchEncoder` gives it.
_META: Final = (
    "last_event_id",
    "last_event_type",
    "last_event_time",
    "last_event_version",
    "last_event_origin",
    "last_event_digest",
    "mapping_revision",
    "observed_at",
    "expected_version",
)
#: What a write has besides, after the columns.
_CONTENTS: Final = ("lossy_fields", "raw_document", "children")


@dataclass(frozen=True, slots=True)
class _EntityForm:
    """How one entity's events look as PostgreSQL has them, prepared once."""

    keys: tuple[str, ...]
    #: Make an event of `_META`, keys, and for a write columns and `_CONTENTS`.
    written: Callable[..., object]
    deleted: Callable[..., object]
    #: Gives the columns in the order of `written`.
    columns: Callable[[Mapping[str, JsonScalar]], tuple[JsonScalar, ...]]
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
        self._forms = {e.name: _form_of(e, revisions[e.name]) for e in model}

    def events_json(self, events: Sequence[RowEvent]) -> str:
        """Write events of one entity and verb as a JSON array."""
        return _ENCODER.encode([self._event(event) for event in events]).decode()

    def keys_json(self, keys: Mapping[str, Iterable[tuple[str, ...]]]) -> str:
        """Write rows to lock or to make: entity name -> keys, as {"table": [{"key": …}]}."""
        return _ENCODER.encode(
            {
                snake_case(name): [
                    dict(zip(self._forms[name].keys, key, strict=True)) for key in sorted(wanted)
                ]
                for name, wanted in keys.items()
            }
        ).decode()

    def _event(self, event: RowEvent) -> object:
        change, row = event.change, event.row
        form = self._forms[event.entity.name]
        version, observed_at_us = change.version, change.observed_at_us
        expected = change.expected_version
        commit_time_us = version // 2
        committed_at = rfc3339_from_us(commit_time_us)
        # One display and no assignments: this is made for every event.  msgspec writes an Enum's
        # value faster than Python finds it.
        meta = (
            change.event_id,
            _DELETED if version % 2 else _WRITTEN,
            committed_at,
            str(version),
            change.origin,
            change.digest,
            form.revision,
            # A trigger's two times are the same.
            committed_at if observed_at_us == commit_time_us else rfc3339_from_us(observed_at_us),
            UNSET if expected is None else str(expected),
            *event.key,
        )
        if row is None:
            return form.deleted(*meta)
        return form.written(
            *meta,
            *form.columns(row.columns),
            row.lossy_fields or UNSET,
            UNSET if row.raw is None else row.raw,
            _children(form, row) if form.children else UNSET,
        )


def _children(form: _EntityForm, row: MappedRow) -> dict[str, list[dict[str, JsonScalar]]]:
    """Give the rows of the child tables."""
    return {
        table: [
            {column: child[declared] for declared, column in columns}
            for child in row.children[name]
        ]
        for name, table, columns in form.children
    }


def _form_of(entity: Entity, revision: int) -> _EntityForm:
    keys = tuple(snake_case(k.name) for k in entity.keys)
    columns = tuple(snake_case(c.name) for c in entity.columns)
    return _EntityForm(
        revision=revision,
        keys=keys,
        written=_struct((*_META, *keys, *columns, *_CONTENTS)),
        deleted=_struct((*_META, *keys)),
        columns=_getter(tuple(c.name for c in entity.columns)),
        children=tuple(
            (
                t.name,
                snake_case(t.name),
                tuple((n, snake_case(n)) for n in (t.key.name, *(c.name for c in t.columns))),
            )
            for t in entity.children
        ),
    )


def _struct(names: Sequence[str]) -> Callable[..., object]:
    """
    Give a type of objects with these names in JSON, made from values in their order.

    Half the time of a dictionary: its names are written down once, and not once an event.  Inside
    it they are numbered, since a column's name need not be one that Python takes.
    """
    fields = {f"_{place}": name for place, name in enumerate(names)}
    return msgspec.defstruct(
        "Event", [(field, object) for field in fields], rename=fields, gc=False
    )


def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, JsonScalar]], tuple[JsonScalar, ...]]:
    """Give the function that takes these values out of a mapping, in this order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda columns: tuple(columns[name] for name in names)
