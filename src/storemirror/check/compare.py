"""
Compares one document with one row, and names what differs.

A mismatch names document and field, never contents.  Pure: no I/O, no vendor library, and
nothing of the writer's mapping or digest (a house test refuses the imports).

How values are compared:

- A double bit for bit: NaN equals NaN, -0.0 is not 0.0.
- JSON strictly by type (1, 1.0 and true are three things), whatever the order of names.  One
  exception: from 1e16 on a double may show as the integer that it is, since PostgreSQL's jsonb
  writes numbers without exponent and so loses the mark by which it was a double.
- A value that the database cannot hold by the nearest one, which must be named in the row's
  `lossy_fields`; a name too many is a mismatch as well.
- The digest and the mapping revision are the writer's own and are not looked at.
"""

from __future__ import annotations

import enum
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from storemirror.check.decode import ExpectedRow, Undeliverable, decode_document
from storemirror.event.change import RowState, version_of
from storemirror.model.entity import Entity
from storemirror.model.types import DialectLimits
from storemirror.source.port import Document
from storemirror.sql.port import MirrorRow

#: From here on a double may come back from a JSON column as the integer that it is.
_SHOWN_AS_INTEGER_FROM: Final = 1e16


class MismatchKind(enum.StrEnum):
    """In what way a row is not what its document says."""

    MISSING_ROW = "missing row"  #: the document exists; no row, or only a stub
    TOMBSTONE = "tombstone of a document that exists"
    ROW_OF_GONE_DOCUMENT = "row of a document that is gone"
    CONTENTS_LEFT = "contents left in a tombstone or stub"
    OLDER_ROW = "older row"  #: a change never arrived, or the version was damaged downwards
    NEWER_ROW = "newer row than any commit"  #: the version was damaged upwards
    FIELD_DIFFERS = "field differs"
    CHILD_MISSING = "child row missing"
    CHILD_EXTRA = "child row too many"
    CHILD_DIFFERS = "child row differs"
    LOSSY_FIELDS_DIFFER = "lossy fields differ"
    RAW_DIFFERS = "raw document differs"
    UNDELIVERABLE = "document does not fit its declaration"
    ROLLUP_DIFFERS = "roll-up differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One difference between a document and its row."""

    kind: MismatchKind
    #: Entity whose table it is: "DmConversation".
    entity: str
    #: Document path from the database root.
    path: str
    #: Column, "DmParticipant[u1]", "DmParticipant[u1].lastReadAt"; empty for the row as a whole.
    field: str = ""
    #: Version that the document's commit time gives; None when there is no document.
    document_version: int | None = None
    #: Version of the row; None when there is none.
    row_version: int | None = None

    def __str__(self) -> str:
        """
        Give the mismatch as one line.

        >>> print(Mismatch(kind=MismatchKind.FIELD_DIFFERS, entity="DmMessage", path="c/1/m/2",
        ...                field="body", document_version=20, row_version=20))
        DmMessage c/1/m/2 body: field differs (version 20 in both)
        """
        place = f"{self.entity} {self.path} {self.field}".rstrip()
        return f"{place}: {self.kind}{self._versions()}"

    def _versions(self) -> str:
        document, row = self.document_version, self.row_version
        if document == row:
            return "" if row is None else f" (version {row} in both)"
        shown = ["none" if version is None else str(version) for version in (document, row)]
        return f" (version of the document {shown[0]}, of the row {shown[1]})"


def is_backwards(mismatch: Mismatch) -> bool:
    """
    Tell whether a mismatch shows a document that is older than its row.

    >>> older = {"entity": "DmMessage", "path": "c/1/m/2", "document_version": 20}
    >>> kinds = MismatchKind.NEWER_ROW, MismatchKind.TOMBSTONE, MismatchKind.OLDER_ROW
    >>> [is_backwards(Mismatch(kind=kind, row_version=30, **older)) for kind in kinds]
    [True, True, False]
    """
    if mismatch.kind not in (MismatchKind.NEWER_ROW, MismatchKind.TOMBSTONE):
        return False
    document_version, row_version = mismatch.document_version, mismatch.row_version
    return (
        document_version is not None and row_version is not None and document_version < row_version
    )


def compare_document(
    entity: Entity,
    key: tuple[str, ...],
    document: Document | None,
    row: MirrorRow | None,
    limits: DialectLimits,
) -> list[Mismatch]:
    """
    Compare one document with one row.

    Args:
        entity: declaration of both.
        key: key of both, one string a part.
        document: None when there is none.
        row: in any state; None when there is none.
        limits: what the row's database cannot hold.

    Returns:
        What differs, in the order of the declaration; empty when nothing does.  A row of another
        version is not compared field by field: its contents are another commit's.
    """
    document_version = None
    if document is None:
        found = _without_document(entity, row)
    else:
        document_version = version_of(document.update_time_us, is_deleted=False)
        found = _with_document(entity, key, document, row, limits)
    path = entity.path_of(key)
    return [
        Mismatch(
            kind=kind,
            entity=entity.name,
            path=path,
            field=field,
            document_version=document_version,
            row_version=None if row is None else row.version,
        )
        for kind, field in found
    ]


