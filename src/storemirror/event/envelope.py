"""
A change as a CloudEvent 1.0 (structured JSON), and back.

The official library is not on this path: it costs several times what the whole envelope may cost
at 25,000 events a second.  A test holds our bytes to the official library's reading of them.
Pure: no I/O.
"""

from __future__ import annotations

from typing import Final, Literal, cast

import msgspec

from storemirror.clock import rfc3339_from_us, us_from_rfc3339
from storemirror.errors import EnvelopeInvalid
from storemirror.event.change import Change, EventType, Fields, Origin, event_id_of

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
DATA_SCHEMA: Final = "urn:storemirror:event-data:v1"


class EventData(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """CloudEvents `data`: everything a row is made of.

    64-bit integers travel as decimal strings: a JSON number keeps only 53 bits in many readers.
    """

    #: Document path from the database root.
    path: str
    #: Version, decimal string: twice the commit time in microseconds, plus one for a delete.
    version: str
    #: Where the change was seen.
    origin: Origin
    #: When the document was seen in this state, RFC 3339, microseconds.
    observed_at: str
    #: SHA-256, hex, of the canonical document; empty for a delete.
    digest: str = ""
    #: The document's fields as Firestore's REST `Value` JSON; absent for a delete.
    fields: dict[str, dict[str, object]] | None = None
    #: Repairs only: the version the damaged row was seen with, decimal string.
    expected_version: str | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """CloudEvents 1.0 attributes in structured mode."""

    specversion: Literal["1.0"] = msgspec.field()
    id: str
    #: `//firestore.googleapis.com/projects/P/databases/D`.
    source: str
    type: str
    #: `documents/` and the path, as Eventarc has it.
    subject: str
    #: Commit time, RFC 3339, microseconds.
    time: str
    datacontenttype: str = "application/json"
    dataschema: str = DATA_SCHEMA
    traceparent: str | None = None
    data: EventData


class _Head(msgspec.Struct, frozen=True):
    """What can be said of an envelope that cannot be read whole."""

    specversion: object = None
    id: object = None
    type: object = None
    subject: object = None


_DECODER = msgspec.json.Decoder(Envelope)
_HEAD_DECODER = msgspec.json.Decoder(_Head)
_ENCODER = msgspec.json.Encoder()
_READABLE = (EventType.WRITTEN.value, EventType.DELETED.value)


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


def decode_change(body: bytes, *, source: str) -> Change:
    """
    Read one CloudEvent as a change.

    Args:
        body: UTF-8 JSON, structured mode.
        source: the only source whose events are taken; see `source_of`.

    Raises:
        EnvelopeInvalid: not JSON, not a CloudEvent of ours, of a later format, of another
            Firestore, or one whose id, type and version contradict each other.
    """
    try:
        envelope = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _unreadable(body, str(exc)) from exc
    data = envelope.data
    problem = _contradiction(envelope, source)
    if problem is not None:
        raise EnvelopeInvalid(problem, event_id=envelope.id, path=data.path)
    try:
        return Change(
            path=data.path,
            version=int(data.version),
            origin=data.origin,
            observed_at_us=us_from_rfc3339(data.observed_at),
            fields=cast("Fields | None", data.fields),
            digest=data.digest,
            expected_version=None if data.expected_version is None else int(data.expected_version),
            traceparent=envelope.traceparent,
        )
    except (ValueError, OverflowError) as exc:
        raise EnvelopeInvalid(
            "observedAt or expectedVersion cannot be read", event_id=envelope.id, path=data.path
        ) from exc


def _contradiction(envelope: Envelope, source: str) -> str | None:
    """Say what in the envelope contradicts the rest of it; None when nothing does."""
    data = envelope.data
    if envelope.type not in _READABLE:
        return f"events of type {envelope.type!r} are not known to this version"
    if envelope.source != source:
        return f"the event is of {envelope.source!r}, this mirror is bound to {source!r}"
    if not (data.version.isascii() and data.version.isdigit() and len(data.version) < 19):
        return "data.version is no 64-bit decimal string"
    version = int(data.version)
    if envelope.id != event_id_of(data.path, version):
        return "the id is not the digest of path and version"
    is_deleted = version % 2 == 1
    if is_deleted != (envelope.type == EventType.DELETED) or is_deleted != (data.fields is None):
        return "type, version and fields do not agree on whether the document was deleted"
    return None


def _unreadable(body: bytes, detail: str) -> EnvelopeInvalid:
    """Make the error for a body that is no envelope, with what can be read of it.

    msgspec's message names a place and the expected type, never the contents.
    """
    try:
        head = _HEAD_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return EnvelopeInvalid("the body is no JSON object")
    event_id = head.id if isinstance(head.id, str) else ""
    subject = head.subject if isinstance(head.subject, str) else ""
    path = subject.removeprefix("documents/")
    if head.type == EventType.UNREADABLE:
        message = "the source could not read this delivery and passed it on as it came"
    elif head.specversion != "1.0":
        message = "the body is no CloudEvent of specversion 1.0"
    elif head.type not in _READABLE:
        message = f"events of type {head.type!r} are not known to this version"
    else:
        message = f"the CloudEvent does not have our form: {detail}"
    return EnvelopeInvalid(message, event_id=event_id, path=path)
