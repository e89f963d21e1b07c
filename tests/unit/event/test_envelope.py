"""The envelope: a change there and back, held to CloudEvents 1.0, and every refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from storemirror.clock import LAST_US, rfc3339_from_us
from storemirror.errors import EnvelopeInvalid
from storemirror.event.change import Change, Fields, Origin, event_id_of
from storemirror.event.data import DATA_SCHEMA
from storemirror.event.digest import digest_of
from storemirror.event.envelope import (
    CONTENT_TYPE,
    Reference,
    by_reference,
    decode_change,
    decode_event,
    encode_change,
    source_of,
)
from storemirror.event.value import encode_fields
from tests.unit.event.documents import DOCUMENT, TEXT

SOURCE = source_of("demo", "(default)")
SCHEMA = Path(__file__).parents[3] / "docs" / "reference" / "event.schema.json"
TIME_US = st.integers(0, LAST_US)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Draw any change that a source may publish."""
    version = 2 * draw(TIME_US) + draw(st.integers(0, 1))
    fields = encode_fields(draw(DOCUMENT)) if version % 2 == 0 else None
    return Change(
        path=draw(TEXT),
        version=version,
        origin=draw(st.sampled_from(Origin)),
        observed_at_us=draw(TIME_US),
        fields=fields,
        digest=digest_of(fields),
        expected_version=draw(st.none() | st.integers(0, 2**63 - 1)),
        traceparent=draw(st.none() | TEXT),
    )


def a_change(*, version: int = 20, fields: Fields | None = None) -> Change:
    """Make a small change; a write has one field."""
    if fields is None and version % 2 == 0:
        fields = {"body": {"stringValue": "hi"}}
    return Change(
        path="conversations/c1/messages/m1",
        version=version,
        origin=Origin.TRIGGER,
        observed_at_us=10,
        fields=fields,
        digest=digest_of(fields),
    )


def a_body(**changed: object) -> bytes:
    """Encode `a_change`, with attributes replaced; None takes one out; `data` is merged."""
    body: dict[str, Any] = msgspec.json.decode(encode_change(a_change(), source=SOURCE))
    data = changed.pop("data", {})
    if isinstance(data, dict):
        merged = body["data"] | data
        body["data"] = {name: value for name, value in merged.items() if value is not None}
    else:
        body["data"] = data
    body |= changed
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


def refusal_of(body: bytes) -> EnvelopeInvalid:
    """Give the error with which a body is refused."""
    with pytest.raises(EnvelopeInvalid) as caught:
        decode_change(body, source=SOURCE)
    return caught.value


@given(changes())
def test_a_change_comes_back_as_it_went(change: Change) -> None:
    """Whatever the writer applies is what the source saw."""
    body = encode_change(change, source=SOURCE)
    assert repr(decode_change(body, source=SOURCE)) == repr(change)


@given(changes())
def test_the_official_library_reads_our_bytes(change: Change) -> None:
    """The envelope is written without it; anybody else's reader must understand us."""
    message = HTTPMessage({"content-type": CONTENT_TYPE}, encode_change(change, source=SOURCE))
    event = from_http_event(message)
    assert event.get_specversion() == "1.0"
    assert event.get_id() == change.event_id
    assert event.get_source() == SOURCE
    assert event.get_type() == change.event_type.value
    assert event.get_subject() == f"documents/{change.path}"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_dataschema() == DATA_SCHEMA
    assert event.get_extension("traceparent") == change.traceparent
    seen = event.get_time()
    assert seen is not None
    assert rfc3339_of(seen) == rfc3339_from_us(change.commit_time_us)
    assert msgspec.convert(event.get_data(), dict)["path"] == change.path