_Found = tuple[MismatchKind, str]


def _without_document(entity: Entity, row: MirrorRow | None) -> list[_Found]:
    if row is None:
        return []
    if row.state is RowState.LIVE:
        return [(MismatchKind.ROW_OF_GONE_DOCUMENT, "")]
    return [(MismatchKind.CONTENTS_LEFT, field) for field in _contents_left(entity, row)]


def _contents_left(entity: Entity, row: MirrorRow) -> Iterator[str]:
    """Name what a tombstone or stub still holds of its document."""
    for column in entity.columns:
        if row.columns.get(column.name) is not None:
            yield column.name
    for table in entity.children:
        for child in sorted(row.children.get(table.name, {})):
            yield f"{table.name}[{child}]"
    if row.raw is not None:
        yield "raw"


def _with_document(
    entity: Entity,
    key: Sequence[str],
    document: Document,
    row: MirrorRow | None,
    limits: DialectLimits,
) -> list[_Found]:
    expected = decode_document(entity, key, document.fields, limits)
    if isinstance(expected, Undeliverable):
        return [(MismatchKind.UNDELIVERABLE, expected.field)]
    if row is None or row.state is RowState.STUB:
        return [(MismatchKind.MISSING_ROW, "")]
    if row.state is RowState.TOMBSTONE:
        return [(MismatchKind.TOMBSTONE, "")]
    version = version_of(document.update_time_us, is_deleted=False)
    if row.version != version:
        is_older = row.version < version
        return [(MismatchKind.OLDER_ROW if is_older else MismatchKind.NEWER_ROW, "")]
    return list(_differences(entity, expected, row))


def _differences(entity: Entity, expected: ExpectedRow, row: MirrorRow) -> Iterator[_Found]:
    for name, value in expected.columns.items():
        if name not in row.columns or not is_same(value, row.columns[name]):
            yield MismatchKind.FIELD_DIFFERS, name
    for derived in entity.derived:
        if not is_same(_first_of(derived.sources, row), row.columns.get(derived.name)):
            yield MismatchKind.FIELD_DIFFERS, derived.name
    for table, children in expected.children.items():
        yield from _child_differences(table, children, row.children.get(table, {}))
    for name in sorted(set(expected.lossy_fields) ^ set(row.lossy_fields)):
        yield MismatchKind.LOSSY_FIELDS_DIFFER, name
    if not _is_same_raw(expected.raw, row.raw):
        yield MismatchKind.RAW_DIFFERS, "raw"


def _first_of(names: Iterable[str], row: MirrorRow) -> object:
    """Give the first of these columns that is not NULL, as the database computes it."""
    values = (row.columns.get(name) for name in names)
    return next((value for value in values if value is not None), None)


def _child_differences(
    table: str,
    expected: Mapping[str, Mapping[str, object]],
    shown: Mapping[str, Mapping[str, object]],
) -> Iterator[_Found]:
    for key in sorted(expected.keys() | shown.keys()):
        if key not in shown:
            yield MismatchKind.CHILD_MISSING, f"{table}[{key}]"
        elif key not in expected:
            yield MismatchKind.CHILD_EXTRA, f"{table}[{key}]"
        else:
            for name, value in expected[key].items():
                if name not in shown[key] or not is_same(value, shown[key][name]):
                    yield MismatchKind.CHILD_DIFFERS, f"{table}[{key}].{name}"


def _is_same_raw(expected: Mapping[str, object] | None, shown: str | None) -> bool:
    if expected is None or shown is None:
        return expected is None and shown is None
    try:
        return is_same(expected, json.loads(shown))
    except (ValueError, RecursionError):
        return False


def is_same(expected: object, shown: object) -> bool:
    """
    Tell whether a column shows what it should.

    Args:
        expected: str, int, float, bool, bytes, aware datetime, None, or plain JSON values.
        shown: what the adapter read.

    >>> is_same(1.0, 1), is_same(1, True), is_same(float("nan"), float("nan"))
    (False, False, True)
    >>> is_same(1e22, 10**22), is_same(0.0, -0.0)
    (True, False)
    """
    if isinstance(expected, Mapping):
        return (
            isinstance(shown, Mapping)
            and expected.keys() == shown.keys()
            and all(is_same(value, shown[name]) for name, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(shown, list)
            and len(expected) == len(shown)
            and all(map(is_same, expected, shown))
        )
    if isinstance(expected, float):
        return _is_same_double(expected, shown)
    if isinstance(expected, datetime):
        return isinstance(shown, datetime) and shown.tzinfo is not None and expected == shown
    return type(expected) is type(shown) and expected == shown


def _is_same_double(expected: float, shown: object) -> bool:
    if isinstance(shown, float):
        both_are_nan = math.isnan(expected) and math.isnan(shown)
        return both_are_nan or struct.pack("<d", expected) == struct.pack("<d", shown)
    if type(shown) is not int or not abs(expected) >= _SHOWN_AS_INTEGER_FROM:
        return False
    try:
        return float(shown) == expected
    except OverflowError:
        return False
