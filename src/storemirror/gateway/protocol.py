"""
Firebase's callable protocol: bytes and headers in, data out; a result or an error out.

Held to what Google's servers do, since clients are Google's own SDKs: what they refuse is refused
here in the same way, and what they let through is let through.  Pure.

Source:
    https://firebase.google.com/docs/functions/callable-reference
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from storemirror.errors import CallRefused

#: How deep a request may be nested; deeper documents than 20 no Firestore keeps.
DEPTH_MAX: Final = 32

_JSON: Final = "application/json"
_EVENT_STREAM: Final = "text/event-stream"
_NO_STORE: Final = {"cache-control": "no-store"}
#: What mobile SDKs write 64-bit integers as, since JSON's numbers are doubles to JavaScript.
_TYPE: Final = "@type"
_INTEGERS: Final[Mapping[object, tuple[int, int]]] = {
    "type.googleapis.com/google.protobuf.Int64Value": (-(2**63), 2**63 - 1),
    "type.googleapis.com/google.protobuf.UInt64Value": (0, 2**64 - 1),
}
_ENCODER = msgspec.json.Encoder()
# Hostile nesting ends in RecursionError.
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class CallStatus(enum.StrEnum):
    """What came of a call: Google's canonical codes, which every SDK of Firebase knows."""

    OK = "OK"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"

    @property
    def http_status(self) -> int:
        """Give the HTTP status that the code travels with."""
        return _HTTP_STATUS[self]


