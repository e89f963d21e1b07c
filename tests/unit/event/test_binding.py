"""Structured and binary mode, held to the official library's own bindings, and every refusal."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, http
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given

from storemirror.errors import EnvelopeInvalid
from storemirror.event.binding import structured_body
from storemirror.event.change import Change
from storemirror.event.envelope import CONTENT_TYPE, decode_change, encode_change
from tests.unit.event.test_envelope import SOURCE, a_change, changes

JSON = JSONFormat()


def read(body: bytes, content_type: str, properties: Mapping[str, str]) -> Change:
    """Read a message as the writer does."""
    whole = structured_body(body, content_type=content_type, properties=properties)
    return decode_change(whole, source=SOURCE)


def official(change: Change) -> BaseCloudEvent:
    """Give the event as the official library understands our bytes."""
    message = http.HTTPMessage({"content-type": CONTENT_TYPE}, encode_change(change, source=SOURCE))
    return http.from_structured(message, JSON)


def binary(**changed: str | None) -> tuple[bytes, str, dict[str, str]]:
    """Give a change in the library's binary mode, attributes replaced; None takes one out."""
    message = amqp.to_binary(official(a_change()), JSON)
    properties = {name: str(text) for name, text in message.application_properties.items()}
    for name, text in changed.items():
        del properties[f"cloudEvents_{name}"]
        if text is not None:
            properties[f"cloudEvents_{name}"] = text
    return message.application_data, message.properties["content-type"], properties


def refusal_of(body: bytes, content_type: str, properties: Mapping[str, str]) -> EnvelopeInvalid:
    with pytest.raises(EnvelopeInvalid) as caught:
        read(body, content_type, properties)
    return caught.value


@given(changes())
def test_binary_mode_of_amqp_is_read(change: Change) -> None:
    """A relay on Service Bus may put the attributes beside the body; times come as numbers."""
    message = amqp.to_binary(official(change), JSON)
    properties = {name: str(text) for name, text in message.application_properties.items()}
    found = read(message.application_data, message.properties["content-type"], properties)
    assert repr(found) == repr(change)


@given(changes())
def test_binary_mode_of_http_is_read(change: Change) -> None:
    """A push through HTTP leaves its headers as properties, percent-encoded."""
    message = http.to_binary(official(change), JSON)
    headers = dict(message.headers)
    found = read(message.body, headers.pop("content-type"), headers)
    assert repr(found) == repr(change)


@given(changes())
def test_structured_mode_of_others_is_read(change: Change) -> None:
    """Its content type has no charset, where ours has one."""
    message = amqp.to_structured(official(change), JSON)
    found = read(message.application_data, message.properties["content-type"], {})
    assert repr(found) == repr(change)


def test_the_official_library_reads_our_message_as_structured() -> None:
    """Others on the topic decide by content type; ours must tell them."""
    body = encode_change(a_change(), source=SOURCE)
    event = amqp.from_amqp_event(amqp.AMQPMessage({"content-type": CONTENT_TYPE}, {}, body))
    assert event.get_id() == a_change().event_id


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_", "cloudevents_", "ce-", "Ce-"])
def test_every_prefix_of_the_bindings_is_known(prefix: str) -> None:
    """The AMQP binding allows two, for the sake of JMS; HTTP's are in any case."""
    body, content_type, properties = binary()
    renamed = {prefix + name.removeprefix("cloudEvents_"): t for name, t in properties.items()}
    assert read(body, content_type, renamed) == a_change()


def test_properties_that_are_no_attributes_are_let_be() -> None:
    """Our own messages carry some for filters."""
    body, content_type, properties = binary()
    assert read(body, content_type, {**properties, "type": "x", "entity": "y"}) == a_change()


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain"])
def test_a_message_that_lost_its_content_type_is_read(content_type: str) -> None:
    """The body says itself that it is a whole CloudEvent, and all of it is checked."""
    body = encode_change(a_change(), source=SOURCE)
    assert read(body, content_type, {"type": "x"}) == a_change()


def test_the_content_type_decides_over_properties() -> None:
    """A relay that adds attributes to a structured event, as Event Grid does, changes nothing."""
    body = encode_change(a_change(), source=SOURCE)
    _, _, properties = binary(id="other")
    assert read(body, CONTENT_TYPE, properties) == a_change()


@pytest.mark.parametrize("content_type", ["application/merge-patch+json", "", "APPLICATION/JSON"])
def test_data_are_json_by_any_name_of_it(content_type: str) -> None:
    """Absent means JSON too."""
    body, _, properties = binary()
    assert read(body, content_type, properties) == a_change()


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("application/cloudevents-batch+json", "only application/cloudevents+json is read"),
        ("application/cloudevents+avro; x=y", "only application/cloudevents+json is read"),
        ("application/xml", "the data are 'application/xml', not JSON"),
    ],
)
def test_another_format_is_refused_by_its_name(content_type: str, message: str) -> None:
    """Read as something else it would be nonsense with a misleading reason."""
    body, _, properties = binary()
    assert message in str(refusal_of(body, content_type, properties))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"1 2", b'{},"id":"x"', b"[" * 100_000])
def test_data_that_are_no_json_are_refused_with_the_events_id(body: bytes) -> None:
    """The attributes are beside them: the dead letter names event and document."""
    _, content_type, properties = binary()
    refusal = refusal_of(body, content_type, properties)
    assert "no JSON" in str(refusal)
    assert (refusal.event_id, refusal.path) == (a_change().event_id, a_change().path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"specversion": None}, "no CloudEvent of specversion 1.0"),
        ({"specversion": "0.3"}, "no CloudEvent of specversion 1.0"),
        ({"id": None}, "does not have our form"),
        ({"id": "0" * 64}, "the id is not the digest"),
        ({"type": "storemirror.document.written.v2"}, "are not known to this version"),
        ({"dataschema": "urn:storemirror:event-data:v2"}, "are not known to this version"),
        ({"source": "elsewhere"}, "this mirror is bound to"),
    ],
    ids=str,
)
def test_attributes_are_checked_as_in_structured_mode(
    changed: dict[str, str | None], message: str
) -> None:
    """One reader for both modes: what one refuses, the other does not let in."""
    assert message in str(refusal_of(*binary(**changed)))


def test_an_attribute_that_contradicts_itself_is_refused() -> None:
    """Under two prefixes it may be two ids; neither is to be guessed."""
    body, content_type, properties = binary()
    refusal = refusal_of(body, content_type, {**properties, "ce-id": "other"})
    assert "'id' is there twice" in str(refusal)
