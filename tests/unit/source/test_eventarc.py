"""What Eventarc delivers, as a document's change: values bit for bit, and what is no delivery."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from google.events.cloud.firestore import DocumentEventData  # type: ignore[import-untyped]
from google.protobuf import json_format  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from storemirror.errors import EnvelopeInvalid
from storemirror.event.digest import digest_of
from storemirror.event.envelope import decode_change, source_of
from storemirror.event.value import encode_fields
from storemirror.source.eventarc import decode_delivery, traceparent_of
from storemirror.source.port import DocumentChange
from storemirror.source.unreadable import KEPT_MAX_BYTES, Unreadable, unreadable_message
from tests.support.deliveries import HEADERS, NAME, PATH, SOURCE, fill_image, told
from tests.unit.event.documents import DOCUMENT


def decoded(body: bytes, **headers: str) -> DocumentChange:
    change = decode_delivery({**HEADERS, **headers}, body, source=SOURCE)
    assert isinstance(change, DocumentChange), change
    return change


def refused(body: bytes, headers: Mapping[str, str] = HEADERS) -> str:
    unreadable = decode_delivery(headers, body, source=SOURCE)
    assert isinstance(unreadable, Unreadable), unreadable
    return unreadable.reason


@given(after=DOCUMENT, before=DOCUMENT)
def test_every_value_arrives_bit_for_bit(
    after: dict[str, object], before: dict[str, object]
) -> None:
    """int64, microseconds, NaN, -0.0, bytes: what a trigger sees has the digest a read has."""
    change = decoded(told(after, before).SerializeToString())
    assert change.path == PATH
    assert change.after is not None
    assert change.before is not None
    assert digest_of(change.after.fields) == digest_of(encode_fields(after))
    assert digest_of(change.before.fields) == digest_of(encode_fields(before))
    assert (change.before.update_time_us, change.after.update_time_us) == (15, 20)
    assert change.after.create_time_us == 10


@given(after=DOCUMENT)
def test_every_form_of_a_delivery_tells_the_same(after: dict[str, object]) -> None:
    """Base64 (the emulator's), JSON data and structured mode carry one and the same change."""
    data = told(after, {"old": 1})
    binary = data.SerializeToString()
    expected = repr(decoded(binary))
    assert repr(decoded(base64.b64encode(binary))) == expected
    as_json = json_format.MessageToJson(data).encode()
    assert repr(decoded(as_json, **{"Content-Type": "application/json"})) == expected
    structured = {
        "specversion": "1.0",
        "id": "d1",
        "type": HEADERS["Ce-Type"],
        "source": SOURCE,
        "datacontenttype": "application/protobuf",
        "data_base64": base64.b64encode(binary).decode(),
    }
    mode = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    assert repr(decoded(json.dumps(structured).encode(), **mode)) == expected


def test_a_vector_is_the_map_that_firestore_keeps() -> None:
    """The client's vector class is a map on the wire; a read gives the same map."""
    vector = {"__type__": "__vector__", "value": [1.0, -0.0]}
    change = decoded(told({"v": vector}).SerializeToString())
    assert change.after is not None
    assert change.after.fields == encode_fields({"v": vector})


def test_a_delete_has_the_image_before_alone() -> None:
    """Its version is made of the before-image's update time."""
    change = decoded(told(before={"a": 1}).SerializeToString())
    assert change.after is None
    assert change.before is not None
    assert change.before.update_time_us == 15


def test_a_documents_name_may_have_any_character() -> None:
    """The path is taken from the name inside the data: headers cannot carry all of it."""
    data = DocumentEventData.pb()()
    path = "conversations/ä\n%2F \U0001f600/messages/documents"
    fill_image(data.value, {}, 20, f"projects/demo/databases/(default)/documents/{path}")
    assert decoded(data.SerializeToString()).path == path


@pytest.mark.parametrize("body", [b"", b"\x1a\x00", b"GgA="], ids=["empty", "mask", "base64"])
def test_a_delete_of_nothing_has_no_image(body: bytes) -> None:
    """Google's emulator tells of it, with `projects/` doubled in the source."""
    doubled = "//firestore.googleapis.com/projects/projects/demo/databases/(default)"
    for source in (SOURCE, doubled):
        change = decoded(body, **{"Ce-Source": source})
        assert change == DocumentChange(path=PATH, before=None, after=None)


def test_nothing_of_another_database_is_no_delete() -> None:
    """Without an image the source is all that tells whose delivery it is."""
    other = source_of("other", "(default)")
    assert "'//firestore.googleapis.com/projects/other" in refused(
        b"", {**HEADERS, "Ce-Source": other}
    )


@pytest.mark.parametrize(
    "name",
    ["projects/other/databases/(default)/documents/a/b", "projects/demo/databases/x/documents/a/b"],
)
def test_a_document_of_another_database_is_named(name: str) -> None:
    """A trigger that was deployed on the wrong database must not fill this mirror."""
    data = DocumentEventData.pb()()
    fill_image(data.value, {}, 20, name)
    reason = refused(data.SerializeToString())
    assert name.partition("/documents/")[0] in reason
    assert "projects/demo/databases/(default)" in reason


def without(data: Any, *, field: str) -> bytes:
    data.value.ClearField(field)
    body: bytes = data.SerializeToString()
    return body


def of_two_documents() -> bytes:
    data = told({"a": 1})
    fill_image(data.old_value, {}, 15, f"{NAME}x")
    body: bytes = data.SerializeToString()
    return body


def with_odd_time() -> bytes:
    data = told({"a": 1})
    data.value.fields["a"].timestamp_value.seconds = 10**15
    body: bytes = data.SerializeToString()
    return body


def with_unset_value() -> bytes:
    data = told({})
    data.value.fields["a"].SetInParent()
    body: bytes = data.SerializeToString()
    return body


def with_odd_place() -> bytes:
    data = told({"a": 1})
    data.value.fields["a"].geo_point_value.latitude = math.nan
    body: bytes = data.SerializeToString()
    return body


def test_structured_mode_may_hold_the_data_as_json() -> None:
    """CloudEvents allows both; the other one is base64."""
    data = told({"a": 2**63 - 1})
    event = {
        "specversion": "1.0",
        "type": HEADERS["Ce-Type"],
        "data": json.loads(json_format.MessageToJson(data)),
    }
    mode = {"Content-Type": "application/cloudevents+json"}
    assert decoded(json.dumps(event).encode(), **mode) == decoded(data.SerializeToString())


def test_a_structured_event_with_broken_base64_says_why() -> None:
    """A proxy cut it."""
    event = {"specversion": "1.0", "type": HEADERS["Ce-Type"], "data_base64": "CgA"}
    headers = {"Content-Type": "application/cloudevents+json"}
    assert "data_base64" in refused(json.dumps(event).encode(), headers)


def test_the_path_of_an_unreadable_delivery_is_what_its_header_says() -> None:
    """UTF-8 comes as Latin-1 through HTTP; what is neither is kept as it is."""
    for text, path in (("a/ä".encode().decode("latin-1"), "a/ä"), ("a/ä", "a/ä"), ("a/€", "a/€")):
        unreadable = decode_delivery({**HEADERS, "Ce-Document": text}, b"\xff", source=SOURCE)
        assert isinstance(unreadable, Unreadable)
        assert unreadable.path == path


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"not base64!", "neither protobuf"),
        (b"\x0a\xff", "no DocumentEventData"),
        (told({"a": 1}).SerializeToString()[:-3], "no DocumentEventData"),
        (b"\x32\x01\x00", "neither protobuf"),
        (base64.b64encode(b"\x32\x01\x00"), "no document, neither before nor after"),
        (without(told({"a": 1}), field="update_time"), "no update_time"),
        (without(told({"a": 1}), field="create_time"), "no create_time"),
        (without(told({"a": 1}), field="name"), "no document's name"),
        (of_two_documents(), "of two documents"),
        (with_odd_time(), "a: a time lies in the years 1 to 9999"),
        (with_odd_place(), "a: a geoPointValue has finite coordinates"),
        (with_unset_value(), "a: no value of a document"),
    ],
)
def test_a_body_that_is_no_delivery_says_why(body: bytes, words: str) -> None:
    """An operator reads the reason in the dead letter; contents are not in it."""
    assert words in refused(body)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "specversion"),
        ({**HEADERS, "Ce-Specversion": "0.3"}, "'0.3'"),
        ({**HEADERS, "Ce-Type": "google.cloud.storage.object.v1.finalized"}, "storage.object"),
        ({**HEADERS, "Content-Type": "text/plain"}, "'text/plain'"),
        ({**HEADERS, "Content-Type": "application/json"}, "no DocumentEventData"),
        ({**HEADERS, "Content-Type": "application/cloudevents+json"}, "no JSON object"),
    ],
)
def test_headers_that_are_no_deliverys_say_why(headers: Mapping[str, str], words: str) -> None:
    """Another service's events, or a proxy that rewrote them."""
    assert words in refused(told({"a": 1}).SerializeToString(), headers)


