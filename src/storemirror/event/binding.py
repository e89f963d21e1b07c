"""
The two modes in which a message carries a CloudEvent: structured, and binary.

Structured, which we publish, has all of the event in the body.  Binary has its data there, and
the attributes as properties of the message: `cloudEvents_id` or `cloudEvents:id` by the AMQP
binding, `ce-id` where a relay took over the headers of HTTP.  Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from storemirror.errors import EnvelopeInvalid
from storemirror.event.envelope import CONTENT_TYPE

STRUCTURED_TYPE: Final = "application/cloudevents+json"
#: What all content types of structured mode, and of batches, begin with.
_CLOUD_EVENTS: Final = "application/cloudevents"
_AMQP_PREFIXES: Final = ("cloudevents_", "cloudevents:")
#: Only by the HTTP binding are values percent-encoded.
_HTTP_PREFIX: Final = "ce-"

_ENCODER: Final = msgspec.json.Encoder()
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)


def structured_body(body: bytes, *, content_type: str, properties: Mapping[str, str]) -> bytes:
    """
    Give a message's event in structured mode, in whichever mode it came.

    A message that says neither is taken as structured: a relay may lose the content type, and the
    body says itself what it is.  What it says is checked by `decode_change`.

    Args:
        body: as it came.
        content_type: of the message; may be empty.
        properties: of the message, as texts; others than attributes are let be.

    Raises:
        EnvelopeInvalid: a mode or format that is not read, data that are no JSON, or an attribute
            that is there twice with different values.
    """
    if content_type == CONTENT_TYPE:  # ours: nearly every message
        return body
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == STRUCTURED_TYPE:
        return body
    if media_type.startswith(_CLOUD_EVENTS):
        raise EnvelopeInvalid(f"of structured modes only {STRUCTURED_TYPE} is read: {media_type!r}")
    attributes = _attributes(properties)
    if not attributes:
        return body
    if content_type:
        attributes["datacontenttype"] = content_type
    if not _is_json(media_type):
        raise _refused(f"the data are {media_type!r}, not JSON", attributes)
    try:
        data = _RAW.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused("the data are no JSON that can be read", attributes) from None
    return _ENCODER.encode({**attributes, "data": data})


def _attributes(properties: Mapping[str, str]) -> dict[str, str]:
    """Give the CloudEvents attributes among a message's properties; names are in lower case."""
    found: dict[str, str] = {}
    for name, text in properties.items():
        lower = name.lower()
        if lower.startswith(_AMQP_PREFIXES):
            attribute, value = lower[len(_AMQP_PREFIXES[0]) :], text
        elif lower.startswith(_HTTP_PREFIX):
            attribute, value = lower[len(_HTTP_PREFIX) :], unquote(text)
        else:
            continue
        if found.setdefault(attribute, value) != value:
            raise _refused(f"the attribute {attribute!r} is there twice, and differs", found)
    return found


def _is_json(media_type: str) -> bool:
    """Tell whether data of this type are JSON; none named means JSON too."""
    return media_type in ("", "application/json") or media_type.endswith("+json")


def _refused(what: str, attributes: Mapping[str, str]) -> EnvelopeInvalid:
    path = attributes.get("subject", "").removeprefix("documents/")
    return EnvelopeInvalid(what, event_id=attributes.get("id", ""), path=path)