def rfc3339_of(moment: datetime) -> str:
    """Write a time without our own clock module."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


@given(changes())
def test_we_read_what_the_official_library_writes(change: Change) -> None:
    """A relay may decode and encode an event on its way."""
    message = HTTPMessage({"content-type": CONTENT_TYPE}, encode_change(change, source=SOURCE))
    event = from_http_event(message)
    assert isinstance(event, CloudEvent)
    relayed = to_structured_event(event).body
    assert repr(decode_change(relayed, source=SOURCE)) == repr(change)


@given(changes())
def test_the_data_follow_the_published_schema(change: Change) -> None:
    """Consumers of the topic are given the schema, not our code."""
    body = msgspec.json.decode(encode_change(change, source=SOURCE))
    jsonschema.Draft202012Validator(msgspec.json.decode(SCHEMA.read_bytes())).validate(body["data"])


@pytest.mark.parametrize(
    "data",
    [
        {"version": 20},
        {"version": "-1"},
        {"origin": "nowhere"},
        {"path": None},
        {"observedAt": None},
        {"fields": {"body": "hi"}},
        {"expectedVersion": 3},
    ],
    ids=str,
)
def test_the_published_schema_refuses_data_that_we_refuse(data: dict[str, object]) -> None:
    """A schema that lets everything pass would tell a producer nothing."""
    body = a_body(data=data)
    schema = jsonschema.Draft202012Validator(msgspec.json.decode(SCHEMA.read_bytes()))
    assert not schema.is_valid(msgspec.json.decode(body)["data"])
    refusal_of(body)


def test_an_unknown_attribute_is_let_pass() -> None:
    """CloudEvents lets any relay add extensions; a later release of ours may add data."""
    body = a_body(partitionkey="c1", data={"addedLater": True})
    assert decode_change(body, source=SOURCE) == a_change()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON object"),
        (b"\xff\xfe", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"{", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON object"),
        (b"{}", "no CloudEvent of specversion 1.0"),
        (a_body(specversion="0.3"), "no CloudEvent of specversion 1.0"),
        (a_body(specversion="2.0"), "no CloudEvent of specversion 1.0"),
        (a_body(specversion=None), "no CloudEvent of specversion 1.0"),
        (a_body(id=None), "does not have our form"),
        (a_body(id=3), "does not have our form"),
        (a_body(data=3), "does not have our form"),
        (a_body(data={"fields": {"body": "hi"}}), "does not have our form"),
        (a_body(data={"origin": "nowhere"}), "does not have our form"),
        (a_body(type="com.example.made.v1"), "'com.example.made.v1' are not known"),
        (a_body(type="storemirror.document.written.v2"), "are not known to this version"),
        (a_body(type="storemirror.document.written.v2", data=3), "are not known to this version"),
        (a_body(type="storemirror.document.unreadable.v1", data=3), "could not read this delivery"),
        (a_body(dataschema="urn:storemirror:event-data:v2"), "v2' are not known to this version"),
        (a_body(dataschema="urn:storemirror:event-data:v2", data=3), "v2' are not known"),
        (a_body(dataschema=7), "form '7' are not known"),
        (a_body(source=source_of("other", "(default)")), "this mirror is bound to"),
        (a_body(source=SOURCE + "/documents"), "this mirror is bound to"),
        (a_body(id="0" * 64), "the id is not the digest"),
        (a_body(data={"path": "conversations/c1/messages/m2"}), "the id is not the digest"),
        (a_body(data={"version": "22"}), "the id is not the digest"),
        (a_body(type="storemirror.document.deleted.v1"), "do not agree"),
        (a_body(data={"fields": None}), "do not agree"),
        (a_body(data={"observedAt": "yesterday"}), "data.observedAt"),
        (a_body(data={"observedAt": "2026-01-01T00:00:00"}), "data.observedAt"),
        (a_body(data={"observedAt": "1969-12-31T23:59:59.999999Z"}), "data.observedAt"),
        (a_body(data={"observedAt": "9999-12-31T23:59:59.999999-01:00"}), "data.observedAt"),
    ],
    ids=lambda case: str(case)[-40:],
)
def test_a_body_that_is_no_event_of_ours_is_refused(body: bytes, message: str) -> None:
    """It is dead-lettered with this sentence; nothing of it may reach the database."""
    assert message in str(refusal_of(body))


@pytest.mark.parametrize(
    "version",
    [
        "",
        "-20",
        "+20",
        "2_0",
        " 20",
        "20.0",
        "0x14",
        "\u0662\u0660",
        "9" * 19,
        str(2 * LAST_US + 2),
    ],
)
def test_a_version_that_is_no_commit_time_is_refused(version: str) -> None:
    """It would end as another number in SQL, or stop the writer when it writes the time down."""
    body = a_body(data={"version": version}, id=event_id_of("conversations/c1/messages/m1", 20))
    assert "data.version is no decimal string" in str(refusal_of(body))


@pytest.mark.parametrize("expected", ["", "-1", "1e3", "\u0661", str(2**63), "9" * 5000])
def test_an_expected_version_that_is_no_number_is_refused(expected: str) -> None:
    """A repair that guesses would overwrite a newer row."""
    body = a_body(data={"expectedVersion": expected})
    assert "data.expectedVersion is no 64-bit" in str(refusal_of(body))


def test_a_version_damaged_to_the_largest_number_can_be_named() -> None:
    """A repair has to name what stands in the row, however absurd it is."""
    body = a_body(data={"expectedVersion": str(2**63 - 1)})
    assert decode_change(body, source=SOURCE).expected_version == 2**63 - 1


def test_a_write_whose_version_is_a_deletes_is_refused() -> None:
    """Type, version and fields each say whether the document is gone; all must say the same."""
    delete = msgspec.json.decode(encode_change(a_change(version=21), source=SOURCE))
    delete["data"]["fields"] = {}
    assert "do not agree" in str(refusal_of(msgspec.json.encode(delete)))
    delete["type"] = "storemirror.document.written.v1"
    assert "do not agree" in str(refusal_of(msgspec.json.encode(delete)))


def test_a_refusal_carries_what_can_be_known_of_the_event() -> None:
    """A person looks for the document first, and finds it by its path."""
    for body in (a_body(data=3), a_body(source="elsewhere")):
        refusal = refusal_of(body)
        assert refusal.event_id == a_change().event_id
        assert refusal.path == "conversations/c1/messages/m1"


def test_a_refusal_of_nonsense_still_has_both_attributes() -> None:
    """The dead letter's form does not depend on what was wrong."""
    refusal = refusal_of(b'{"specversion":"1.0","id":3,"subject":[],"type":null}')
    assert (refusal.event_id, refusal.path) == ("", "")


