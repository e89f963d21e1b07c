"""
What is wrong between the parts of declarations that are each well-formed.

A part that was already reported is not reported again through what refers to it.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from storemirror.config.shape import nearest_known
from storemirror.config.toml_lines import Place
from storemirror.errors import Mistake
from storemirror.model.declared import Declaration, DeclaredRollup
from storemirror.model.own_paths import OWN_PATTERNS, own_pattern_watched
from storemirror.model.types import ColumnType

#: Longest id in code points, where `key_length` does not say otherwise.
DEFAULT_KEY_LENGTH: Final = 128
#: Of all key parts together: PostgreSQL's index entries end at 2,704 bytes, a code point has up to
#: four, and the audit's key holds 72 bytes more.
MAX_KEY_LENGTH: Final = 600

#: Columns that every table has, or that every event carries next to its columns.
RESERVED_COLUMNS: Final = (
    *("RowState", "LastEventId", "LastEventType", "LastEventTime", "LastEventVersion"),
    *("LastEventOrigin", "LastEventDigest", "MappingRevision", "AppliedAt", "LossyFields"),
    *("RawDocument", "ExpectedVersion", "ObservedAt", "Outcome", "Children"),
)
#: Tables of our own.
RESERVED_TABLES: Final = (
    "PurgeHorizon",
    "Declaration",
    "SchemaInfo",
    "UnverifiedDocument",
    "Rebase",
)
_ORDERED_TYPES: Final = (ColumnType.TIMESTAMP, ColumnType.INTEGER, ColumnType.STRING)
_CUT_TYPES: Final = (ColumnType.STRING, ColumnType.TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    """One name, what bears it, and where it is declared."""

    name: str
    bearer: str
    declaration: Declaration
    place: Place


def check_together(declarations: Sequence[Declaration], *, are_complete: bool) -> list[Mistake]:
    """
    Find every mistake that one key alone does not show.

    Args:
        declarations: all entities of all files.
        are_complete: whether every file could be read; what is not found may else be in another.
    """
    context = _Context(declarations, are_complete=are_complete)
    found = [
        *_check_tables(declarations),
        *_check_checks(declarations),
        *_check_paths(declarations),
    ]
    for declaration in declarations:
        found += _check_own_paths(declaration)
        found += _check_keys(declaration)
        found += _check_columns(context, declaration)
        found += _check_children(declaration)
        found += _check_derived(context, declaration)
        found += context.check_rollup(declaration)
    return found


class _Context:
    """All declarations, by name, with who rolls up into whom."""

    def __init__(self, declarations: Sequence[Declaration], *, are_complete: bool) -> None:
        self.by_name = {d.entity.name: d for d in declarations if "name" not in d.broken}
        self.are_names_known = are_complete and not any("name" in d.broken for d in declarations)
        self.are_rollups_known = are_complete and not any(
            "rollup" in d.broken for d in declarations
        )
        self.children: dict[str, list[Declaration]] = {}
        for declaration in declarations:
            if declaration.entity.rollup is not None:
                into = declaration.entity.rollup.into
                self.children.setdefault(into, []).append(declaration)

    def rollup_columns(self, declaration: Declaration) -> Mapping[str, ColumnType | None]:
        """Give what a child fills in this entity; the type is None where it is not known."""
        columns: dict[str, ColumnType | None] = {}
        for child in self.children.get(declaration.entity.name, [])[:1]:
            rollup = child.entity.rollup
            if rollup is not None and rollup.count is not None:
                columns[rollup.count] = ColumnType.INTEGER
            if rollup is not None and rollup.latest is not None:
                for target, source in rollup.latest.set.items():
                    columns[target] = source_type(child, source.partition(":")[0])
        return columns

    def check_rollup(self, child: Declaration) -> Iterator[Mistake]:
        """See that the parent is there, has the right key, and is nobody else's."""
        rollup = child.entity.rollup
        if rollup is None:
            return
        yield from _check_latest(child, rollup)
        parent = self.by_name.get(rollup.into)
        if parent is None:
            if self.are_names_known:
                cure = nearest_known(rollup.into, set(self.by_name) - {child.entity.name})
                yield child.mistake(("rollup", "into"), f"there is no entity {rollup.into!r}", cure)
            return
        if parent.entity.rollup is not None:
            yield child.mistake(
                ("rollup", "into"),
                f"{rollup.into} rolls up itself, into {parent.entity.rollup.into}",
                "Roll-ups are not chained: roll up into an entity that has none.",
            )
        first = self.children[rollup.into][0]
        if first is not child:
            yield child.mistake(
                ("rollup", "into"),
                f"{first.entity.name} already rolls up into {rollup.into}",
                "An entity takes one roll-up: keep one of the two.",
            )
        yield from _check_parent_key(child, parent)


