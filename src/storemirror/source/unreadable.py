"""
A delivery that the source cannot read, as an event that the writer sets aside.

Eventarc repeats for 24 hours what is not acknowledged, and then drops it: refusing what will
never be readable would lose it.  On the bus it becomes a dead letter that a person sees.
Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from storemirror.bus.port import Message
from storemirror.bus.rules import storable
from storemirror.event.change import EventType, Origin
from storemirror.event.envelope import CONTENT_TYPE

#: Bytes of a body that are kept: as base64 they fit a message of Service Bus's standard tier.
KEPT_MAX_BYTES: Final = 128 * 1024
#: Longest text taken from a header.
_TEXT_MAX_LENGTH: Final = 4_096
#: Headers that say where a delivery came from.  No others are kept: one of them is the token.
_KEPT_HEADERS: Final = ("content-type", "content-encoding", "traceparent")

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Why a delivery cannot be read."""

    #: One sentence for a person; no document contents.
    reason: str
    #: The document's path, where it is known; else empty.
    path: str = ""


def unreadable_message(
    unreadable: Unreadable, headers: Mapping[str, str], body: bytes, *, source: str
) -> Message:
    """
    Put a delivery on the bus as it came.

    The writer refuses the event as `EnvelopeInvalid` and sets it aside.  The message id is made of
    the delivery's own id and source, else of its body: a repeated delivery is a duplicate.

    Args:
        unreadable: why it could not be read.
        headers: of the delivery, by lower-case name; the caller's token is left out.
        body: as it came; more than `KEPT_MAX_BYTES` is cut, its size and SHA-256 are told.
        source: CloudEvents source of the mirror; see `storemirror.event.envelope.source_of`.
    """
    message_id = _id_of(headers, body)
    path = storable(unreadable.path)
    reason = storable(unreadable.reason)
    kept = body[:KEPT_MAX_BYTES]
    envelope = {
        "specversion": "1.0",
        "id": message_id,
        "source": source,
        "type": EventType.UNREADABLE.value,
        "subject": f"documents/{path}",
        "datacontenttype": "application/json",
        "data": {
            "reason": reason,
            "headers": kept_headers(headers),
            "bodyBase64": base64.b64encode(kept).decode(),
            "bodySizeBytes": len(body),
            "bodySha256": hashlib.sha256(body).hexdigest(),
        },
    }
    return Message(
        message_id=message_id,
        body=_ENCODER.encode(envelope),
        content_type=CONTENT_TYPE,
        properties={
            "type": EventType.UNREADABLE.value,
            "origin": Origin.TRIGGER.value,
            "path": path,
            "reason": reason,
        },
    )


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """
    Give the headers that say where a delivery came from, and no secret.

    >>> kept_headers({"ce-id": "1", "authorization": "Bearer x", "cookie": "y"})
    {'ce-id': '1'}
    """
    return {
        name: storable(text)[:_TEXT_MAX_LENGTH]
        for name, text in headers.items()
        if name.startswith("ce-") or name in _KEPT_HEADERS
    }


def _id_of(headers: Mapping[str, str], body: bytes) -> str:
    """Give an id that a repetition of the delivery has too."""
    delivery_id, delivery_source = headers.get("ce-id"), headers.get("ce-source")
    if delivery_id and delivery_source:
        text = f"unreadable\n{delivery_source}\n{delivery_id}"
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return hashlib.sha256(b"unreadable\n" + body).hexdigest()
