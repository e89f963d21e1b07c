"""Firebase's callable protocol, as Google's own servers and SDKs have it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storemirror.errors import CallRefused
from storemirror.gateway.protocol import (
    CallStatus,
    data_of,
    error_answer,
    refuse_no_call,
    request_of,
    result_answer,
    status_of,
    wants_stream,
)
from storemirror.gateway.wire import ListConversations, MarkRead

JSON = {"content-type": "application/json"}
INT64 = "type.googleapis.com/google.protobuf.Int64Value"
UINT64 = "type.googleapis.com/google.protobuf.UInt64Value"
#: As https://firebase.google.com/docs/functions/callable-reference lists them.
HTTP_STATUSES = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def read(body: bytes, headers: Mapping[str, str], method: str) -> object:
    refuse_no_call(method, headers)
    return data_of(body)


def data(content: object, headers: Mapping[str, str] = JSON, method: str = "POST") -> object:
    return read(json.dumps(content).encode(), headers, method)


def refused(body: bytes, headers: Mapping[str, str] = JSON, method: str = "POST") -> str:
    with pytest.raises(CallRefused) as caught:
        read(body, headers, method)
    return caught.value.status


def test_every_code_travels_with_its_http_status() -> None:
    """Proxies and dashboards read the HTTP status, SDKs the code."""
    assert {status.value: status.http_status for status in CallStatus} == HTTP_STATUSES


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"],
)
def test_json_is_taken_however_it_is_named(content_type: str) -> None:
    """The SDKs do not all write it alike."""
    assert data({"data": [1]}, {"content-type": content_type}) == [1]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
def test_other_methods_are_bad_requests(method: str) -> None:
    """Google's servers answer 400, not 405."""
    assert refused(b'{"data": null}', method=method) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json; charset=latin-1", "application/x-www-form-urlencoded"],
)
def test_other_content_types_are_bad_requests(content_type: str) -> None:
    """What a browser's form can send across origins is none of them."""
    assert refused(b'{"data": null}', {"content-type": content_type}) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"data": 1, "more": 2}',
        b'{"data": }',
        b'{"data": 1} x',
        b'{"data": "\xff"}',
        b"[" * 100_000,
        b'{"data": ' + b"[" * 100_000,
        b'{"data": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"data": NaN}',
        b'{"data": "\\ud800"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_callables_body_is_a_bad_request(body: bytes) -> None:
    """Whatever a client sends, the answer is one that its SDK can read."""
    assert refused(body) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        (INT64, "9223372036854775807", 2**63 - 1),
        (INT64, "-9223372036854775808", -(2**63)),
        (UINT64, "18446744073709551615", 2**64 - 1),
        (INT64, 3, 3),
    ],
)
def test_typed_integers_are_numbers(kind: str, text: object, number: int) -> None:
    """The mobile SDKs write every 64-bit integer so, at any depth."""
    typed = {"@type": kind, "value": text}
    assert data({"data": {"a": [{"b": typed}]}}) == {"a": [{"b": number}]}


def test_a_typed_integer_is_a_number_however_its_name_is_spelled() -> None:
    """JSON has more than one spelling of a text."""
    body = b'{"data": {"\\u0040type": "%s", "value": "7"}}' % INT64.encode()
    assert data_of(body) == 7


@pytest.mark.parametrize(
    "typed",
    [
        {"@type": INT64, "value": "9223372036854775808"},
        {"@type": UINT64, "value": "-1"},
        {"@type": INT64, "value": "x"},
        {"@type": INT64, "value": True},
        {"@type": INT64, "value": None},
        {"@type": INT64},
        {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"},
        {"@type": [1], "value": "3"},
        {"@type": INT64, "value": "9" * 5_000},
    ],
    ids=repr,
)
def test_other_typed_values_are_bad_requests(typed: object) -> None:
    """Taken for a map, they would be stored as one."""
    assert refused(json.dumps({"data": typed}).encode()) == "INVALID_ARGUMENT"


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(-(2**63), 2**63 - 1),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_data_comes_in_as_it_was_sent(sent: object) -> None:
    """All but typed integers is left alone."""
    assert data({"data": {"x": [sent]}}) == {"x": [sent]}


def test_no_data_is_an_empty_request() -> None:
    """The JavaScript SDK sends null where the app gave nothing."""
    assert request_of(None, ListConversations) == ListConversations()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"pageSize": "3"}, "Expected `int | null`, got `str` - at `$.pageSize`"),
        ({"pageSize": 0}, "Expected `int` >= 1 - at `$.pageSize`"),
        ({"pagesize": 3}, "Object contains unknown field `pagesize`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_wrong_request_is_told_where(sent: object, said: str) -> None:
    """The client's developer reads it; the value itself is not repeated."""
    with pytest.raises(CallRefused) as caught:
        request_of(sent, ListConversations)
    assert (caught.value.status, str(caught.value)) == ("INVALID_ARGUMENT", said)


def test_a_wrong_time_is_told_where() -> None:
    """Times are texts on the wire, and checked like all the rest."""
    with pytest.raises(CallRefused, match="RFC 3339"):
        request_of({"conversationId": "c", "readAt": "yesterday"}, MarkRead)


def test_a_result_is_wrapped() -> None:
    """Nulls are written out: an app reads every field in the same way."""
    answer = result_answer(ListConversations(page_size=3), as_stream=False)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.body == b'{"result":{"pageSize":3,"cursor":null,"after":null}}'


def test_no_answer_is_kept_by_a_cache() -> None:
    """It is for one user alone."""
    headers = result_answer(None, as_stream=False).headers
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("details", "error"),
    [
        (None, {"status": "NOT_FOUND", "message": "No such."}),
        ({"a": 1}, {"status": "NOT_FOUND", "message": "No such.", "details": {"a": 1}}),
    ],
)
def test_an_error_is_wrapped(details: object, error: object) -> None:
    """Code, message and details are what the SDK makes its own error of."""
    answer = error_answer(CallRefused("NOT_FOUND", "No such.", details=details), as_stream=False)
    assert (answer.status, json.loads(answer.body)) == (404, {"error": error})


def test_an_unknown_code_is_an_internal_error() -> None:
    """The SDKs know no others."""
    assert status_of(CallRefused("GONE", "x")) is CallStatus.INTERNAL


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("text/event-stream", True),
        ("text/event-stream;q=0.9, */*", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_a_stream_is_asked_for_by_its_type(accept: str, wants: bool) -> None:
    """The JavaScript SDK's `.stream()` names it."""
    assert wants_stream({"accept": accept}) is wants


def test_a_stream_has_one_event() -> None:
    """And an error in it is answered 200, as Google's servers do."""
    result = result_answer({"a": 1}, as_stream=True)
    assert result.headers["content-type"] == "text/event-stream"
    assert result.body == b'data: {"result":{"a":1}}\n\n'
    error = error_answer(CallRefused("ABORTED", "x\ny"), as_stream=True)
    assert error.status == 200
    assert error.body == b'data: {"error":{"status":"ABORTED","message":"x\\ny"}}\n\n'