def source_type(declaration: Declaration, source: str) -> ColumnType | None:
    """Give the type of a column or key part; None where there is none of this name."""
    column = declaration.entity.columns.get(source)
    if column is not None:
        return column.type
    return ColumnType.STRING if source in declaration.entity.parameters else None


#: What else is made beside an entity's table, and shares the table's name space.
_DERIVED_RELATIONS: Final[Mapping[str, str]] = {
    "Audit": "audit table",
    "AuditPkey": "index of the audit table",
    "Pkey": "primary key",
    "Purge": "purge index",
    "Latest": "index of the latest",
}


def _check_tables(declarations: Sequence[Declaration]) -> Iterator[Mistake]:
    tables: list[_Name] = []
    entities: set[str] = set()
    for d in declarations:
        if "name" in d.broken:
            continue
        name = d.entity.name
        tables.append(_Name(name=name, bearer=f"entity {name}", declaration=d, place=("name",)))
        if name in entities:
            # Its other tables are twins as well, and mended with it.
            continue
        entities.add(name)
        for suffix, what in _DERIVED_RELATIONS.items():
            bearer = f"{what} of {name}"
            tables.append(
                _Name(name=f"{name}{suffix}", bearer=bearer, declaration=d, place=("name",))
            )
        for index, child in enumerate(d.entity.children):
            place = ("children", index, "name")
            bearer = f"child table {child.name} of {name}"
            tables.append(_Name(name=child.name, bearer=bearer, declaration=d, place=place))
            for derived in (f"{child.name}Pkey", f"{child.name}By{child.key}"):
                bearer = f"index of {child.name}"
                tables.append(_Name(name=derived, bearer=bearer, declaration=d, place=place))
    yield from _check_distinct(tables, RESERVED_TABLES, "a table of our own")


def _check_checks(declarations: Sequence[Declaration]) -> Iterator[Mistake]:
    yield from _check_distinct(
        [
            _Name(
                name=d.entity.check,
                bearer=f"check of {d.entity.name}",
                declaration=d,
                place=("check",),
            )
            for d in declarations
            if "check" not in d.broken
        ],
        (),
        "",
    )


def _check_distinct(
    names: Sequence[_Name], reserved: Sequence[str], reserved_for: str
) -> Iterator[Mistake]:
    """Report names that are reserved, or spelled alike in one of the dialects."""
    # With underscores or a capital first letter, and compared without regard to case as SQL Server
    # does, two names without underscores are alike exactly if they are so in lower case.
    reserved_by_spelling = {name.lower(): name for name in reserved}
    seen: dict[str, _Name] = {}
    reported: set[tuple[object, ...]] = set()
    for name in names:
        spelling = name.name.lower()
        if spelling in reserved_by_spelling:
            what = f"{name.name!r} is reserved: {reserved_by_spelling[spelling]} is {reserved_for}"
            yield name.declaration.mistake(name.place, what, "Choose another name.")
        elif spelling in seen:
            first = seen[spelling]
            twins = (id(name.declaration), name.place, id(first.declaration), first.place)
            if twins in reported:
                continue  # their indexes are twins as well, and mended with them
            reported.add(twins)
            there = first.declaration.mistake(first.place, "", "")
            what = f"{name.bearer} has the name of {first.bearer} ({there.file} line {there.line})"
            yield name.declaration.mistake(name.place, what, _cure_of_twins(name, first))
        else:
            seen[spelling] = name


def _cure_of_twins(name: _Name, first: _Name) -> str:
    if name.place == ("name",) and first.declaration.is_builtin and name.name == first.name:
        return "To replace the built-in entity, add replace = true; else choose another name."
    return "Choose another name; upper and lower case make no difference."


