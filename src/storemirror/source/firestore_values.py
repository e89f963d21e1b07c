"""
Canonical values as Firestore's protobuf `Value` messages, bit for bit.

The other direction, which deliveries need too, is `storemirror.source.proto_values`.  The bare
messages are filled: the client's own encoder starts from Python values, which know fewer cases.
Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from storemirror.clock import SECOND_US, us_from_rfc3339
from storemirror.event.change import Fields, Value

#: A bare protobuf message; its class is made at run time.
Proto: TypeAlias = Any


def fill_fields(target: Proto, fields: Fields) -> None:
    """
    Write canonical fields into a protobuf map of `Value` messages.

    Args:
        target: the `fields` of a `Document` or `MapValue` message.
        fields: canonical (`storemirror.event.value.canonical_fields`).
    """
    for name, value in fields.items():
        fill_value(target[name], value)


def fill_value(target: Proto, value: Value) -> None:
    """Write one canonical value into a `Value` message."""
    kind, content = next(iter(value.items()))
    if kind == "mapValue":
        # Without this an empty map would be no value at all.
        target.map_value.SetInParent()
        fill_fields(target.map_value.fields, cast("Mapping[str, Fields]", content)["fields"])
    elif kind == "arrayValue":
        target.array_value.SetInParent()
        for item in cast("Mapping[str, Sequence[Value]]", content)["values"]:
            fill_value(target.array_value.values.add(), item)
    else:
        _FILLERS[kind](target, content)


def fill_time(target: Proto, time_us: int) -> None:
    """Write microseconds since the Unix epoch into a `google.protobuf.Timestamp`."""
    seconds, rest_us = divmod(time_us, SECOND_US)
    target.seconds = seconds
    target.nanos = rest_us * 1_000


def _null(target: Proto, _: object) -> None:
    target.null_value = 0  # the only member of google.protobuf.NullValue


def _boolean(target: Proto, content: object) -> None:
    target.boolean_value = content


def _integer(target: Proto, content: object) -> None:
    target.integer_value = int(cast("str", content))


def _double(target: Proto, content: object) -> None:
    target.double_value = float(cast("float | str", content))


def _string(target: Proto, content: object) -> None:
    target.string_value = content


def _timestamp(target: Proto, content: object) -> None:
    target.timestamp_value.SetInParent()
    fill_time(target.timestamp_value, us_from_rfc3339(cast("str", content)))


def _bytes(target: Proto, content: object) -> None:
    target.bytes_value = base64.b64decode(cast("str", content))


def _reference(target: Proto, content: object) -> None:
    target.reference_value = content


def _geo_point(target: Proto, content: object) -> None:
    point = cast("Mapping[str, float]", content)
    target.geo_point_value.SetInParent()
    target.geo_point_value.latitude = point["latitude"]
    target.geo_point_value.longitude = point["longitude"]


_FILLERS: Final[Mapping[str, Callable[[Proto, object], None]]] = {
    "nullValue": _null,
    "booleanValue": _boolean,
    "integerValue": _integer,
    "doubleValue": _double,
    "stringValue": _string,
    "timestampValue": _timestamp,
    "bytesValue": _bytes,
    "referenceValue": _reference,
    "geoPointValue": _geo_point,
}
