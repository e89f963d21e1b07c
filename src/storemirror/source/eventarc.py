"""
What Eventarc delivers, as a document's change.

A delivery is a CloudEvent over HTTP: in binary mode (`Ce-*` headers, the body a protobuf
`DocumentEventData` or its JSON form) or in structured mode (one JSON object).  Google's emulator
sends the first, with the body in base64 and `projects/` twice in `Ce-Source`; both are taken.
The document's own name says which database it is of: it is inside what Firestore wrote.

Pure: no I/O.  The only file that imports Google's event types.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from google.events.cloud.firestore import DocumentEventData  # type: ignore[import-untyped]
from google.protobuf import json_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from storemirror.clock import LAST_US
from storemirror.event.value import ValueInvalid
from storemirror.source.port import Document, DocumentChange
from storemirror.source.proto_values import Proto, fields_from_proto, us_from_proto
from storemirror.source.unreadable import Unreadable

_SERVICE: Final = "//firestore.googleapis.com/"
_TYPE: Final = re.compile(
    r"google\.cloud\.firestore\.document\.v1\.(created|updated|deleted|written)(\.withAuthContext)?"
)
_STRUCTURED: Final = "application/cloudevents+json"
_PROTOBUF: Final = ("application/protobuf", "application/x-protobuf")
_JSON: Final = "application/json"
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: First bytes that a `DocumentEventData` can have: the tags of its three fields.  None of them is
#: a character of base64, so that both forms of a body are told apart without a doubt.
_FIRST_TAGS: Final = (b"\x0a", b"\x12", b"\x1a")


class _Refused(Exception):
    """A delivery cannot be read; the message says why, without document contents."""


@dataclass(frozen=True, slots=True)
class _Event:
    """A CloudEvent, whichever mode it came in."""

    #: Attribute -> text, by lower-case name without `ce-`.
    attributes: Mapping[str, str]
    #: Media type of `data`, lower case, without parameters.
    data_type: str
    data: bytes


def decode_delivery(
    headers: Mapping[str, str], body: bytes, *, source: str
) -> DocumentChange | Unreadable:
    """
    Read one delivery.

    Args:
        headers: of the request, by any case of name, as Latin-1 text.
        body: of the request.
        source: the only database whose deliveries are taken; see
            `storemirror.event.envelope.source_of`.

    Returns:
        The document before and after, canonical; both None for a delete of what was not there
        (only the emulator tells of that).  `Unreadable` for what is no such delivery, or is of
        another database.
    """
    lowered = {name.lower(): text for name, text in headers.items()}
    try:
        return _change_of(_event_of(lowered, body), source)
    except _Refused as exc:
        return Unreadable(reason=str(exc), path=_claimed_path(lowered.get("ce-document", "")))


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """
    Give the W3C trace context that came with a delivery; None when there is none to trust.

    Args:
        headers: by lower-case name.

    >>> traceparent_of({"traceparent": "00-" + "1" * 32 + "-" + "0" * 16 + "-01"}) is None
    True
    """
    for name in ("ce-traceparent", "traceparent"):
        text = headers.get(name, "")
        if _TRACEPARENT.fullmatch(text):
            return text
    return None


def _event_of(headers: Mapping[str, str], body: bytes) -> _Event:
    """Read the CloudEvent around the data."""
    content_type = _media_type(headers.get("content-type", ""))
    if content_type == _STRUCTURED:
        event = _structured(body)
    else:
        attributes = {name[3:]: text for name, text in headers.items() if name.startswith("ce-")}
        event = _Event(attributes, content_type, body)
    version, kind = event.attributes.get("specversion"), event.attributes.get("type", "")
    if version != "1.0":
        raise _Refused(f"no CloudEvent of specversion 1.0, but of {version!r}")
    if not _TYPE.fullmatch(kind):
        raise _Refused(f"events of type {kind!r} tell of no document of Firestore")
    return event


def _structured(body: bytes) -> _Event:
    """Read a CloudEvent that is one JSON object."""
    try:
        parts = msgspec.json.decode(body, type=dict[str, object])
        attributes = {name: text for name, text in parts.items() if isinstance(text, str)}
        if "data_base64" in attributes:
            data = base64.b64decode(attributes["data_base64"], validate=True)
        else:
            data = msgspec.json.encode(parts.get("data"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Refused("the body is no JSON object that can be read") from None
    except ValueError:
        raise _Refused("data_base64 is no base64") from None
    return _Event(attributes, _media_type(attributes.get("datacontenttype", _JSON)), data)


def _change_of(event: _Event, source: str) -> DocumentChange:
    """Read the data of a CloudEvent."""
    told = _event_data(event)
    before = _document(told.old_value, source) if told.HasField("old_value") else None
    after = _document(told.value, source) if told.HasField("value") else None
    if before is not None and after is not None and before.path != after.path:
        raise _Refused("the images before and after are of two documents")
    known = after or before
    if known is not None:
        return DocumentChange(path=known.path, before=before, after=after)
    if event.data and not told.HasField("update_mask"):
        raise _Refused("the data hold no document, neither before nor after")
    return DocumentChange(path=_path_of_nothing(event, source), before=None, after=None)


def _event_data(event: _Event) -> Proto:
    """Read `DocumentEventData`, in any of its forms."""
    told: Any = DocumentEventData.pb()()
    try:
        if event.data_type in _PROTOBUF:
            told.ParseFromString(_bare(event.data))
        elif event.data_type == _JSON:
            json_format.Parse(event.data, told, ignore_unknown_fields=True)
        else:
            raise _Refused(f"data of type {event.data_type!r} are not known to this version")
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise _Refused("the data are no DocumentEventData") from None
    return told


def _bare(data: bytes) -> bytes:
    """Take the emulator's base64 off, where it is."""
    if not data or data.startswith(_FIRST_TAGS):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise _Refused("the data are neither protobuf of this kind nor its base64") from None


def _document(image: Proto, source: str) -> Document:
    """Read one image of a document."""
    path = _path_of(cast("str", image.name), source)
    times_us = []
    for name in ("create_time", "update_time"):
        time_us = us_from_proto(getattr(image, name)) if image.HasField(name) else -1
        if not 0 <= time_us <= LAST_US:
            raise _Refused(f"an image of the document has no {name} since the Unix epoch")
        times_us.append(time_us)
    try:
        fields = fields_from_proto(image.fields)
    except ValueInvalid as exc:
        raise _Refused(str(exc)) from None
    return Document(
        path=path, fields=fields, create_time_us=times_us[0], update_time_us=times_us[1]
    )


def _path_of(name: str, source: str) -> str:
    """Take the database off a document's resource name."""
    database, _, path = name.partition("/documents/")
    if not path:
        raise _Refused("an image has no document's name")
    expected = source.removeprefix(_SERVICE)
    if database != expected:
        raise _Refused(f"the document is of {database!r}, this mirror is bound to {expected!r}")
    return path


def _path_of_nothing(event: _Event, source: str) -> str:
    """Give the path of a document that never was, as the attributes have it."""
    told = event.attributes.get("source", "")
    if told not in (source, source.replace("/projects/", "/projects/projects/", 1)):
        raise _Refused(f"the delivery is of {told!r}, this mirror is bound to {source!r}")
    return _claimed_path(event.attributes.get("document", ""))


def _claimed_path(text: str) -> str:
    """Read a path out of a header: UTF-8 that HTTP hands over as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _media_type(text: str) -> str:
    return text.partition(";")[0].strip().lower()
