"""
One canonical value into one column: what is taken, what is refused, what is only the nearest value.

Pure.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

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
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"(?!0000)[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z", re.ASCII
)
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

    #: Kind of value that goes in as it stands; empty for none.
    plain_kind: str
    #: The type of the content of such a value.
    plain_type: Any
    #: Whether a content of this type has its canonical form, and nothing that the database cannot
    #: hold: true or something, else false or None.  Our own sources see to the form; of other
    #: publishers nothing is taken on trust.
    is_sound: Callable[[Any], object]
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
            plain_kind=plain_kind,
            plain_type=bool if declared is ColumnType.BOOLEAN else str,
            is_sound=_FORMS.get(plain_kind, _is_any),
            convert=functools.partial(_refused, declared=declared),
        )
    if text_kind:
        # A text with U+0000 is none that goes in as it stands: it is converted.
        return Conversion(
            plain_kind=text_kind,
            plain_type=str,
            is_sound=_is_without_nul,
            convert=functools.partial(_text, declared=declared, kind=text_kind),
        )
    if declared is ColumnType.DOUBLE:
        convert: Convert = functools.partial(_double, limits=limits)
    elif declared is ColumnType.GEOPOINT:
        convert = _geo_point
    else:
        convert = functools.partial(_json, holds_nul=limits.holds_nul)
    return Conversion(plain_kind="", plain_type=str, is_sound=_is_any, convert=convert)


def _refused(value: Value, where: str, *, declared: ColumnType) -> tuple[None, bool]:
    raise Misfit.between(where, declared, _form_of(value))


def _form_of(value: Value) -> str:
    """Give the kind of a value, and whether its content is none of that kind."""
    kind, content = next(iter(value.items()), ("nothing", None))
    is_sound = _SOUND.get(kind)
    named = kind_of(value)
    return f"{named} of no canonical form" if is_sound and not is_sound(content) else named


def _is_text(content: object) -> bool:
    return isinstance(content, str)


def _is_any(_content: object) -> bool:
    return True


def _is_without_nul(content: str) -> bool:
    return "\0" not in content


def _is_integer(content: object) -> bool:
    return isinstance(content, str) and _INTEGER.fullmatch(content) is not None


def _is_timestamp(content: object) -> bool:
    return isinstance(content, str) and _TIMESTAMP.fullmatch(content) is not None


def _is_boolean(content: object) -> bool:
    return isinstance(content, bool)


def _is_double(content: object) -> bool:
    if isinstance(content, str):
        return content in ("NaN", "Infinity", "-Infinity")
    return isinstance(content, int | float) and not isinstance(content, bool)


#: Kind of value -> whether a text has the form of its content.  Patterns by themselves: a function
#: around one costs as much again, and a writer asks for several columns of every event.
_FORMS: Final[Mapping[str, Callable[[str], object]]] = {
    "integerValue": _INTEGER.fullmatch,
    "timestampValue": _TIMESTAMP.fullmatch,
}
#: Kind of value -> whether its content has the canonical form of event/value.py.
_SOUND: Final[Mapping[str, Callable[[object], bool]]] = {
    "nullValue": lambda content: content is None,
    "booleanValue": _is_boolean,
    "integerValue": _is_integer,
    "doubleValue": _is_double,
    "timestampValue": _is_timestamp,
    "stringValue": _is_text,
    "bytesValue": _is_text,
    "referenceValue": _is_text,
}


def _text(value: Value, where: str, *, declared: ColumnType, kind: str) -> tuple[str, bool]:
    content = value.get(kind)
    if not isinstance(content, str):
        raise Misfit.between(where, declared, _form_of(value))
    if "\0" in content:
        return content.replace("\0", _REPLACEMENT), True
    return content, False


def _double(value: Value, where: str, *, limits: DialectLimits) -> tuple[str | None, bool]:
    content = value.get("doubleValue")
    if content is None:
        return _double_of_integer(value, where), False
    if not _is_double(content):
        raise Misfit.between(where, ColumnType.DOUBLE, _form_of(value))
    if isinstance(content, str):
        return (content, False) if limits.holds_nan else (_LARGEST.get(content), True)
    number = float(cast("float", content))
    if not limits.holds_negative_zero and _is_negative_zero(number):
        return "0.0", True
    return repr(number), False


def _double_of_integer(value: Value, where: str) -> str:
    content = value.get("integerValue")
    if not _is_integer(content):
        raise Misfit.between(where, ColumnType.DOUBLE, _form_of(value))
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


def _json(value: Value, where: str, *, holds_nul: bool) -> tuple[str, bool]:
    plain = _PlainJson(holds_nul=holds_nul)
    try:
        text = _ENCODER.encode(plain.of(value)).decode()
    except (AttributeError, KeyError, RecursionError, StopIteration, TypeError, ValueError):
        # Their messages would quote the contents.
        found = f"{kind_of(value)} of no canonical form"
        raise Misfit.between(where, ColumnType.JSON, found) from None
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
        is_sound = _SOUND.get(kind)
        if is_sound is not None and not is_sound(content):
            raise ValueError
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
        if is_sound is None:
            raise ValueError
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
