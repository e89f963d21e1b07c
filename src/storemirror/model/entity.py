"""
An entity as it is declared: one kind of document, its table, and how one follows from the other.

Made by `storemirror.model.load`, which has checked everything said here.  Pure values.
Names are kept as declared (entities `DmMessage`, columns `sentAt`); each dialect spells them in
its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from storemirror.errors import EntityUnknown
from storemirror.model.types import ColumnType


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPart:
    """One parameter of the path, and one column of the primary key."""

    name: str
    #: Longest id, in code points.
    max_length: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, and the document's field it comes from."""

    name: str
    type: ColumnType
    #: Whether a live row must have it; then a document without it is dead-lettered.
    is_required: bool = False
    #: Names from the document's root to the field: ("profile", "city").
    field: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestColumn:
    """One column of the parent that is copied from its latest child."""

    #: Column of the parent.
    target: str
    #: Column or key part of the child.
    source: str
    type: ColumnType
    #: Longest text kept, in code points; None for all of it.
    max_code_points: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """Aggregates over an entity's live rows, kept in the parent row."""

    #: Name of the parent entity.  Its key parts are the first ones of the child's.
    into: str
    #: Column of the parent that counts live children; None for none.
    count: str | None
    #: Required column of the child by which the latest is found; ties are broken by document id.
    latest_by: str | None
    latest: tuple[LatestColumn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildColumn:
    """One column of a child table, looked up in a map by the child's key."""

    name: str
    type: ColumnType
    #: Map field of the document: key of the child -> value.
    from_map: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTable:
    """One row for each element of an array of strings, or for each key of a map."""

    #: Table name: "DmParticipant".
    name: str
    #: Column that holds the element.
    key: KeyPart
    #: Array or map field of the document.
    field: tuple[str, ...]
    columns: tuple[ChildColumn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedColumn:
    """A column that the database computes: the first of `sources` that is not NULL."""

    name: str
    type: ColumnType
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One kind of document and its table."""

    #: Table name, and stem of the procedures' names: "DmMessage".
    name: str
    #: Name in `check --check=`.
    check: str
    #: Segments of the path; a parameter is its name in braces.
    path: tuple[str, ...]
    #: Category of latency metrics.
    category: str
    #: Whether every event leaves a row in an audit table.
    has_audit: bool
    #: Whether the whole document is kept as JSON, losslessly.
    has_raw: bool
    keys: tuple[KeyPart, ...]
    columns: tuple[Column, ...]
    children: tuple[ChildTable, ...] = ()
    derived: tuple[DerivedColumn, ...] = ()
    rollup: Rollup | None = None
    #: Columns of this table that its children's roll-up fills, in declared order.
    rollup_columns: tuple[Column, ...] = ()
    #: SHA-256, hex, of the declaration; a mapping revision stands for each.
    digest: str

    @property
    def pattern(self) -> str:
        """Give the path pattern: "conversations/{conversationId}/messages/{messageId}"."""
        return "/".join(self.path)

    @property
    def collection_id(self) -> str:
        """Give the id of the collection (group) that holds the documents."""
        return self.path[-2]

    @property
    def parent_key_count(self) -> int:
        """Give how many key parts name the roll-up parent; 0 without one."""
        return 0 if self.rollup is None else len(self.keys) - 1

    def match(self, segments: Sequence[str]) -> tuple[str, ...] | None:
        """Give the key of a document of this entity; None when the path is of another."""
        if len(segments) != len(self.path):
            return None
        key: list[str] = []
        for pattern, segment in zip(self.path, segments, strict=True):
            if pattern.startswith("{"):
                key.append(segment)
            elif pattern != segment:
                return None
        return tuple(key)

    def path_of(self, key: Sequence[str]) -> str:
        """
        Give the path of the document with this key.

        Raises:
            ValueError: the key has not one part for each parameter.
        """
        if len(key) != len(self.keys):
            raise ValueError(f"{self.name} has {len(self.keys)} key parts, got {len(key)}")
        parts = iter(key)
        return "/".join(next(parts) if s.startswith("{") else s for s in self.path)


class _Pattern(NamedTuple):
    """A path pattern taken apart."""

    entity: Entity
    #: Place and text of the segments that are fixed.
    fixed: tuple[tuple[int, str], ...]
    #: Places of the parameters.
    parameters: tuple[int, ...]

    @classmethod
    def of(cls, entity: Entity) -> _Pattern:
        """Take an entity's pattern apart."""
        places = tuple(enumerate(entity.path))
        return cls(
            entity=entity,
            fixed=tuple((i, segment) for i, segment in places if not segment.startswith("{")),
            parameters=tuple(i for i, segment in places if segment.startswith("{")),
        )


@dataclass(frozen=True, slots=True)
class Model:
    """All declared entities, in the order in which their procedures are called."""

    entities: tuple[Entity, ...]
    _by_name: Mapping[str, Entity] = field(init=False, repr=False, compare=False)
    #: Number of segments -> the entities whose paths have so many.
    _by_length: Mapping[int, Sequence[_Pattern]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index by name, and by the length of the path, once."""
        by_length: dict[int, list[_Pattern]] = {}
        for entity in self.entities:
            by_length.setdefault(len(entity.path), []).append(_Pattern.of(entity))
        object.__setattr__(self, "_by_name", {e.name: e for e in self.entities})
        object.__setattr__(self, "_by_length", by_length)

    def __iter__(self) -> Iterator[Entity]:
        """Walk the entities in order."""
        return iter(self.entities)

    def __getitem__(self, name: str) -> Entity:
        """Give the entity of this name; KeyError when there is none."""
        return self._by_name[name]

    def match(self, path: str) -> tuple[Entity, tuple[str, ...]]:
        """
        Give the entity and the key of a document.

        Raises:
            EntityUnknown: no entity is declared for this path.
        """
        segments = path.split("/")
        for entity, fixed, parameters in self._by_length.get(len(segments), ()):
            for place, segment in fixed:
                if segments[place] != segment:
                    break
            else:
                return entity, tuple([segments[place] for place in parameters])
        raise EntityUnknown("no entity is declared for this path", path=path)

    def rollup_child_of(self, entity: Entity) -> Entity | None:
        """Give the entity whose roll-up this one carries; None when there is none."""
        for child in self.entities:
            if child.rollup is not None and child.rollup.into == entity.name:
                return child
        return None
