"""
A change as a CloudEvent 1.0 (structured JSON), and back.

The official library is not on this path: reading with it took three times as long, half a core at
25,000 events a second (docs/explanation/dependencies.md).  A test holds our bytes to its reading.
Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, cast

import msgspec

from storemirror.clock import LAST_US, rfc3339_from_us, us_from_rfc3339
from storemirror.errors import EnvelopeInvalid
from storemirror.event.change import Change, EventType, Origin, event_id_of
from storemirror.event.data import (
    DATA_SCHEMA,
    FORMATS,
    UNNAMED_SCHEMA,
    DataFormat,
    EventData,
)

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"

D = TypeVar("D")


class Envelope(msgspec.Struct, Generic[D], frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """CloudEvents 1.0 attributes in structured mode, around data of one form."""

    #: Version of CloudEvents.
    specversion: Literal["1.0"]
    #: SHA-256, hex, of path and version; the same on every redelivery of the same change.
    id: str
    #: `//firestore.googleapis.com/projects/P/databases/D`.
    source: str
    #: One of `EventType`.
    type: str
    #: `documents/` and the path, as Eventarc has it.
    subject: str
    #: Commit time, RFC 3339, microseconds.
    time: str
    #: Content type of `data`; absent means JSON too.
    datacontenttype: str | None = None
    #: Names the form of `data`, and its JSON Schema; absent means the first one.
    dataschema: str | None = None
    #: W3C trace context of the write.
    traceparent: str | None = None
    #: What was written; see `EventData`.
    data: D


class _Head(msgspec.Struct, frozen=True):
    """What can be said of an envelope that cannot be read whole."""

    specversion: object = None
    id: object = None
    type: object = None
    subject: object = None
    dataschema: object = None


_HEAD_DECODER = msgspec.json.Decoder(_Head)
_ENCODER = msgspec.json.Encoder()
# Hostile nesting ends in RecursionError; unseen, one event would end the writer.
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_WRITTEN: Final = EventType.WRITTEN.value
_DELETED: Final = EventType.DELETED.value
_REFERENCED: Final = EventType.REFERENCED.value
_READABLE: Final = (_WRITTEN, _DELETED, _REFERENCED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A write that travels without its contents, too large for the bus: the reader reads them."""

    #: CloudEvents `id` of the write.
    event_id: str
    #: Document path from the database root.
    path: str
    #: Version of the write; what is read may be newer.
    version: int
    origin: Origin
    #: Repairs only: the version the damaged row was seen with.
    expected_version: int | None = None


def source_of(project: str, database: str) -> str:
    """
    Give the CloudEvents `source` of a Firestore database.

    >>> source_of("demo", "(default)")
    '//firestore.googleapis.com/projects/demo/databases/(default)'
    """
    return f"//firestore.googleapis.com/projects/{project}/databases/{database}"


def encode_change(change: Change, *, source: str) -> bytes:
    """
    Write a change as one CloudEvent.

    Args:
        change: its fields must be canonical.
        source: see `source_of`.

    Returns:
        UTF-8 JSON, content type `CONTENT_TYPE`.
    """
    expected = change.expected_version
    return _ENCODER.encode(
        Envelope(
            specversion="1.0",
            id=change.event_id,
            source=source,
            type=change.event_type.value,
            subject=f"documents/{change.path}",
            time=rfc3339_from_us(change.commit_time_us),
            datacontenttype="application/json",
            dataschema=DATA_SCHEMA,
            traceparent=change.traceparent,
            data=EventData(
                path=change.path,
                version=str(change.version),
                origin=change.origin,
                observed_at=rfc3339_from_us(change.observed_at_us),
                digest=change.digest,
                fields=cast("dict[str, dict[str, object]] | None", change.fields),
                expected_version=None if expected is None else str(expected),
            ),
        )
    )


def by_reference(body: bytes) -> tuple[bytes, EventType] | None:
    """
    Write the event of a document without the contents.

    Args:
        body: UTF-8 JSON, structured mode.

    Returns:
        The smaller event, of the same id, and its type; None when there are no contents to leave
        out, or the body is no event of ours.
    """
    try:
        envelope = _READER.read(body)
    except EnvelopeInvalid:
        return None
    if envelope.type != _WRITTEN or envelope.data.fields is None:
        return None
    data = msgspec.structs.replace(envelope.data, fields=None, digest="")
    referring = msgspec.structs.replace(
        envelope, type=_REFERENCED, dataschema=DATA_SCHEMA, data=data
    )
    return _ENCODER.encode(referring), EventType.REFERENCED