@given(body=st.binary(max_size=200), kind=st.sampled_from(["protobuf", "json", "cloudevents+json"]))
def test_no_bytes_bring_the_receiver_down(body: bytes, kind: str) -> None:
    """Whatever is posted becomes a value, never an exception."""
    headers = {**HEADERS, "Content-Type": f"application/{kind}"}
    assert decode_delivery(headers, body, source=SOURCE) is not None


def test_hostile_nesting_is_refused() -> None:
    """A parser that recursed into it would end the process."""
    body = b'{"specversion":"1.0","data":' + b"[" * 100_000
    assert "no JSON" in refused(body, {"content-type": "application/cloudevents+json"})
    assert refused(b"[" * 100_000, {**HEADERS, "Content-Type": "application/json"})


def test_twenty_levels_are_read() -> None:
    """Firestore nests no deeper; protobuf's own limit is near, three messages a level."""
    value: object = 1
    for _ in range(20):
        value = {"m": value}
    change = decoded(told({"deep": value}).SerializeToString())
    assert change.after is not None
    assert change.after.fields == encode_fields({"deep": value})


def test_a_trace_is_taken_only_in_its_form() -> None:
    """It travels on as a property of the message."""
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert traceparent_of({"traceparent": good}) == good
    assert traceparent_of({"ce-traceparent": good, "traceparent": "x"}) == good
    assert traceparent_of({"traceparent": f"{good}\n"}) is None


