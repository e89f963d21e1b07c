"""
Firestore's values as REST `Value` JSON: built from Python values, brought to one canonical form.

A canonical value looks the same whoever saw it (trigger, client, backfill), so that its digest
does too: times have six decimals and `Z`, integers are decimal strings, doubles are JSON numbers
except "NaN", "Infinity" and "-Infinity", an empty array or map keeps its inner list or object.
Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from storemirror.clock import rfc3339_from_us, us_from_datetime, us_from_rfc3339
from storemirror.event.change import Fields, Value

#: Firestore nests maps and arrays at most 20 deep; a little more is let through, no more.
MAX_DEPTH: Final = 64

_DECIMAL: Final = re.compile(r"-?[0-9]{1,19}")


class ValueInvalid(ValueError):
    """A value is no REST `Value` JSON.  The message names the field, never its contents."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to another document, by its full resource name."""

    name: str


@dataclass(frozen=True, slots=True)
class GeoPoint:
    """A place on Earth, in degrees."""

    latitude: float
    longitude: float


def encode_fields(document: Mapping[str, object]) -> Fields:
    """
    Turn a document of Python values into canonical fields.

    Args:
        document: name -> None, bool, int (64 bit), float, str, bytes, aware datetime, list,
            mapping with string keys, `Reference` or `GeoPoint`.

    Raises:
        ValueInvalid: a value has none of these types, does not fit 64 bits, or is nested too deep.

    >>> encode_fields({"n": 3, "ok": True})
    {'n': {'integerValue': '3'}, 'ok': {'booleanValue': True}}
    """
    return {_name(name, ""): encode_value(v, where=name) for name, v in document.items()}


def encode_value(value: object, *, where: str = "value", depth: int = 0) -> Value:
    """Turn one Python value into a canonical value; see `encode_fields`."""
    match value:
        case None:
            return {"nullValue": None}
        case bool():
            return {"booleanValue": value}
        case int():
            return {"integerValue": _integer(value, where)}
        case float():
            return {"doubleValue": _double(value, where)}
        case str():
            return {"stringValue": _string(value, where)}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case datetime():
            return {"timestampValue": _moment(value, where)}
        case Reference():
            return {"referenceValue": _string(value.name, where)}
        case GeoPoint():
            point = {"latitude": value.latitude, "longitude": value.longitude}
            return {"geoPointValue": _geo_point(point, where)}
    return _encode_container(value, where, depth)