_HTTP_STATUS: Final[Mapping[CallStatus, int]] = {
    CallStatus.OK: 200,
    CallStatus.CANCELLED: 499,
    CallStatus.UNKNOWN: 500,
    CallStatus.INVALID_ARGUMENT: 400,
    CallStatus.DEADLINE_EXCEEDED: 504,
    CallStatus.NOT_FOUND: 404,
    CallStatus.ALREADY_EXISTS: 409,
    CallStatus.PERMISSION_DENIED: 403,
    CallStatus.UNAUTHENTICATED: 401,
    CallStatus.RESOURCE_EXHAUSTED: 429,
    CallStatus.FAILED_PRECONDITION: 400,
    CallStatus.ABORTED: 409,
    CallStatus.OUT_OF_RANGE: 400,
    CallStatus.UNIMPLEMENTED: 501,
    CallStatus.INTERNAL: 500,
    CallStatus.UNAVAILABLE: 503,
    CallStatus.DATA_LOSS: 500,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """What a request's body must be, and no more."""

    data: Any


_BODY_DECODER = msgspec.json.Decoder(_Body)


def status_of(refused: CallRefused) -> CallStatus:
    """
    Give the status of a refusal; one that no client would know is INTERNAL.

    >>> status_of(CallRefused("NOT_FOUND", "...")), status_of(CallRefused("Gone", "..."))
    (<CallStatus.NOT_FOUND: 'NOT_FOUND'>, <CallStatus.INTERNAL: 'INTERNAL'>)
    """
    known = CallStatus.__members__.get(refused.status)
    return CallStatus.INTERNAL if known is None else known


def refuse_no_call(method: str, headers: Mapping[str, str]) -> None:
    """
    See that a request is a call, by its method and content type; nothing of its body is read.

    Args:
        method: of HTTP, in capitals.
        headers: names in lower case.

    Raises:
        CallRefused: INVALID_ARGUMENT, as Google's servers have it.

    >>> refuse_no_call("POST", {"content-type": "application/json; charset=utf-8"})
    """
    if method != "POST":
        raise _bad_request("a callable is called by POST")
    content_type, _, parameters = headers.get("content-type", "").partition(";")
    if content_type.strip().lower() != _JSON or not _is_utf8(parameters):
        raise _bad_request(f"the content type must be {_JSON}, in UTF-8")


def data_of(body: bytes) -> object:
    """
    Give what a call carries, as plain JSON.

    A large body costs some tens of milliseconds, during which nobody else is answered: first see
    who calls.

    Raises:
        CallRefused: INVALID_ARGUMENT, as Google's servers have it: not JSON, no `data`, something
            beside it, or a typed value that is none.

    >>> data_of(b'{"data": {"pageSize": 3}}')
    {'pageSize': 3}
    """
    try:
        data = _BODY_DECODER.decode(body)
    except _UNDECODABLE as exc:
        raise _bad_request('the body must be a JSON object with "data" and nothing else') from exc
    return data.data if _is_plain(body) else _plain(data.data, 0)


def request_of(data: object, kind: type[T]) -> T:
    """
    Read a callable's data as its request type.

    Raises:
        CallRefused: INVALID_ARGUMENT; the message names the field and what it must be.
    """
    try:
        return msgspec.convert({} if data is None else data, kind)
    except msgspec.ValidationError as exc:
        raise CallRefused(CallStatus.INVALID_ARGUMENT, str(exc)) from exc


def wants_stream(headers: Mapping[str, str]) -> bool:
    """
    Tell whether the client asks for an event stream, as the SDK's `.stream()` does.

    >>> wants_stream({"accept": "text/event-stream"}), wants_stream({"accept": "*/*"})
    (True, False)
    """
    accepted = headers.get("accept", "").lower().split(",")
    return any(kind.partition(";")[0].strip() == _EVENT_STREAM for kind in accepted)


def result_answer(result: object, *, as_stream: bool) -> Answer:
    """
    Write what a callable gives.

    Args:
        result: a struct of `storemirror.gateway.wire`, or plain JSON.
        as_stream: see `wants_stream`; the stream has this one event.
    """
    return _answer({"result": result}, 200, as_stream=as_stream)


def error_answer(refused: CallRefused, *, as_stream: bool) -> Answer:
    """
    Write why a callable gives no result.

    As Google's servers have it, a stream is answered 200 and carries the error as its event.
    """
    status = status_of(refused)
    error: dict[str, object] = {"status": status, "message": str(refused)}
    if refused.details is not None:
        error["details"] = refused.details
    return _answer({"error": error}, 200 if as_stream else status.http_status, as_stream=as_stream)


def _answer(content: Mapping[str, object], status: int, *, as_stream: bool) -> Answer:
    encoded = _ENCODER.encode(content)
    if as_stream:
        headers = {"content-type": _EVENT_STREAM, **_NO_STORE}
        return Answer(status=status, headers=headers, body=b"data: " + encoded + b"\n\n")
    headers = {"content-type": f"{_JSON}; charset=utf-8", **_NO_STORE}
    return Answer(status=status, headers=headers, body=encoded)


def _bad_request(why: str) -> CallRefused:
    return CallRefused(CallStatus.INVALID_ARGUMENT, f"Bad request: {why}.")


def _is_utf8(parameters: str) -> bool:
    """Tell whether a content type's parameters name no other charset than UTF-8."""
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            return False
    return True


def _is_plain(body: bytes) -> bool:
    """Tell whether JSON surely has no typed value, in whatever spelling, and is not too deep."""
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        return False
    return b"@" not in body and b"\\u0040" not in body


def _plain(value: object, depth: int) -> object:
    """Turn typed 64-bit integers into numbers, wherever they are."""
    if depth > DEPTH_MAX:
        raise _bad_request(f"the data is nested more than {DEPTH_MAX} deep")
    if isinstance(value, list):
        return [_plain(element, depth + 1) for element in value]
    if not isinstance(value, dict):
        return value
    if _TYPE in value:
        return _integer(value)
    return {name: _plain(element, depth + 1) for name, element in value.items()}


def _integer(typed: Mapping[str, object]) -> int:
    """Read a typed 64-bit integer; no other typed value is known to any SDK."""
    bounds = _INTEGERS.get(typed[_TYPE]) if isinstance(typed[_TYPE], str) else None
    text = typed.get("value")
    if bounds is None or not isinstance(text, str | int) or isinstance(text, bool):
        raise _bad_request(f'the value with "{_TYPE}" is no 64-bit integer')
    try:
        number = int(text)
    except ValueError as exc:
        raise _bad_request(f'the value with "{_TYPE}" is no 64-bit integer') from exc
    if not bounds[0] <= number <= bounds[1]:
        raise _bad_request(f'the value with "{_TYPE}" does not fit 64 bits')
    return number