def _check_paths(declarations: Sequence[Declaration]) -> Iterator[Mistake]:
    known = [d for d in declarations if "path" not in d.broken]
    for index, declaration in enumerate(known):
        for first in known[:index]:
            # Collections are at the same places in both, and ids are parameters.
            ours, theirs = declaration.entity.path.split("/"), first.entity.path.split("/")
            if ours[::2] == theirs[::2]:
                yield declaration.mistake(
                    ("path",),
                    f"{first.entity.name} has the same documents",
                    "A document has one row: give each entity documents of its own.",
                )


def _check_own_paths(declaration: Declaration) -> Iterator[Mistake]:
    if "path" in declaration.broken:
        return
    path = declaration.entity.path
    pattern = own_pattern_watched(path)
    if pattern is not None:
        yield declaration.mistake(
            ("path",),
            f"{path} would watch {pattern}, which is StoreMirror's own: {OWN_PATTERNS[pattern]}",
            "Mirror documents of the application only.",
        )


def _check_keys(declaration: Declaration) -> Iterator[Mistake]:
    if "path" in declaration.broken:
        return
    entity = declaration.entity
    for name in entity.key_length:
        if name not in entity.parameters:
            cure = nearest_known(name, entity.parameters)
            yield declaration.mistake(
                ("key_length", name), f"the path has no parameter {name!r}", cure
            )
    length = sum(entity.key_length.get(p, DEFAULT_KEY_LENGTH) for p in entity.parameters)
    if entity.children:
        length += DEFAULT_KEY_LENGTH
    if length > MAX_KEY_LENGTH:
        place: Place = ("key_length",) if entity.key_length else ("path",)
        yield declaration.mistake(
            place,
            f"the key may be {length} characters long, and no index holds more than "
            f"{MAX_KEY_LENGTH}",
            "Set shorter ones with key_length (128 each by default, as for the key of a child).",
        )


def _key_names(declaration: Declaration) -> list[_Name]:
    if "path" in declaration.broken:
        return []
    return [
        _Name(name=p, bearer=f"key part {p}", declaration=declaration, place=("path",))
        for p in declaration.entity.parameters
    ]


def _check_columns(context: _Context, declaration: Declaration) -> Iterator[Mistake]:
    entity = declaration.entity
    names = _key_names(declaration)
    for table in ("columns", "derived"):
        for name in getattr(entity, table):
            bearer = f"{'derived ' * (table == 'derived')}column {name}"
            place = (table, name)
            names.append(_Name(name=name, bearer=bearer, declaration=declaration, place=place))
    if "name" not in declaration.broken:
        for child in context.children.get(entity.name, [])[:1]:
            names += _rollup_names(child)
    yield from _check_distinct(names, RESERVED_COLUMNS, "a column of every table or event")


def _rollup_names(child: Declaration) -> Iterator[_Name]:
    rollup = child.entity.rollup
    if rollup is None:
        return
    targets: list[tuple[str, Place]] = []
    if rollup.count is not None:
        targets.append((rollup.count, ("rollup", "count")))
    if rollup.latest is not None:
        targets += [(name, ("rollup", "latest", "set", name)) for name in rollup.latest.set]
    for name, place in targets:
        bearer = f"roll-up column {rollup.into}.{name}"
        yield _Name(name=name, bearer=bearer, declaration=child, place=place)


def _check_children(declaration: Declaration) -> Iterator[Mistake]:
    for index, child in enumerate(declaration.entity.children):
        at: Place = ("children", index)
        names = _key_names(declaration)
        bearer = f"key of {child.name}"
        key = _Name(name=child.key, bearer=bearer, declaration=declaration, place=(*at, "key"))
        names.append(key)
        for name in child.columns:
            bearer, place = f"column {name} of {child.name}", (*at, "columns", name)
            names.append(_Name(name=name, bearer=bearer, declaration=declaration, place=place))
        yield from _check_distinct(names, RESERVED_COLUMNS, "a column of every table or event")


