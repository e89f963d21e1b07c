"""From a message's bytes to an event about a row, and what can never become one."""

from __future__ import annotations

import pytest

from storemirror.apply.decode import EventDecoder
from storemirror.bus.port import Message
from storemirror.errors import EntityUnknown, EnvelopeInvalid, KeyRefused, MappingFailed
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.event.envelope import CONTENT_TYPE, encode_change, source_of
from storemirror.event.value import encode_fields
from storemirror.model.types import DialectLimits
from tests.unit.apply.deliveries import social_model

SOURCE = source_of("demo", "(default)")
LIMITS = DialectLimits(
    holds_nul=False, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)
SECRET = "the secret of this message"


@pytest.fixture
def decoder() -> EventDecoder:
    return EventDecoder(model=social_model(), limits=LIMITS, source=SOURCE)


def a_change(path: str, document: dict[str, object] | None) -> Change:
    fields = None if document is None else encode_fields(document)
    return Change(
        path=path,
        version=version_of(10, is_deleted=document is None),
        origin=Origin.TRIGGER,
        observed_at_us=10,
        fields=fields,
        digest=digest_of(fields),
    )


def message_of(change: Change, *, source: str = SOURCE) -> Message:
    return a_message(encode_change(change, source=source))


def a_message(body: bytes) -> Message:
    return Message(message_id="m", body=body, content_type=CONTENT_TYPE)


def test_a_write_becomes_a_row(decoder: EventDecoder) -> None:
    """Everything the procedure takes is there."""
    change = a_change("users/a/following/b", {})
    event = decoder.decode(message_of(change))
    assert event.entity.name == "FollowEdge"
    assert event.key == ("a", "b")
    assert event.change == change
    assert event.row is not None
    assert event.row.columns == {"createdAt": None}


def test_a_delete_has_no_row(decoder: EventDecoder) -> None:
    """A tombstone keeps no contents."""
    event = decoder.decode(message_of(a_change("users/a/following/b", None)))
    assert event.row is None


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_event_are_named_so(decoder: EventDecoder, body: bytes) -> None:
    """Anyone with the right to send can put anything on the topic."""
    with pytest.raises(EnvelopeInvalid):
        decoder.decode(a_message(body))


def test_an_event_of_another_firestore_is_refused(decoder: EventDecoder) -> None:
    """Two projects on one topic must not mix in one mirror."""
    message = message_of(a_change("users/a/following/b", {}), source=source_of("other", "x"))
    with pytest.raises(EnvelopeInvalid, match="other"):
        decoder.decode(message)


def test_a_document_of_no_entity_names_itself(decoder: EventDecoder) -> None:
    """The dead letter must say which document it is about."""
    change = a_change("invoices/i1", {"total": SECRET})
    with pytest.raises(EntityUnknown, match="invoices/i1") as caught:
        decoder.decode(message_of(change))
    assert (caught.value.event_id, caught.value.path) == (change.event_id, change.path)


def test_an_id_that_cannot_be_a_key_names_itself(decoder: EventDecoder) -> None:
    """Too long for an index: a person has to decide."""
    change = a_change(f"users/{'a' * 200}/following/b", {})
    with pytest.raises(KeyRefused) as caught:
        decoder.decode(message_of(change))
    assert (caught.value.event_id, caught.value.path) == (change.event_id, change.path)


@pytest.mark.parametrize("document_id", ["", "a" * 129, "a\0b"])
def test_a_sound_id_does_not_vouch_for_the_next_of_its_collection(
    decoder: EventDecoder, document_id: str
) -> None:
    """What is remembered of a collection says nothing of its documents' ids."""
    assert decoder.decode(message_of(a_change("users/a/following/b", {}))).key == ("a", "b")
    change = a_change(f"users/a/following/{document_id}", {})
    with pytest.raises(KeyRefused) as caught:
        decoder.decode(message_of(change))
    assert (caught.value.event_id, caught.value.path) == (change.event_id, change.path)


def test_an_id_that_ends_in_a_space_is_a_key_where_it_is_compared(decoder: EventDecoder) -> None:
    """Each dialect has limits of its own; PostgreSQL compares the space too."""
    assert decoder.decode(message_of(a_change("users/a/following/b ", {}))).key == ("a", "b ")


def test_collections_of_no_entity_are_not_remembered(decoder: EventDecoder) -> None:
    """Their names have no bounds, and whoever may send could fill the memory with them."""
    for number in range(3):
        with pytest.raises(EntityUnknown):
            decoder.decode(message_of(a_change(f"invoices{number}/i1", {})))
        with pytest.raises(KeyRefused):
            decoder.decode(message_of(a_change(f"users/{'a' * 200}{number}/following/b", {})))
    assert decoder.remembered_count == 0
    decoder.decode(message_of(a_change("users/a/following/b", {})))
    assert decoder.remembered_count == 1


def test_a_value_that_does_not_fit_is_named_without_its_contents(decoder: EventDecoder) -> None:
    """Dead letters are read by people who may not read messages."""
    change = a_change("conversations/c/messages/m", {"senderId": "u", "sentAt": SECRET})
    with pytest.raises(MappingFailed, match="sentAt") as caught:
        decoder.decode(message_of(change))
    assert (caught.value.event_id, caught.value.path) == (change.event_id, change.path)
    assert SECRET not in str(caught.value)
