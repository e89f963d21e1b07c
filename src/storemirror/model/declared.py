"""
A declaration as it is written: the tables and keys of one `[[entity]]`.

Each field is checked by itself here; what must fit together is checked in `crosscheck`.
A part that is wrong is reported and taken out, so that the rest can still be checked.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from storemirror.config.shape import Table, misfits, nearest_known, refusal
from storemirror.config.toml_lines import Place, TomlLines
from storemirror.errors import Mistake
from storemirror.model.types import ColumnType

#: PostgreSQL cuts names after 63 bytes; prefixes and suffixes of ours must fit in as well.
MAX_NAME_LENGTH: Final = 48
_COLLECTION_BY_SYSTEM: Final = re.compile(r"__.*__")
_COLUMN_TABLES: Final = ("columns", "derived")
#: What stands in for a required key that is wrong, while the rest is checked.
_STAND_INS: Final[Mapping[str, str]] = {
    "name": "Unnamed",
    "check": "unnamed",
    "path": "unnamed/{unnamed}",
    "category": "unnamed",
}


def _named(pattern: str, rule: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def checked(name: str) -> str:
        if compiled.fullmatch(name) is None:
            raise refusal(f"{name!r} is no {rule.partition(':')[0]}", f"Use {rule}.")
        length = len(name) + sum(c.isupper() for c in name[1:])
        if length > MAX_NAME_LENGTH:
            raise refusal(
                f"{name!r} is {length} characters long once its words are joined by underscores",
                f"At most {MAX_NAME_LENGTH} fit.",
            )
        return name

    return checked


def _column_type(name: object) -> object:
    if not isinstance(name, str):
        raise refusal("must be a string", 'Wanted: type = "string" or another column type.')
    known = [t.value for t in ColumnType]
    if name not in known:
        guess = nearest_known(name, known)
        cure = f"Known types are {', '.join(known)}."
        raise refusal(
            f"unknown type {name!r}", f"{guess} {cure}" if guess.startswith("Did") else cure
        )
    return ColumnType(name)


def _field_path(path: str) -> str:
    if not all(path.split(".")):
        raise refusal(
            f"{path!r} has an empty part", 'Name the field from the root: "profile.city".'
        )
    return path


def _latest_source(text: str) -> str:
    source, colon, length = text.partition(":")
    if not source or (colon and not re.fullmatch(r"[1-9][0-9]{0,5}", length)):
        raise refusal(
            f"{text!r} is no source",
            'Write a column or key part, with the longest text kept after a colon: "body:140".',
        )
    return text


def _document_path(path: str) -> str:
    segments = path.split("/")
    if not all(segments):
        raise refusal(f"{path!r} has an empty segment", "Take the extra slash out.")
    if len(segments) % 2:
        raise refusal(
            f"{path!r} has {len(segments)} segments and so names a collection",
            "End it with the document's parameter: users/{userId}.",
        )
    for collection in segments[::2]:
        _check_collection(collection)
    parameters = [_parameter(segment) for segment in segments[1::2]]
    twice = sorted({p for p in parameters if parameters.count(p) > 1})
    if twice:
        raise refusal(f"parameter {twice[0]!r} stands twice", "Give each its own name.")
    return path


def _check_collection(segment: str) -> None:
    if "{" in segment or "}" in segment:
        raise refusal(f"{segment!r} stands for a collection", "Name the collection: users/{userId}")
    if segment in (".", "..") or _COLLECTION_BY_SYSTEM.fullmatch(segment):
        raise refusal(
            f"Firestore has no collection {segment!r}", "Collections are not ., .. or __x__."
        )
    if len(segment.encode()) > 1500:
        raise refusal("the collection's id is longer than 1,500 bytes", "Firestore allows none.")


def _parameter(segment: str) -> str:
    if not (segment.startswith("{") and segment.endswith("}")):
        raise refusal(
            f"{segment!r} stands for a document's id, and must be a parameter",
            f"Write it in braces: {{{segment.strip('{}') or 'id'}Id}}.",
        )
    return _COLUMN_NAME(segment[1:-1])


_ENTITY_NAME: Final = _named("[A-Z][A-Za-z0-9]*", "table name: PascalCase, as in DmMessage")
_COLUMN_NAME: Final = _named("[a-z][A-Za-z0-9]*", "column name: camelCase, as in sentAt")
_CHECK_NAME: Final = _named("[a-z][a-z0-9_-]*", "name for --check=: lower case, as in messages")
_CATEGORY: Final = _named("[A-Za-z][A-Za-z0-9]*", "category: one word, as in dmSqlMirror")

EntityName = Annotated[str, AfterValidator(_ENTITY_NAME)]
ColumnName = Annotated[str, AfterValidator(_COLUMN_NAME)]
FieldPath = Annotated[str, AfterValidator(_field_path)]
TypeName = Annotated[ColumnType, BeforeValidator(_column_type)]


class Strict(Table):
    """A table whose values are taken as they are: "yes" is not true."""

    model_config = ConfigDict(strict=True)


class DeclaredColumn(Strict):
    """`name = { type = "string", required = true, field = "a.b" }`."""

    type: TypeName = Field(description='type = "string" or another column type')
    required: bool = Field(
        default=False, description="true or false: whether every document has it"
    )
    field: FieldPath | None = Field(
        default=None, description='the field\'s name: field = "profile.city"'
    )


class DeclaredChildColumn(Strict):
    """`name = { type = "timestamp", from_map = "lastReadAt" }`."""

    type: TypeName = Field(description='type = "timestamp" or another column type')
    from_map: FieldPath = Field(description="from_map, the map field with a value for each key")


class DeclaredChild(Strict):
    """`[[entity.children]]`: one row for each element of an array, or each key of a map."""

    name: EntityName = Field(description='name = "DmParticipant", the child table')
    key: ColumnName = Field(description='key = "userId", the column of the element')
    source: FieldPath = Field(alias="from", description="from, an array or map field")
    columns: dict[ColumnName, DeclaredChildColumn] = Field(
        default={}, description='a table of columns, each { type = "…", from_map = "…" }'
    )


class DeclaredDerived(Strict):
    """`name = { first_of = ["lastMessageAt", "createdAt"] }`."""

    first_of: list[str] = Field(description='first_of = ["lastMessageAt", "createdAt"]')


class DeclaredLatest(Strict):
    """`latest = { by = "sentAt", set = { target = "source" } }`."""

    by: str = Field(description='by = "sentAt", the column that tells which row is the latest')
    set: dict[ColumnName, Annotated[str, AfterValidator(_latest_source)]] = Field(
        description='set = { columnOfTheParent = "columnOfThis" }'
    )


class DeclaredRollup(Strict):
    """`[entity.rollup]`: aggregates kept in the parent row."""

    into: str = Field(description='into = "DmConversation", the parent entity')
    count: ColumnName | None = Field(
        default=None, description='count = "messageCount", a new column'
    )
    latest: DeclaredLatest | None = Field(default=None, description='{ by = "…", set = { … } }')


class DeclaredEntity(Strict):
    """`[[entity]]`."""

    name: EntityName = Field(description='name = "DmMessage", the table')
    check: Annotated[str, AfterValidator(_CHECK_NAME)] = Field(
        description='check = "messages", the name in `storemirror check --check=`'
    )
    path: Annotated[str, AfterValidator(_document_path)] = Field(
        description='path = "users/{userId}", the documents\' path with parameters in braces'
    )
    category: Annotated[str, AfterValidator(_CATEGORY)] = Field(
        description='category = "sqlMirror", a label for latency metrics'
    )
    audit: bool = Field(default=False, description="true or false: whether each event leaves a row")
    raw: bool = Field(
        default=False, description="true or false: whether the whole document is kept"
    )
    replace: bool = Field(
        default=False, description="true or false: whether it replaces a built-in one"
    )
    key_length: dict[str, Annotated[int, Field(ge=1, le=1500)]] = Field(
        default={}, description="{ messageId = 200 }: a path parameter, and 1 to 1500 characters"
    )
    columns: dict[ColumnName, DeclaredColumn] = Field(
        default={}, description='a table of columns, each { type = "…" }'
    )
    children: list[DeclaredChild] = Field(
        default=[], description="child tables: [[entity.children]]"
    )
    derived: dict[ColumnName, DeclaredDerived] = Field(
        default={}, description="a table of columns, each { first_of = […] }"
    )
    rollup: DeclaredRollup | None = Field(default=None, description="a table: [entity.rollup]")

    @property
    def parameters(self) -> list[str]:
        """Give the path's parameters in order: the key parts."""
        return [segment[1:-1] for segment in self.path.split("/")[1::2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One `[[entity]]`, with its place, and what was taken out of it because it is wrong."""

    file: str
    is_builtin: bool
    #: Position among the file's entities, from 0.
    index: int
    lines: TomlLines
    entity: DeclaredEntity
    #: Top-level keys that are wrong, or in which something was: "path", "columns".
    broken: frozenset[str]
    #: Names of columns that are declared, but wrongly.
    hidden: frozenset[str]
    #: Whether `columns` is no table at all.
    is_table_lost: bool

    def may_have(self, column: str) -> bool:
        """Tell whether there may be a column of this name that could not be read."""
        return self.is_table_lost or column in self.hidden

    def mistake(self, place: Place, what: str, cure: str) -> Mistake:
        """Say what is wrong at a place within this declaration."""
        title = f"entity {self.index + 1}" if "name" in self.broken else self.entity.name
        return Mistake(
            file=self.file,
            line=self.lines.nearest(("entity", self.index, *place)),
            where=".".join([title, *(f"[{p}]" if isinstance(p, int) else p for p in place)]),
            what=what,
            cure=cure,
        )


def read_declaration(
    table: Mapping[str, Any], *, file: str, is_builtin: bool, index: int, lines: TomlLines
) -> tuple[Declaration, list[Mistake]]:
    """
    Check one `[[entity]]` key by key.

    Args:
        table: the table as `tomllib` gives it.
        file: how the file is called in messages.
        is_builtin: whether the file is ours.
        index: position among the file's entities, from 0.
        lines: the file's lines.

    Returns:
        What could be read, and every mistake.
    """
    found = []
    try:
        entity = DeclaredEntity.model_validate(table)
    except ValidationError as error:
        found = misfits(DeclaredEntity, error)
        entity = DeclaredEntity.model_validate(_without(table, [m.place for m in found]))
    declaration = Declaration(
        file=file,
        is_builtin=is_builtin,
        index=index,
        lines=lines,
        entity=entity,
        broken=frozenset(str(m.place[0]) for m in found),
        hidden=frozenset(
            str(m.place[1]) for m in found if m.place[0] in _COLUMN_TABLES and len(m.place) > 1
        ),
        is_table_lost=("columns",) in [m.place for m in found],
    )
    return declaration, [declaration.mistake(m.place, m.what, m.cure) for m in found]


def _without(table: Mapping[str, Any], places: Iterable[Place]) -> dict[str, Any]:
    """Take out of a table each part in which a mistake was found."""
    rest = copy.deepcopy(dict(table))
    children = {place[1] for place in places if place[0] == "children" and len(place) > 1}
    for place in places:
        head = str(place[0])
        if head in _STAND_INS:
            rest[head] = _STAND_INS[head]
        elif head in (*_COLUMN_TABLES, "key_length") and len(place) > 1:
            rest.get(head, {}).pop(place[1], None)
        elif head != "children" or len(place) == 1:
            rest.pop(head, None)
    if children and "children" in rest:
        rest["children"] = [c for i, c in enumerate(rest["children"]) if i not in children]
    return rest