def decode_event(body: bytes, *, source: str) -> Change | Reference:
    """
    Read one CloudEvent as a change, or as the reference to one.

    Raises:
        EnvelopeInvalid: see `decode_change`.
    """
    envelope = _READER.read(body)
    if envelope.type == _REFERENCED:
        return _reference(envelope, source)
    return _change(envelope, source)


def decode_change(body: bytes, *, source: str) -> Change:
    """
    Read one CloudEvent that carries its contents as a change.

    Args:
        body: UTF-8 JSON, structured mode.
        source: the only source whose events are taken; see `source_of`.

    Raises:
        EnvelopeInvalid: not JSON, not a CloudEvent of ours, of a later format, of another
            Firestore, one whose id, type and version contradict each other, or one without its
            contents.
    """
    return _change(_READER.read(body), source)


def document_of(body: bytes) -> tuple[str, int | None] | None:
    """
    Give path and version of the document that an event is about, of whichever Firestore it is.

    Args:
        body: UTF-8 JSON, structured mode.

    Returns:
        No version: the source could not read the delivery, and passed it on with its path.  None:
        no event that can be read, or one whose id is not that of path and version.
    """
    try:
        envelope = _READER.read(body)
        path, version = envelope.data.path, _int64(envelope.data.version)
        is_known = envelope.type in _READABLE and envelope.id == event_id_of(path, version)
    except (EnvelopeInvalid, ValueError):
        path = _unreadable_path(body)
        return (path, None) if path else None
    return (path, version) if is_known else None


def _unreadable_path(body: bytes) -> str:
    """Give the path of a delivery that the source could not read; empty where there is none."""
    try:
        head = _HEAD_DECODER.decode(body)
    except _UNDECODABLE:
        return ""
    if head.type != EventType.UNREADABLE or not isinstance(head.subject, str):
        return ""
    return head.subject.removeprefix("documents/")


def _reference(envelope: Envelope[EventData], source: str) -> Reference:
    """Give what an event without contents points at."""
    data = envelope.data
    problem = _foreign(envelope, source) or _unreadable_number(data)
    if problem is None and (_int64(data.version) % 2 == 1 or data.fields is not None):
        problem = "an event without contents is of a write, and has none"
    if problem is None and envelope.id != event_id_of(data.path, _int64(data.version)):
        problem = "the id is not the digest of path and version"
    if problem is not None:
        raise EnvelopeInvalid(problem, event_id=envelope.id, path=data.path)
    expected = data.expected_version
    return Reference(
        event_id=envelope.id,
        path=data.path,
        version=_int64(data.version),
        origin=data.origin,
        expected_version=None if expected is None else _int64(expected),
    )


def _change(envelope: Envelope[EventData], source: str) -> Change:
    """Give the change that an event carries."""
    data = envelope.data
    try:
        version = _int64(data.version)
        observed_at_us = us_from_rfc3339(data.observed_at)
        expected = data.expected_version
        expected_version = None if expected is None else _int64(expected)
    except ValueError:
        version = observed_at_us = -1
        expected_version = None
    if (
        version < 0
        or not 0 <= observed_at_us <= LAST_US
        or version // 2 > LAST_US
        or envelope.source != source
        or envelope.type != (_WRITTEN, _DELETED)[version % 2]
        or (data.fields is None) != (version % 2 == 1)
    ):
        problem = _contradiction(envelope, source)
        raise EnvelopeInvalid(problem, event_id=envelope.id, path=data.path)
    event_id = envelope.id
    if event_id != event_id_of(data.path, version):
        raise EnvelopeInvalid(
            "the id is not the digest of path and version", event_id=event_id, path=data.path
        )
    return Change.known_by_id(
        {
            "event_id": event_id,
            "path": data.path,
            "version": version,
            "origin": data.origin,
            "observed_at_us": observed_at_us,
            "fields": data.fields,
            "digest": data.digest,
            "expected_version": expected_version,
            "traceparent": envelope.traceparent,
        }
    )


