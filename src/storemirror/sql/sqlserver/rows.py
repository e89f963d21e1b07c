"""Reads rows of the mirror back, with their child rows, for the checker and for people."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from storemirror.event.change import RowState
from storemirror.model.entity import ChildTable, Entity
from storemirror.model.types import ColumnType
from storemirror.sql.names import pascal_case
from storemirror.sql.port import MirrorRow
from storemirror.sql.sqlserver import ranges
from storemirror.sql.sqlserver.connection import (
    CALL_TIMEOUT_S,
    Database,
    Row,
    Sql,
    composed,
    in_utc,
)
from storemirror.sql.sqlserver.errors import ServerError
from storemirror.sql.sqlserver.facts import read_facts
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.order import (
    Bound,
    Key,
    block_of,
    blocks,
    is_within,
    lower_bound,
    rank,
    upper_bound,
)
from storemirror.sql.sqlserver.rendering import Rendering

#: Rows of one page: large enough to make round trips rare, small enough for memory.
PAGE_SIZE: Final = 1_000
_META: Final = (
    "RowState",
    "LastEventVersion",
    "MappingRevision",
    "LastEventDigest",
    "LossyFields",
)
#: One snapshot for rows and children.  Where the database has none, rows that were read stay as
#: they are until their children are read: then a page holds writers up.
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT;"
_LOCKED: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;"

Children = Mapping[str, Mapping[Key, Mapping[str, Mapping[str, object]]]]


class RowReader:
    """Reads rows by key range; row and children of a page are of one snapshot."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """Name the parts; nothing is opened here."""
        self._database = database
        self._rendering = rendering
        self._isolation: str | None = None

    async def row(self, entity: Entity, key: Key) -> MirrorRow | None:
        """Read one row; None when there is none."""
        if len(key) != len(entity.keys):
            raise ValueError(f"{entity.name} has {len(entity.keys)} key parts, got {len(key)}")
        if any(part.endswith(" ") for part in key):
            # None is stored, and the one without the space would be found.
            return None
        bound = Bound(parts=key, is_inclusive=True)
        page = await self._page(entity, bound, bound)
        return page[0] if page else None

    async def rows(
        self, entity: Entity, *, after: Key | None, up_to: Key | None
    ) -> AsyncIterator[MirrorRow]:
        """Read the rows of a key range by rising key."""
        lower = None if after is None else lower_bound(after)
        upper = None if up_to is None else upper_bound(up_to)
        held: list[MirrorRow] = []
        is_last = False
        while not is_last:
            page = await self._page(entity, lower, upper)
            is_last = len(page) < PAGE_SIZE
            if page:
                lower = Bound(parts=page[-1].key, is_inclusive=False)
            held += page
            # A block may go on behind the page.
            count = len(held) if is_last else _complete_count(held)
            for row in _in_order(held[:count]):
                if is_within(row.key, after, up_to):
                    yield row
            held = held[count:]

    async def _page(
        self, entity: Entity, lower: Bound | None, upper: Bound | None
    ) -> list[MirrorRow]:
        bounds = [part for bound in (lower, upper) if bound is not None for part in bound.parts]
        async with self._database.session() as session:
            if self._isolation is None:
                has_snapshots = (await read_facts(session)).has_snapshots
                self._isolation = _SNAPSHOT if has_snapshots else _LOCKED
            batch = self._batch(entity, lower, upper, self._isolation)
            try:
                results = await session.run(batch, bounds, CALL_TIMEOUT_S)
            except ServerError:
                # It may have kept the isolation of this batch, which is no writer's.
                session.is_broken = True
                # Somebody may have switched snapshots off: the next read looks again.
                self._isolation = None
                raise
        records, *others = results
        children = {
            child.name: _children(entity, child, found)
            for child, found in zip(entity.children, others, strict=True)
        }
        return [_mirror_row(entity, record, children) for record in records]

    def _batch(
        self, entity: Entity, lower: Bound | None, upper: Bound | None, isolation: str
    ) -> Sql:
        """Write the batch that reads a page: its rows, then the rows of each child table."""
        keys = [quoted(pascal_case(k.name)) for k in entity.keys]
        table = self._rendering.table(entity.name)
        columns = [quoted(name) for name in _column_names(entity)]
        beyond = list(ranges.after(keys, lower, "@Lower"))
        within = ranges.up_to(keys, upper, "@Upper")
        count = str(PAGE_SIZE)
        page = ranges.first_rows(table, columns, keys, beyond=beyond, within=within, count=count)
        lines = [
            # First of all: on Babelfish a variable that is given a value is a query, and no level
            # is set after one.
            isolation,
            *ranges.declared(lower, "@Lower"),
            *ranges.declared(upper, "@Upper"),
            "BEGIN TRANSACTION;",
            f"{page};",
        ]
        if entity.children:
            lines += ranges.last_key(table, keys, beyond=beyond, within=within, count=count)
        for child in entity.children:
            names = (child.key.name, *(c.name for c in child.columns))
            wanted = ", ".join([*keys, *(quoted(pascal_case(name)) for name in names)])
            parts = [
                composed(
                    "SELECT {wanted} FROM {table} WHERE {condition} AND {up_to_last}",
                    wanted=wanted,
                    table=self._rendering.table(child.name),
                    condition=condition,
                    up_to_last=ranges.up_to_last(keys),
                )
                for condition in beyond
            ]
            lines.append(f"{' UNION ALL '.join(parts)};")
        # The connection is a writer's next, who must see what was committed a moment ago.
        lines += ["COMMIT TRANSACTION;", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"]
        return Sql("\n".join(lines))


def _complete_count(rows: Sequence[MirrorRow]) -> int:
    """Count the rows that no row of a later page can come before."""
    if not rows or block_of(rows[-1].key) is None:
        return len(rows)
    last = block_of(rows[-1].key)
    return next(
        place + 1
        for place in range(len(rows) - 1, -2, -1)
        if place < 0 or block_of(rows[place].key) != last
    )


def _in_order(rows: Sequence[MirrorRow]) -> Iterator[MirrorRow]:
    for piece in blocks([row.key for row in rows]):
        part = rows[piece]
        is_unsure = block_of(part[0].key) is not None
        yield from sorted(part, key=lambda row: rank(row.key)) if is_unsure else part


def _declared_columns(entity: Entity) -> list[tuple[str, ColumnType]]:
    documents = [(c.name, c.type) for c in (*entity.columns, *entity.rollup_columns)]
    return documents + [(d.name, d.type) for d in entity.derived]


def _column_names(entity: Entity) -> list[str]:
    keys = [pascal_case(k.name) for k in entity.keys]
    named = [pascal_case(name) for name, _ in _declared_columns(entity)]
    return [*keys, *_META, *named, *(["RawDocument"] if entity.has_raw else [])]


def _children(
    entity: Entity, child: ChildTable, records: Sequence[Row]
) -> Mapping[Key, Mapping[str, Mapping[str, object]]]:
    """Give parent key -> child key -> columns."""
    count = len(entity.keys)
    found: dict[Key, dict[str, Mapping[str, object]]] = {}
    for record in records:
        key, element, values = record[:count], record[count], record[count + 1 :]
        found.setdefault(tuple(key), {})[element] = {
            column.name: _value(column.type, value)
            for column, value in zip(child.columns, values, strict=True)
        }
    return found


def _mirror_row(entity: Entity, record: Row, children: Children) -> MirrorRow:
    count = len(entity.keys)
    key = tuple(record[:count])
    state, version, revision, digest, lossy = record[count : count + len(_META)]
    values = record[count + len(_META) :]
    return MirrorRow(
        key=key,
        state=RowState(state),
        version=version,
        mapping_revision=revision,
        digest=digest,
        lossy_fields=tuple(json.loads(lossy)),
        columns={
            name: _value(kind, value)
            for (name, kind), value in zip(_declared_columns(entity), values, strict=False)
        },
        children={name: found.get(key, {}) for name, found in children.items()},
        raw=values[-1] if entity.has_raw else None,
    )


def _value(kind: ColumnType, value: Any) -> object:
    """Give a value as Python has it."""
    return None if value is None else _READ.get(kind, _as_is)(value)


def _as_is(value: object) -> object:
    return value


_READ: Final[Mapping[ColumnType, Callable[[Any], object]]] = {
    ColumnType.TIMESTAMP: in_utc,
    ColumnType.JSON: json.loads,
    ColumnType.GEOPOINT: json.loads,
    ColumnType.BYTES: bytes,
    ColumnType.BOOLEAN: bool,
}
