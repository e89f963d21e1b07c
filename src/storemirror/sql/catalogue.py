"""
What a mirror's schema should be, and what a database has: the two sides of `schema diff`.

Names and types are spelled as the dialect's catalogue spells them, so that both sides can be
compared as they are.  Pure values; `sql/<dialect>/` fills them, `storemirror.sql.plan` decides.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


class ColumnRole(enum.Enum):
    """Who fills a column."""

    KEY = enum.auto()  #: the document's path
    META = enum.auto()  #: the event: state, version, origin and the like
    DOCUMENT = enum.auto()  #: the document's fields, the raw document among them
    ROLLUP = enum.auto()  #: the roll-up of another entity
    DERIVED = enum.auto()  #: the database computes it


class TableRole(enum.Enum):
    """What a row of a table stands for."""

    ENTITY = enum.auto()  #: a document
    CHILD = enum.auto()  #: an element of a document's array or map
    AUDIT = enum.auto()  #: an event


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedColumn:
    """One column as it must be."""

    name: str
    type: str
    role: ColumnRole
    #: Its name in the declaration; empty where no declaration has it.
    declared: str = ""
    #: Types of which every value is kept when the column is given the wanted type.
    widens: frozenset[str] = frozenset()
    #: Whether it must be compared byte by byte.
    is_binary: bool = False
    #: Whether rows are written that have no value for it.
    is_nullable: bool = True
    #: Whether rows are written that do not name it, and must not be NULL there.
    has_default: bool = False
    #: Whether a constraint of its own says which values it may have.
    is_checked: bool = False
    #: What a derived column is computed by.
    expression: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTable:
    """One table as it must be."""

    name: str
    #: Its name in the declaration.
    declared: str
    role: TableRole
    #: The entity that it belongs to.
    entity: str
    columns: tuple[WantedColumn, ...]
    #: Columns by which a row is found: they must be unique, in this order.
    key: tuple[str, ...]
    #: Index -> its columns, as one text that both sides spell alike.
    indexes: Mapping[str, str] = field(default_factory=dict)
    #: Index -> the name under which one that is to replace it is built beside it.
    replacements: Mapping[str, str] = field(default_factory=dict)
    #: Name of the constraint for required columns, and those columns.
    required_name: str = ""
    required: frozenset[str] = frozenset()
    #: The table whose row is always there before a row of this one, and how much of the key names
    #: it.
    parent: tuple[str, int] | None = None

    def __iter__(self) -> Iterator[WantedColumn]:
        """Walk the columns."""
        return iter(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedEntity:
    """One declaration as it is to be registered."""

    name: str
    #: Name in `--check=`.
    check: str
    digest: str
    #: Parent of its roll-up, and a digest of that roll-up; both empty without one.
    rollup_into: str
    rollup_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSchema:
    """Everything that `schema apply` installs."""

    name: str
    version: int
    #: Versions that a writer of this code works on.
    supported_versions: tuple[int, ...]
    project: str
    database: str
    entities: tuple[WantedEntity, ...]
    tables: tuple[WantedTable, ...]
    #: Tables of our own book-keeping: no row of them is a document's.
    own_tables: tuple[str, ...]
    #: Routine, with its schema -> definition, spelled as the adapter spells what it finds.
    routines: Mapping[str, str]
    #: The routines that clients call; the others are ours alone.
    procedures: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundColumn:
    """One column as it is."""

    type: str
    #: Limit of a text type; None without one.
    max_length: int | None = None
    is_nullable: bool = True
    #: Whether a row that does not name it gets a value.
    has_default: bool = False
    #: Whether it is compared byte by byte.
    is_binary: bool = True
    #: What it is computed by; None: it is written.
    expression: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundIndex:
    """One index as it is."""

    #: Its columns, as one text that both sides spell alike.
    definition: str
    #: Its columns; of an index over expressions only those that are plain columns.
    columns: tuple[str, ...] = ()
    is_unique: bool = False
    #: Whether it holds for every row, at every moment, over plain columns.
    is_plain: bool = True
    #: Whether it was built to its end.
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundForeignKey:
    """One foreign key as it is."""

    columns: tuple[str, ...]
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTable:
    """One relation as it is."""

    #: False: a view or something else that cannot be a mirrored table.
    is_table: bool = True
    columns: Mapping[str, FoundColumn] = field(default_factory=dict)
    indexes: Mapping[str, FoundIndex] = field(default_factory=dict)
    foreign_keys: Mapping[str, FoundForeignKey] = field(default_factory=dict)
    #: Check constraint -> the columns that it speaks of.
    checks: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One declaration that was installed."""

    mapping_revision: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSchema:
    """Everything that is installed."""

    #: None while nothing was ever registered.
    version: int | None = None
    project: str | None = None
    database: str | None = None
    tables: Mapping[str, FoundTable] = field(default_factory=dict)
    #: Routine, with its schema -> definitions, one for each list of parameters.
    routines: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: Entity, or what `rollup_entry` gives -> what was registered, the oldest first.
    registered: Mapping[str, tuple[Registered, ...]] = field(default_factory=dict)

    def newest(self, name: str) -> Registered | None:
        """Give what is in force; None when nothing was registered."""
        known = self.registered.get(name, ())
        return known[-1] if known else None

    def revision_of(self, name: str, digest: str) -> int | None:
        """Give the newest mapping revision of exactly this declaration; None without one."""
        known = [r.mapping_revision for r in self.registered.get(name, ()) if r.digest == digest]
        return known[-1] if known else None


def rollup_entry(entity: str) -> str:
    """Give the name under which an entity's roll-up is registered; no entity is called so."""
    return f"{entity} rollup"


def is_rollup_entry(name: str) -> bool:
    """Tell what `rollup_entry` gives from the name of an entity, which has no space."""
    return " " in name