class EnvelopeReader:
    """Reads envelopes around data of every form that was ever published."""

    def __init__(self, formats: Mapping[str, DataFormat[Any]], *, newest: str) -> None:
        """
        Name what can be read.

        Args:
            formats: by `dataschema`; see `storemirror.event.data.FORMATS`.
            newest: the form that is tried first: nearly every event has it.
        """
        self._formats = formats
        self._decoders = {
            schema: msgspec.json.Decoder(Envelope[form.shape])  # type: ignore[name-defined]
            for schema, form in formats.items()
        }
        self._newest = newest
        self._decode_newest = self._decoders[newest].decode

    def read(self, body: bytes) -> Envelope[EventData]:
        """
        Decode one envelope; its data are in today's form.

        Args:
            body: UTF-8 JSON, structured mode.

        Raises:
            EnvelopeInvalid: it cannot be read; what can be known of the event is in the error.
        """
        try:
            envelope: Envelope[EventData] = self._decode_newest(body)
        except _UNDECODABLE as exc:
            return self._read_by_schema(body, exc)
        if envelope.dataschema == self._newest:
            return envelope
        return self._read_by_schema(body, None)

    def _read_by_schema(self, body: bytes, failure: Exception | None) -> Envelope[EventData]:
        """Decode by the form that the envelope names."""
        try:
            head = _HEAD_DECODER.decode(body)
        except _UNDECODABLE:
            raise EnvelopeInvalid("the body is no JSON object that can be read") from failure
        schema = UNNAMED_SCHEMA if head.dataschema is None else str(head.dataschema)
        form = self._formats.get(schema)
        if form is None:
            what = f"data of the form {schema!r} are not known to this version"
            raise _unreadable(head, what) from failure
        try:
            envelope = self._decoders[schema].decode(body)
        except _UNDECODABLE as exc:
            what = f"the CloudEvent does not have our form: {exc}"
            raise _unreadable(head, what) from exc
        return msgspec.structs.replace(envelope, data=form.lift(envelope.data))


_READER: Final = EnvelopeReader(FORMATS, newest=DATA_SCHEMA)


def _contradiction(envelope: Envelope[EventData], source: str) -> str:
    """Say what in an envelope contradicts the rest of it."""
    problem = _foreign(envelope, source) or _unreadable_number(envelope.data)
    if problem is not None:
        return problem
    if envelope.type == _REFERENCED:
        return "the event carries no contents, and here nobody can read them"
    return "type, version and fields do not agree on whether the document was deleted"


def _foreign(envelope: Envelope[EventData], source: str) -> str | None:
    """Say why an event is not for this mirror; None when it is."""
    if envelope.type not in _READABLE:
        return f"events of type {envelope.type!r} are not known to this version"
    if envelope.source != source:
        return f"the event is of {envelope.source!r}, this mirror is bound to {source!r}"
    return None


def _unreadable_number(data: EventData) -> str | None:
    """Say which number or time in the data cannot be one; None when all can."""
    try:
        is_known = _int64(data.version) // 2 <= LAST_US
    except ValueError:
        is_known = False
    if not is_known:
        return "data.version is no decimal string of a commit time before the year 10000"
    if data.expected_version is not None:
        try:
            _int64(data.expected_version)
        except ValueError:
            return "data.expectedVersion is no 64-bit decimal string"
    try:
        is_known = 0 <= us_from_rfc3339(data.observed_at) <= LAST_US
    except ValueError:
        is_known = False
    return None if is_known else "data.observedAt is no RFC 3339 time since the Unix epoch"


def _int64(text: str) -> int:
    """Read a decimal number of 64 bits; ValueError: it is none, or negative."""
    if text.isascii() and text.isdigit() and len(text) <= 19:
        number = int(text)
        if number < 2**63:
            return number
    raise ValueError("no decimal number of 64 bits")


def _unreadable(head: _Head, what: str) -> EnvelopeInvalid:
    """Make the error for a body that is no envelope, with what can be read of it.

    msgspec's message, in `what`, names a place and the expected type, never the contents.
    """
    event_id = head.id if isinstance(head.id, str) else ""
    subject = head.subject if isinstance(head.subject, str) else ""
    path = subject.removeprefix("documents/")
    if head.type == EventType.UNREADABLE:
        what = "the source could not read this delivery and passed it on as it came"
    elif head.specversion != "1.0":
        what = "the body is no CloudEvent of specversion 1.0"
    elif head.type not in _READABLE:
        what = f"events of type {head.type!r} are not known to this version"
    return EnvelopeInvalid(what, event_id=event_id, path=path)