def _check_derived(context: _Context, declaration: Declaration) -> Iterator[Mistake]:
    entity = declaration.entity
    types: dict[str, ColumnType | None] = {
        **{name: column.type for name, column in entity.columns.items()},
        **context.rollup_columns(declaration),
    }
    are_all_known = context.are_rollups_known and "name" not in declaration.broken
    for name, derived in entity.derived.items():
        place = ("derived", name, "first_of")
        if not derived.first_of:
            yield declaration.mistake(place, "has no source", "Name at least one column.")
        if len(set(derived.first_of)) != len(derived.first_of):
            yield declaration.mistake(place, "names a source twice", "Name each once.")
        for source in derived.first_of:
            if source not in types and are_all_known and not declaration.may_have(source):
                cure = nearest_known(source, types)
                what = f"{entity.name} has no column or roll-up column {source!r}"
                yield declaration.mistake(place, what, cure)
        found = {types[s] for s in derived.first_of if types.get(s) is not None}
        if len(found) > 1:
            listed = ", ".join(f"{s} {types[s]}" for s in derived.first_of if types.get(s))
            what = f"its sources are of different types ({listed})"
            yield declaration.mistake(place, what, "Name columns of one type.")


def _check_latest(child: Declaration, rollup: DeclaredRollup) -> Iterator[Mistake]:
    latest = rollup.latest
    if latest is None:
        if rollup.count is None:
            cure = "Add count, latest or both."
            yield child.mistake(("rollup",), "keeps nothing in the parent", cure)
        return
    if not latest.set:
        cure = 'Name what to copy: set = { lastMessageId = "messageId" }.'
        yield child.mistake(("rollup", "latest", "set"), "copies nothing", cure)
    yield from _check_latest_by(child, latest.by)
    for target, text in latest.set.items():
        yield from _check_latest_source(child, target, text)


def _check_latest_by(child: Declaration, by: str) -> Iterator[Mistake]:
    if child.may_have(by):
        return
    place = ("rollup", "latest", "by")
    column = child.entity.columns.get(by)
    if column is None:
        orderable = [
            n for n, c in child.entity.columns.items() if c.required and c.type in _ORDERED_TYPES
        ]
        what = f"{child.entity.name} has no column {by!r}"
        yield child.mistake(place, what, nearest_known(by, orderable))
        return
    if not column.required:
        cure = f"Add required = true to {by}, or name another column."
        yield child.mistake(place, f"column {by!r} is not required: rows may be without it", cure)
    if column.type not in _ORDERED_TYPES:
        what = f"column {by!r} is of type {column.type}, which has no order"
        cure = f"Name a column of type {', '.join(_ORDERED_TYPES)}."
        yield child.mistake(place, what, cure)


def _check_latest_source(child: Declaration, target: str, text: str) -> Iterator[Mistake]:
    place = ("rollup", "latest", "set", target)
    source, colon, _ = text.partition(":")
    if child.may_have(source) or ("path" in child.broken and source not in child.entity.columns):
        return
    kind = source_type(child, source)
    if kind is None:
        cure = nearest_known(source, [*child.entity.columns, *child.entity.parameters])
        what = f"{child.entity.name} has no column or key part {source!r}"
        yield child.mistake(place, what, cure)
    elif colon and kind not in _CUT_TYPES:
        what = f"{source!r} is of type {kind}, which cannot be cut"
        yield child.mistake(place, what, "Leave the length out; only string and text have one.")


def _check_parent_key(child: Declaration, parent: Declaration) -> Iterator[Mistake]:
    if "path" in child.broken or "path" in parent.broken:
        return
    # The built-in file is right by itself: what no longer fits it is what replaces a part of it.
    is_ours = child.is_builtin and not parent.is_builtin
    place: Place = ("path",) if is_ours else ("rollup", "into")
    blamed = parent if is_ours else child
    ours, theirs = child.entity.parameters, parent.entity.parameters
    if ours[:-1] != theirs:
        cure = "The parent's parameters must be the child's without the last, by the same names."
        if is_ours:
            cure += f" Replace {child.entity.name} as well (replace = true)."
        what = (
            f"{child.entity.name} has the key ({', '.join(ours)}) and rolls up into "
            f"{parent.entity.name}, which has ({', '.join(theirs)})"
        )
        yield blamed.mistake(place, what, cure)
        return
    for part in theirs:
        lengths = [d.entity.key_length.get(part, DEFAULT_KEY_LENGTH) for d in (child, parent)]
        if lengths[0] != lengths[1]:
            what = (
                f"{part} may have {lengths[0]} characters in {child.entity.name}, and "
                f"{lengths[1]} in {parent.entity.name}"
            )
            cure = f"Give both the same key_length for {part}."
            yield blamed.mistake(place, what, cure)
