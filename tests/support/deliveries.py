"""Deliveries as Eventarc makes them, built by the definition of the messages alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.events.cloud.firestore import DocumentEventData  # type: ignore[import-untyped]

from storemirror.clock import us_from_datetime
from storemirror.event.envelope import source_of
from storemirror.event.value import GeoPoint, Reference

SOURCE = source_of("demo", "(default)")
NAME = "projects/demo/databases/(default)/documents/conversations/c1/messages/m1"
PATH = "conversations/c1/messages/m1"
#: As Eventarc sends them.
HEADERS = {
    "Content-Type": "application/protobuf",
    "Ce-Specversion": "1.0",
    "Ce-Id": "d1",
    "Ce-Type": "google.cloud.firestore.document.v1.written",
    "Ce-Source": SOURCE,
    "Ce-Subject": f"documents/{PATH}",
    "Ce-Time": "2026-11-22T16:49:17Z",
    "Ce-Document": PATH,
}


_SCALARS: Mapping[type, str] = {
    bool: "boolean_value",
    int: "integer_value",
    float: "double_value",
    str: "string_value",
    bytes: "bytes_value",
}


def fill_value(target: Any, value: object) -> None:
    """Put a Python value into a protobuf `Value`, by the definition of the message alone."""
    match value:
        case None:
            target.null_value = 0
        case bool() | int() | float() | str() | bytes():
            setattr(target, _SCALARS[type(value)], value)
        case datetime():
            fill_time(target.timestamp_value, us_from_datetime(value))
        case Reference():
            target.reference_value = value.name
        case GeoPoint():
            target.geo_point_value.latitude = value.latitude
            target.geo_point_value.longitude = value.longitude
        case list() | dict():
            _fill_container(target, value)


def _fill_container(target: Any, value: list[object] | dict[str, object]) -> None:
    if isinstance(value, list):
        target.array_value.SetInParent()
        for item in value:
            fill_value(target.array_value.values.add(), item)
        return
    target.map_value.SetInParent()
    for name, item in value.items():
        fill_value(target.map_value.fields[name], item)


def fill_time(target: Any, time_us: int) -> None:
    target.SetInParent()
    target.seconds, micros = divmod(time_us, 1_000_000)
    target.nanos = micros * 1_000


def fill_image(
    target: Any, document: Mapping[str, object], update_time_us: int, name: str = NAME
) -> None:
    target.name = name
    for field, value in document.items():
        fill_value(target.fields[field], value)
    fill_time(target.create_time, 10)
    fill_time(target.update_time, update_time_us)


def told(
    after: Mapping[str, object] | None = None, before: Mapping[str, object] | None = None
) -> Any:
    """A `DocumentEventData` of one document: written at 20, before that at 15."""
    data = DocumentEventData.pb()()
    if after is not None:
        fill_image(data.value, after, 20)
    if before is not None:
        fill_image(data.old_value, before, 15)
    return data