def _encode_container(value: object, where: str, depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise ValueInvalid(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        fields = {
            _name(name, where): encode_value(item, where=f"{where}.{name}", depth=depth + 1)
            for name, item in value.items()
        }
        return {"mapValue": {"fields": fields}}
    if isinstance(value, list | tuple):
        items = [
            encode_value(item, where=f"{where}[{i}]", depth=depth + 1)
            for i, item in enumerate(value)
        ]
        return {"arrayValue": {"values": items}}
    raise ValueInvalid(f"{where}: Firestore has no value of type {type(value).__name__}")


def canonical_fields(fields: Mapping[str, object]) -> Fields:
    """
    Bring REST `Value` JSON of any sender to the canonical form.

    Raises:
        ValueInvalid: something is no value; the message names the field.

    >>> canonical_fields({"t": {"timestampValue": "2026-01-01T00:00:00Z"}})
    {'t': {'timestampValue': '2026-01-01T00:00:00.000000Z'}}
    """
    return {_name(name, ""): canonical_value(v, where=name) for name, v in fields.items()}


def canonical_value(value: object, *, where: str = "value", depth: int = 0) -> Value:
    """Bring one value to the canonical form; see `canonical_fields`."""
    if depth > MAX_DEPTH:
        raise ValueInvalid(f"{where}: nested deeper than {MAX_DEPTH}")
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueInvalid(f"{where}: a value is an object with exactly one key")
    kind, content = next(iter(value.items()))
    if kind == "arrayValue":
        return {"arrayValue": {"values": _array(content, where, depth)}}
    if kind == "mapValue":
        return {"mapValue": {"fields": _map(content, where, depth)}}
    canonical = _SCALARS.get(kind)
    if canonical is None:
        raise ValueInvalid(f"{where}: unknown kind of value {kind!r}")
    return {kind: canonical(content, where)}


def _array(content: object, where: str, depth: int) -> list[Value]:
    values = _inner(content, "values", list, where)
    return [
        canonical_value(item, where=f"{where}[{i}]", depth=depth + 1)
        for i, item in enumerate(cast("list[object]", values))
    ]


def _map(content: object, where: str, depth: int) -> Fields:
    fields = _inner(content, "fields", dict, where)
    return {
        _name(name, where): canonical_value(item, where=f"{where}.{name}", depth=depth + 1)
        for name, item in cast("dict[str, object]", fields).items()
    }


def _inner(content: object, key: str, kind: type, where: str) -> object:
    """Give the list or object inside an array or map; REST leaves an empty one out."""
    inner = content.get(key, kind()) if isinstance(content, Mapping) else None
    if not isinstance(inner, kind):
        raise ValueInvalid(f"{where}: expected an object with {key!r}")
    return inner


def _null(content: object, where: str) -> None:
    if content not in (None, "NULL_VALUE"):
        raise ValueInvalid(f"{where}: a nullValue is null")


def _boolean(content: object, where: str) -> bool:
    if not isinstance(content, bool):
        raise ValueInvalid(f"{where}: a booleanValue is true or false")
    return content


def _integer(content: object, where: str) -> str:
    if isinstance(content, bool) or not isinstance(content, int | str):
        raise ValueInvalid(f"{where}: an integerValue is a decimal string")
    if isinstance(content, str) and not _DECIMAL.fullmatch(content):
        raise ValueInvalid(f"{where}: an integerValue is a decimal string")
    number = int(content)
    if not -(2**63) <= number < 2**63:
        raise ValueInvalid(f"{where}: an integerValue has 64 bits")
    return str(number)


def _double(content: object, where: str) -> float | str:
    if isinstance(content, str) and content in ("NaN", "Infinity", "-Infinity"):
        return content
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ValueInvalid(f"{where}: a doubleValue is a number, NaN, Infinity or -Infinity")
    try:
        number = float(content)
    except OverflowError:
        raise ValueInvalid(f"{where}: a doubleValue has 64 bits") from None
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def _string(content: object, where: str) -> str:
    if not isinstance(content, str):
        raise ValueInvalid(f"{where}: a string was expected")
    if not content.isascii() and any("\ud800" <= c <= "\udfff" for c in content):
        raise ValueInvalid(f"{where}: half of a surrogate pair is no character")
    return content


def _name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise ValueInvalid(f"{where or 'document'}: the name of a field is a string")
    return _string(name, f"{where or 'document'}, name of a field")


def _moment(moment: datetime, where: str) -> str:
    try:
        return rfc3339_from_us(us_from_datetime(moment))
    except (ValueError, OverflowError):
        raise ValueInvalid(f"{where}: a time needs a time zone, and a year up to 9999") from None


def _timestamp(content: object, where: str) -> str:
    try:
        return rfc3339_from_us(us_from_rfc3339(_string(content, where)))
    except (ValueError, OverflowError):
        raise ValueInvalid(f"{where}: a timestampValue is an RFC 3339 time") from None


def _bytes(content: object, where: str) -> str:
    try:
        return base64.b64encode(base64.b64decode(_string(content, where), validate=True)).decode()
    except ValueError:
        raise ValueInvalid(f"{where}: a bytesValue is base64") from None


def _geo_point(content: object, where: str) -> dict[str, float]:
    """REST leaves a coordinate of zero out."""
    if not isinstance(content, Mapping):
        raise ValueInvalid(f"{where}: a geoPointValue has latitude and longitude")
    pair = [_double(content.get(key, 0.0), where) for key in ("latitude", "longitude")]
    if any(isinstance(number, str) for number in pair):
        raise ValueInvalid(f"{where}: a geoPointValue has finite coordinates")
    latitude, longitude = cast("list[float]", pair)
    return {"latitude": latitude, "longitude": longitude}


_SCALARS: Final[Mapping[str, Callable[[object, str], object]]] = {
    "nullValue": _null,
    "booleanValue": _boolean,
    "integerValue": _integer,
    "doubleValue": _double,
    "stringValue": _string,
    "timestampValue": _timestamp,
    "bytesValue": _bytes,
    "referenceValue": _string,
    "geoPointValue": _geo_point,
}