def test_a_refusal_never_shows_field_values() -> None:
    """Dead letters are read by people who may not read users' messages."""
    body = a_body(data={"fields": {"body": "secret"}})
    assert "secret" not in str(refusal_of(body))


@given(changes())
def test_a_write_can_be_told_without_its_contents(change: Change) -> None:
    """Path, version and reason are enough to read it; a delete has nothing to leave out."""
    referring = by_reference(encode_change(change, source=SOURCE))
    if change.is_deleted:
        assert referring is None
        return
    assert referring is not None
    assert decode_event(referring[0], source=SOURCE) == Reference(
        event_id=change.event_id,
        path=change.path,
        version=change.version,
        origin=change.origin,
        expected_version=change.expected_version,
    )
    data = msgspec.json.decode(referring[0])["data"]
    jsonschema.validate(data, msgspec.json.decode(SCHEMA.read_bytes()))


def test_an_event_without_its_contents_is_no_change() -> None:
    """Taken for one, it would be applied as an empty document."""
    referring = by_reference(encode_change(a_change(), source=SOURCE))
    assert referring is not None
    with pytest.raises(EnvelopeInvalid, match="carries no contents"):
        decode_change(referring[0], source=SOURCE)
    assert by_reference(referring[0]) is None


@pytest.mark.parametrize(
    "altered",
    [{"version": "21"}, {"fields": {"a": {"nullValue": None}}}, {"path": "users/a"}],
    ids=["a delete's version", "with contents", "another path"],
)
def test_a_reference_that_contradicts_itself_is_refused(altered: dict[str, object]) -> None:
    """It is held to the same rules as any event."""
    referring = by_reference(encode_change(a_change(), source=SOURCE))
    assert referring is not None
    event = msgspec.json.decode(referring[0])
    event["data"] |= altered
    with pytest.raises(EnvelopeInvalid):
        decode_event(msgspec.json.encode(event), source=SOURCE)


def test_what_is_no_event_has_nothing_to_leave_out() -> None:
    """A delivery that a source could not read is passed on as it is, or not at all."""
    assert by_reference(b"nonsense") is None
