"""Requests: `$cbs` (tokens) and `$management` of an entity (browse, renew, settle by token)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.standins.servicebus.codec import (
    Array,
    Described,
    Int,
    Symbol,
    Timestamp,
    decode,
    encode,
    sections,
)
from tests.standins.servicebus.message import (
    APPLICATION_PROPERTIES,
    PROPERTIES,
    VALUE,
    AmqpError,
)
from tests.standins.servicebus.store import Queue

if TYPE_CHECKING:
    from tests.standins.servicebus.connection import Connection

_NO_CONTENT: Final = 204


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A shared access policy."""

    key: str
    rights: frozenset[str]


def rights_of(token: str, policies: Mapping[str, Policy]) -> frozenset[str]:
    """
    Give what a shared access signature allows.

    Raises:
        AmqpError: it was not made with the policy's key.
    """
    fields = dict(part.split("=", 1) for part in token.split(" ", 1)[-1].split("&"))
    name = urllib.parse.unquote(fields.get("skn", ""))
    policy = policies.get(name)
    if policy is None:
        raise AmqpError("amqp:unauthorized-access", f"no policy is named {name!r}", 401)
    signed = f"{fields['sr']}\n{fields['se']}".encode()
    digest = hmac.new(policy.key.encode(), signed, hashlib.sha256).digest()
    if base64.b64encode(digest).decode() != urllib.parse.unquote(fields["sig"]):
        raise AmqpError(
            "amqp:unauthorized-access", "InvalidSignature: The token has an invalid signature.", 401
        )
    return policy.rights


def answer(conn: Connection, address: str, raw: bytes) -> bytes:
    """Do what a request asks; gives the answer as a message."""
    properties: list[Any] = []
    application: dict[str, Any] = {}
    value: Any = None
    for code, _, place, _ in sections(raw):
        if code == PROPERTIES:
            properties = decode(raw, place)[0]
        elif code == APPLICATION_PROPERTIES:
            application = decode(raw, place)[0]
        elif code == VALUE:
            value = decode(raw, place)[0]
    result: Any = None
    status, text, condition = 202, "Accepted", None
    try:
        if address == "$cbs":
            conn.rights = rights_of(str(value), conn.standin.policies)
        else:
            status, text = 200, "OK"
            result = _manage(conn, address, str(application.get("operation")), value)
            if result is None:
                status, text = _NO_CONTENT, "No Content"
    except AmqpError as error:
        status, text, condition = error.status, error.text, error.condition
    words: dict[str, Any] = {
        "statusCode": Int(status),
        "statusDescription": text,
        "status-code": Int(status),
        "status-description": text,
    }
    if condition is not None:
        words["errorCondition"] = Symbol(condition)
    correlation = [None, None, None, None, None, properties[0]]
    return (
        encode(Described(PROPERTIES, correlation))
        + encode(Described(APPLICATION_PROPERTIES, words))
        + encode(Described(VALUE, result))
    )


def _manage(conn: Connection, address: str, operation: str, value: Any) -> dict[str, Any] | None:
    conn.require("Listen")
    queue = conn.standin.find(address.removesuffix("/$management"))
    assert isinstance(queue, Queue)
    queue.sweep()
    match operation.removeprefix("com.microsoft:"):
        case "peek-message":
            first, count = value["from-sequence-number"], value["message-count"]
            found = [m for m in queue.everything() if m.sequence_number >= first][:count]
            return {"messages": [{"message": m.wire()} for m in found]} if found else None
        case "renew-lock":
            conn.standin.faults.renewal_sizes.append(len(value["lock-tokens"]))
            until = [Timestamp(round(s * 1000)) for s in queue.renew(value["lock-tokens"])]
            return {"expirations": Array(Timestamp, tuple(until))}
        case "update-disposition":
            for token in value["lock-tokens"]:
                conn.standin.faults.strike_settlement()
                _dispose(queue, token, value)
            return {}
    raise AmqpError("amqp:not-implemented", operation, 501)


def _dispose(queue: Queue, token: Any, value: Mapping[str, Any]) -> None:
    match value["disposition-status"]:
        case "completed":
            queue.complete(token)
        case "abandoned":
            queue.abandon(token)
        case "suspended":
            reason = value.get("deadletter-reason") or ""
            queue.dead_letter(token, reason, value.get("deadletter-description") or "")
        case other:
            raise AmqpError("amqp:not-implemented", str(other), 501)
