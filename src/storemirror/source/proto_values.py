"""
Firestore's protobuf `Value` as canonical REST `Value` JSON, bit for bit.

Google publishes the same message twice: `google.events.cloud.firestore.v1.Value` in deliveries,
`google.firestore.v1.Value` in its client.  The fields have the same names, so one function reads
both; it takes the bare protobuf message (of a proto-plus class: `type(message).pb(message)`).
Vectors are maps on the wire, here and there.  Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from storemirror.clock import SECOND_US, rfc3339_from_us
from storemirror.event.change import Fields, Value
from storemirror.event.value import MAX_DEPTH, ValueInvalid

#: A bare protobuf message; its class is not known here.
Proto: TypeAlias = Any


def fields_from_proto(fields: Mapping[str, Proto]) -> Fields:
    """
    Turn a document's fields into canonical fields, in the order of their names.

    Args:
        fields: name -> `Value` message, such as the `fields` of a `Document` message.

    Raises:
        ValueInvalid: a value has no kind that a document may hold, or a time is out of range; the
            message names the field, never its contents.
    """
    return {name: value_from_proto(fields[name], where=name) for name in sorted(fields)}


def value_from_proto(value: Proto, *, where: str = "value", depth: int = 0) -> Value:
    """Turn one `Value` message into a canonical value; see `fields_from_proto`."""
    if depth > MAX_DEPTH:
        raise ValueInvalid(f"{where}: nested deeper than {MAX_DEPTH}")
    kind = cast("str | None", value.WhichOneof("value_type"))
    if kind == "map_value":
        fields = value.map_value.fields
        canonical = {
            name: value_from_proto(fields[name], where=f"{where}.{name}", depth=depth + 1)
            for name in sorted(fields)
        }
        return {"mapValue": {"fields": canonical}}
    if kind == "array_value":
        items = [
            value_from_proto(item, where=f"{where}[{i}]", depth=depth + 1)
            for i, item in enumerate(value.array_value.values)
        ]
        return {"arrayValue": {"values": items}}
    scalar = _SCALARS.get(kind or "")
    if scalar is None:
        raise ValueInvalid(f"{where}: no value of a document: {kind or 'nothing is set'}")
    name, canonical_of = scalar
    return {name: canonical_of(getattr(value, cast("str", kind)), where)}


def us_from_proto(timestamp: Proto) -> int:
    """
    Turn a `google.protobuf.Timestamp` into microseconds since the Unix epoch.

    Digits beyond the sixth are cut, as Firestore itself does.
    """
    return int(timestamp.seconds) * SECOND_US + int(timestamp.nanos) // 1_000


def _unchanged(content: object, _: str) -> object:
    return content


def _null(_content: object, _: str) -> None:
    return None


def _integer(content: int, _: str) -> str:
    return str(content)


def _double(content: float, _: str) -> float | str:
    if math.isnan(content):
        return "NaN"
    if math.isinf(content):
        return "Infinity" if content > 0 else "-Infinity"
    return content


def _timestamp(content: Proto, where: str) -> str:
    try:
        return rfc3339_from_us(us_from_proto(content))
    except OverflowError:
        raise ValueInvalid(f"{where}: a time lies in the years 1 to 9999") from None


def _bytes(content: bytes, _: str) -> str:
    return base64.b64encode(content).decode()


def _geo_point(content: Proto, where: str) -> dict[str, float]:
    latitude, longitude = content.latitude, content.longitude
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        raise ValueInvalid(f"{where}: a geoPointValue has finite coordinates")
    return {"latitude": latitude, "longitude": longitude}


_SCALARS: Final[Mapping[str, tuple[str, Callable[[Any, str], object]]]] = {
    "null_value": ("nullValue", _null),
    "boolean_value": ("booleanValue", _unchanged),
    "integer_value": ("integerValue", _integer),
    "double_value": ("doubleValue", _double),
    "timestamp_value": ("timestampValue", _timestamp),
    "string_value": ("stringValue", _unchanged),
    "bytes_value": ("bytesValue", _bytes),
    "reference_value": ("referenceValue", _unchanged),
    "geo_point_value": ("geoPointValue", _geo_point),
}
