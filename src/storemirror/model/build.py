"""From declarations, all of them checked, to entities.  Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import msgspec

from storemirror.model.crosscheck import DEFAULT_KEY_LENGTH, source_type
from storemirror.model.declared import Declaration, DeclaredEntity
from storemirror.model.entity import (
    ChildColumn,
    ChildTable,
    Column,
    DerivedColumn,
    Entity,
    KeyPart,
    LatestColumn,
    Rollup,
)
from storemirror.model.types import ColumnType

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def built_entities(declarations: Sequence[Declaration]) -> tuple[Entity, ...]:
    """Give the entities, roll-up parents before their children, else in declared order."""
    by_name = {d.entity.name: d for d in declarations}
    child_of = {d.entity.rollup.into: d for d in declarations if d.entity.rollup is not None}
    ordered: dict[str, Declaration] = {}
    for declaration in declarations:
        rollup = declaration.entity.rollup
        if rollup is not None:
            ordered.setdefault(rollup.into, by_name[rollup.into])
        ordered.setdefault(declaration.entity.name, declaration)
    return tuple(_entity(d, child_of.get(name)) for name, d in ordered.items())


def _entity(declaration: Declaration, child: Declaration | None) -> Entity:
    declared = declaration.entity
    filled_by = None if child is None else _rollup(child)
    columns = tuple(
        Column(name=name, type=c.type, is_required=c.required, field=_parts(c.field or name))
        for name, c in declared.columns.items()
    )
    rollup_columns = tuple(_rollup_columns(filled_by))
    types = {c.name: c.type for c in (*columns, *rollup_columns)}
    entity = Entity(
        name=declared.name,
        check=declared.check,
        path=tuple(declared.path.split("/")),
        category=declared.category,
        has_audit=declared.audit,
        has_raw=declared.raw,
        keys=tuple(
            KeyPart(name=p, max_length=declared.key_length.get(p, DEFAULT_KEY_LENGTH))
            for p in declared.parameters
        ),
        columns=columns,
        children=tuple(_children(declared)),
        derived=tuple(
            DerivedColumn(name=name, type=types[d.first_of[0]], sources=tuple(d.first_of))
            for name, d in declared.derived.items()
        ),
        rollup=_rollup(declaration),
        rollup_columns=rollup_columns,
        digest="",
    )
    return replace(entity, digest=_digest(entity, child, filled_by))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _children(declared: DeclaredEntity) -> Iterator[ChildTable]:
    for child in declared.children:
        yield ChildTable(
            name=child.name,
            key=KeyPart(name=child.key, max_length=DEFAULT_KEY_LENGTH),
            field=_parts(child.source),
            columns=tuple(
                ChildColumn(name=name, type=c.type, from_map=_parts(c.from_map))
                for name, c in child.columns.items()
            ),
        )


def _rollup(declaration: Declaration) -> Rollup | None:
    declared = declaration.entity.rollup
    if declared is None:
        return None
    latest = declared.latest
    copied = {} if latest is None else latest.set
    return Rollup(
        into=declared.into,
        count=declared.count,
        latest_by=None if latest is None else latest.by,
        latest=tuple(_latest(declaration, target, text) for target, text in copied.items()),
    )


def _latest(declaration: Declaration, target: str, text: str) -> LatestColumn:
    source, _, length = text.partition(":")
    kind = source_type(declaration, source)
    if kind is None:
        raise ValueError(f"{declaration.entity.name} has no {source}; the checks let it through")
    return LatestColumn(
        target=target, source=source, type=kind, max_code_points=int(length) if length else None
    )


def _rollup_columns(rollup: Rollup | None) -> Iterator[Column]:
    """Give the columns that a child's roll-up fills; no field of the document is behind them."""
    if rollup is None:
        return
    if rollup.count is not None:
        yield Column(name=rollup.count, type=ColumnType.INTEGER, field=())
    for latest in rollup.latest:
        yield Column(name=latest.target, type=latest.type, field=())


def _digest(entity: Entity, child: Declaration | None, filled_by: Rollup | None) -> str:
    """Give SHA-256, hex, of what decides over the rows; the order of columns does not."""
    content = {
        "entity": replace(
            entity,
            check="",
            category="",
            columns=_by_name(entity.columns),
            children=_by_name(
                replace(table, columns=_by_name(table.columns)) for table in entity.children
            ),
            derived=_by_name(entity.derived),
            rollup=_in_order(entity.rollup),
            rollup_columns=_by_name(entity.rollup_columns),
        ),
        "filled_by": None if child is None else child.entity.name,
        "filled_with": _in_order(filled_by),
    }
    return hashlib.sha256(_ENCODER.encode(content)).hexdigest()


def _by_name(named: Iterable[_N]) -> tuple[_N, ...]:
    return tuple(sorted(named, key=lambda part: part.name))


def _in_order(rollup: Rollup | None) -> Rollup | None:
    if rollup is None:
        return None
    return replace(rollup, latest=tuple(sorted(rollup.latest, key=lambda part: part.target)))
