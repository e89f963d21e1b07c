"""Reads rows of the mirror back, with their child rows, for the checker and for people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from storemirror.event.change import RowState
from storemirror.model.entity import ChildTable, Entity
from storemirror.sql.names import snake_case
from storemirror.sql.port import MirrorRow
from storemirror.sql.postgres.connection import Connection, Database, sql
from storemirror.sql.postgres.rendering import Rendering

#: Rows of one page: large enough to make round trips rare, small enough for memory.
PAGE_SIZE: Final = 1_000
#: One snapshot for rows and children.  UTC: in any other zone a moment near the end of the year
#: 9999, or at the start of the year 1, is one that Python cannot hold.
_READ_SETTINGS: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL TimeZone = 'UTC'"
)
_META: Final = (
    "row_state",
    "last_event_version",
    "mapping_revision",
    "last_event_digest",
    "lossy_fields",
)

Key = tuple[str, ...]


class RowReader:
    """Reads rows by key range; row and children of a page are of one snapshot."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """Name the parts; nothing is opened here."""
        self._database = database
        self._schema = rendering.schema_name

    async def row(self, entity: Entity, key: Key) -> MirrorRow | None:
        """Read one row; None when there is none."""
        page = await self._page(entity, _equals(entity, key), key)
        return page[0] if page else None

    async def rows(
        self, entity: Entity, *, after: Key | None, up_to: Key | None
    ) -> AsyncIterator[MirrorRow]:
        """Read the rows of a key range by rising key."""
        lower = after
        while True:
            condition, bounds = _range(entity, lower, up_to)
            page = await self._page(entity, condition, bounds)
            for row in page:
                yield row
            if len(page) < PAGE_SIZE:
                return
            lower = page[-1].key

    async def _page(
        self, entity: Entity, condition: sql.Composable, bounds: Sequence[str]
    ) -> list[MirrorRow]:
        async with self._database.transaction() as conn:
            await conn.execute(_READ_SETTINGS)
            found = await self._select(conn, entity, condition, bounds)
            count = len(entity.keys)
            children = {}
            if found:
                first, last = tuple(found[0][:count]), tuple(found[-1][:count])
                for child in entity.children:
                    children[child.name] = await self._children(conn, entity, child, first, last)
        return [_mirror_row(entity, record, children) for record in found]

    async def _select(
        self, conn: Connection, entity: Entity, condition: sql.Composable, bounds: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        columns = [sql.Identifier(name) for name in _column_names(entity)]
        if entity.has_raw:
            columns.append(sql.SQL("raw_document::text"))  # type: ignore[arg-type]
        query = sql.SQL(
            "SELECT {columns} FROM {table} WHERE {condition} ORDER BY {keys} LIMIT {limit}"
        ).format(
            columns=sql.SQL(", ").join(columns),
            table=sql.Identifier(self._schema, snake_case(entity.name)),
            condition=condition,
            keys=_keys(entity),
            limit=PAGE_SIZE,
        )
        return await (await conn.execute(query, bounds)).fetchall()

    async def _children(
        self, conn: Connection, entity: Entity, child: ChildTable, first: Key, last: Key
    ) -> Mapping[Key, Mapping[str, Mapping[str, object]]]:
        """Give parent key -> child key -> columns, for parents from `first` to `last`."""
        names = [c.name for c in child.columns]
        query = sql.SQL(
            "SELECT {keys}, {columns} FROM {table}"
            " WHERE ({keys}) >= ({places}) AND ({keys}) <= ({places})"
        ).format(
            keys=_keys(entity),
            columns=sql.SQL(", ").join(
                sql.Identifier(snake_case(name)) for name in (child.key.name, *names)
            ),
            table=sql.Identifier(self._schema, snake_case(child.name)),
            places=sql.SQL(", ").join([sql.Placeholder()] * len(entity.keys)),
        )
        found: dict[Key, dict[str, Mapping[str, object]]] = {}
        count = len(entity.keys)
        async for record in await conn.execute(query, (*first, *last)):
            key, element, values = record[:count], record[count], record[count + 1 :]
            found.setdefault(tuple(key), {})[element] = dict(zip(names, values, strict=True))
        return found


def _keys(entity: Entity) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(snake_case(k.name)) for k in entity.keys)


def _places(entity: Entity) -> sql.Composed:
    return sql.SQL(", ").join([sql.Placeholder()] * len(entity.keys))


def _equals(entity: Entity, key: Key) -> sql.Composed:
    if len(key) != len(entity.keys):
        raise ValueError(f"{entity.name} has {len(entity.keys)} key parts, got {len(key)}")
    return sql.SQL("({}) = ({})").format(_keys(entity), _places(entity))


def _range(
    entity: Entity, after: Key | None, up_to: Key | None
) -> tuple[sql.Composable, Sequence[str]]:
    conditions: list[sql.Composable] = []
    if after is not None:
        conditions.append(sql.SQL("({}) > ({})").format(_keys(entity), _places(entity)))
    if up_to is not None:
        conditions.append(sql.SQL("({}) <= ({})").format(_keys(entity), _places(entity)))
    bounds = (*(after or ()), *(up_to or ()))
    if not conditions:
        return sql.SQL("true"), bounds
    return sql.SQL(" AND ").join(conditions), bounds


def _declared_columns(entity: Entity) -> list[str]:
    documents = [c.name for c in (*entity.columns, *entity.rollup_columns)]
    return documents + [d.name for d in entity.derived]


def _column_names(entity: Entity) -> list[str]:
    keys = [snake_case(k.name) for k in entity.keys]
    return [*keys, *_META, *(snake_case(name) for name in _declared_columns(entity))]


def _mirror_row(
    entity: Entity,
    record: Sequence[Any],
    children: Mapping[str, Mapping[Key, Mapping[str, Mapping[str, object]]]],
) -> MirrorRow:
    count = len(entity.keys)
    key = tuple(record[:count])
    state, version, revision, digest, lossy = record[count : count + len(_META)]
    values = record[count + len(_META) :]
    names = _declared_columns(entity)
    return MirrorRow(
        key=key,
        state=RowState(state),
        version=version,
        mapping_revision=revision,
        digest=digest,
        lossy_fields=tuple(lossy),
        columns=dict(zip(names, values, strict=False)),
        children={name: found.get(key, {}) for name, found in children.items()},
        raw=values[-1] if entity.has_raw else None,
    )