def test_an_unreadable_delivery_is_refused_by_the_writer_with_a_reason() -> None:
    """It ends as a dead letter that says where it came from."""
    message = unreadable_message(
        Unreadable(reason="why", path=PATH),
        {"ce-id": "1", "ce-source": "s", "authorization": "Bearer secret"},
        b"\x00body",
        source=SOURCE,
    )
    with pytest.raises(EnvelopeInvalid, match="could not read this delivery") as caught:
        decode_change(message.body, source=SOURCE)
    assert caught.value.event_id == message.message_id
    assert caught.value.path == PATH
    data = json.loads(message.body)["data"]
    assert base64.b64decode(data["bodyBase64"]) == b"\x00body"
    assert data["reason"] == "why"
    assert b"secret" not in message.body


def test_a_repeated_unreadable_delivery_has_the_same_id() -> None:
    """Eventarc repeats under the same id and source; without them the body tells."""

    def id_of(headers: Mapping[str, str], body: bytes) -> str:
        return unreadable_message(Unreadable(reason="r"), headers, body, source=SOURCE).message_id

    first = {"ce-id": "1", "ce-source": "s"}
    assert id_of(first, b"a") == id_of(first, b"b")
    assert id_of(first, b"a") != id_of({"ce-id": "2", "ce-source": "s"}, b"a")
    assert id_of({}, b"a") == id_of({}, b"a")
    assert id_of({}, b"a") != id_of({}, b"b")


def test_an_odd_and_large_delivery_still_fits_a_message() -> None:
    """NUL, half a surrogate pair and megabytes must not keep it off the bus."""
    message = unreadable_message(
        Unreadable(reason="\0", path="a/\ud800"),
        {"ce-id": "\0", "ce-source": "\ud800", "content-type": "x"},
        b"x" * (KEPT_MAX_BYTES + 1),
        source=SOURCE,
    )
    assert len(message.body) < 200_000
    assert json.loads(message.body)["data"]["bodySizeBytes"] == KEPT_MAX_BYTES + 1
    assert "\0" not in "".join(message.properties.values())
