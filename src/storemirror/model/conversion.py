"""
One canonical value into one column: what is taken, what is refused, what is only the nearest value.

Pure.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import msgspec

from storemirror.model.types import ColumnType, DialectLimits

#: A REST `Value`: one key, its kind, as in {"stringValue": "hi"}.
Value = Mapping[str, object]
#: Takes a value and the field's name for errors; gives the column's value, and whether that is
#: only the nearest one.
Convert = Callable[[Value, str], tuple[str | bool | None, bool]]

#: Kinds whose content goes into the column as it stands.
_PLAIN: Final[Mapping[ColumnType, str]] = {
    ColumnType.INTEGER: "integerValue",
    ColumnType.BOOLEAN: "booleanValue",
    ColumnType.TIMESTAMP: "timestampValue",
    ColumnType.BYTES: "bytesValue",
}
_TEXT: Final[Mapping[ColumnType, str]] = {
    ColumnType.STRING: "stringValue",
    ColumnType.TEXT: "stringValue",
    ColumnType.REFERENCE: "referenceValue",
}
#: U+FFFD, the replacement character, stands for a U+0000 that the database cannot hold.
_REPLACEMENT: Final = "\ufffd"
_LARGEST: Final[Mapping[str, str]] = {
    "Infinity": "1.7976931348623157e+308",
    "-Infinity": "-1.7976931348623157e+308",
}
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class Misfit(ValueError):
    """A value does not fit its column.  The message names field and types, never contents."""

    @classmethod
    def between(cls, where: str, declared: str, found: str) -> Misfit:
        """Say what was declared and what was found."""
        return cls(f"field {where}: declared {declared}, found {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How a column takes its value."""

    #: Kind of value that goes in as it stands, without a call; empty for none.
    plain_kind: str
    #: For every other value but null.
    convert: Convert


def kind_of(value: Value) -> str:
    """
    Give the kind of a value in the words of the declarations.

    >>> kind_of({"stringValue": "hi"}), kind_of({"geoPointValue": {}})
    ('string', 'geopoint')
    """
    return next(iter(value), "nothing").removesuffix("Value").lower()


def conversion_of(declared: ColumnType, limits: DialectLimits) -> Conversion:
    """Give how a column of this type takes its value in a database with these limits."""
    text_kind = _TEXT.get(declared, "")
    plain_kind = _PLAIN.get(declared, text_kind if limits.holds_nul else "")
    if plain_kind:
        return Conversion(
            plain_kind=plain_kind, convert=functools.partial(_refused, declared=declared)
        )
    if text_kind:
        convert: Convert = functools.partial(_text, declared=declared, kind=text_kind)
    elif declared is ColumnType.DOUBLE:
        convert = functools.partial(_double, limits=limits)
    elif declared is ColumnType.GEOPOINT:
        convert = _geo_point
    else:
        convert = functools.partial(_json, holds_nul=limits.holds_nul)
    return Conversion(plain_kind="", convert=convert)


def _refused(value: Value, where: str, *, declared: ColumnType) -> tuple[None, bool]:
    raise Misfit.between(where, declared, kind_of(value))


def _text(value: Value, where: str, *, declared: ColumnType, kind: str) -> tuple[str, bool]:
    content = value.get(kind)
    if content is None:
        raise Misfit.between(where, declared, kind_of(value))
    text = cast("str", content)
    if "\0" in text:
        return text.replace("\0", _REPLACEMENT), True
    return text, False


def _double(value: Value, where: str, *, limits: DialectLimits) -> tuple[str | None, bool]:
    content = value.get("doubleValue")
    if content is None:
        return _double_of_integer(value, where), False
    if isinstance(content, str):
        return (content, False) if limits.holds_nan else (_LARGEST.get(content), True)
    number = float(cast("float", content))
    if not limits.holds_negative_zero and _is_negative_zero(number):
        return "0.0", True
    return repr(number), False


def _double_of_integer(value: Value, where: str) -> str:
    content = value.get("integerValue")
    if content is None:
        raise Misfit.between(where, ColumnType.DOUBLE, kind_of(value))
    integer = int(cast("str", content))
    number = float(integer)
    if int(number) != integer:
        raise Misfit.between(where, ColumnType.DOUBLE, "integer that no double holds exactly")
    return repr(number)


def _is_negative_zero(number: float) -> bool:
    return number == 0 and math.copysign(1, number) < 0


def _geo_point(value: Value, where: str) -> tuple[str, bool]:
    if "geoPointValue" not in value:
        raise Misfit.between(where, ColumnType.GEOPOINT, kind_of(value))
    return _json(value, where, holds_nul=True)


def _json(value: Value, _where: str, *, holds_nul: bool) -> tuple[str, bool]:
    plain = _PlainJson(holds_nul=holds_nul)
    text = _ENCODER.encode(plain.of(value)).decode()
    return text, plain.is_lossy


class _PlainJson:
    """Values as plain JSON, remembering whether one had to give way to the nearest."""

    __slots__ = ("holds_nul", "is_lossy")

    def __init__(self, *, holds_nul: bool) -> None:
        self.holds_nul = holds_nul
        self.is_lossy = False

    def of(self, value: Value) -> object:
        """Give one value as what JSON has: None, bool, int, float, str, list or dict."""
        kind, content = next(iter(value.items()))
        match kind:
            case "integerValue":
                return int(cast("str", content))
            case "doubleValue":
                return self._double(content)
            case "stringValue" | "referenceValue":
                return self._text(cast("str", content))
            case "geoPointValue":
                point = cast("Mapping[str, object]", content)
                return {name: self._double(degrees) for name, degrees in point.items()}
            case "arrayValue":
                values = cast("Mapping[str, Sequence[Value]]", content)["values"]
                return [self.of(item) for item in values]
            case "mapValue":
                fields = cast("Mapping[str, Mapping[str, Value]]", content)["fields"]
                return {self._text(name): self.of(item) for name, item in fields.items()}
        return content

    def _double(self, content: object) -> float | None:
        if isinstance(content, str):
            # JSON has no NaN and no infinities.
            self.is_lossy = True
            return None
        number = float(cast("float", content))
        if _is_negative_zero(number):
            # PostgreSQL's jsonb drops the sign.
            self.is_lossy = True
            return 0.0
        return number

    def _text(self, text: str) -> str:
        if self.holds_nul or "\0" not in text:
            return text
        self.is_lossy = True
        return text.replace("\0", _REPLACEMENT)
