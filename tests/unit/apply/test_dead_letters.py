"""Which dead letters a purge takes, and what it marks of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from storemirror.apply.dead_letters import PurgeFilter, mark_of
from storemirror.bus.port import DeadLetter, Message
from storemirror.event.change import Change, Origin
from storemirror.event.digest import digest_of
from storemirror.event.envelope import CONTENT_TYPE, encode_change, source_of
from storemirror.model.load import load_model
from storemirror.source.unreadable import Unreadable, unreadable_message

MODEL = load_model()
SOURCE = source_of("demo", "(default)")
PATH = "users/a/following/b"
OTHER = "users/c/following/d"


def a_message(
    path: str = PATH, *, version: int = 20, properties: Mapping[str, str] | None = None
) -> Message:
    """A message as the triggers make it, or with properties of somebody else's making."""
    change = Change(
        path=path,
        version=version,
        origin=Origin.TRIGGER,
        observed_at_us=version // 2,
        fields={},
        digest=digest_of({}),
    )
    told = {"path": path, "version": str(version)} if properties is None else properties
    return Message(
        message_id="e1",
        body=encode_change(change, source=SOURCE),
        content_type=CONTENT_TYPE,
        properties=told,
    )


def a_letter(
    message: Message | None = None, *, reason: str = "MappingFailed", at_us: int = 10
) -> DeadLetter:
    return DeadLetter(
        message=message or a_message(),
        sequence_number=1,
        reason=reason,
        description="d",
        delivery_count=1,
        enqueued_at_us=1,
        dead_lettered_at_us=at_us,
    )


def test_without_a_filter_every_dead_letter_is_taken() -> None:
    """Acknowledged ones too: they are gone for good as well."""
    assert PurgeFilter().takes(a_letter())


def test_filters_narrow_by_reason_and_age() -> None:
    """A person purges what was understood, not what came in a minute ago."""
    assert PurgeFilter(reason="MappingFailed", until_us=10).takes(a_letter())
    assert not PurgeFilter(reason="EntityUnknown").takes(a_letter())
    assert not PurgeFilter(until_us=9).takes(a_letter())


def test_a_mark_names_document_and_version() -> None:
    """By these a check, or a newer event, finds it again."""
    mark = mark_of(a_letter(), MODEL)
    assert (mark.entity, mark.key, mark.path, mark.version) == ("FollowEdge", ("a", "b"), PATH, 20)
    assert (mark.message_id, mark.reason) == ("e1", "MappingFailed")


def test_a_mark_needs_no_properties() -> None:
    """A relay may have lost them; the writer reads the body alone."""
    mark = mark_of(a_letter(a_message(properties={})), MODEL)
    assert (mark.entity, mark.key, mark.path, mark.version) == ("FollowEdge", ("a", "b"), PATH, 20)


@pytest.mark.parametrize(
    "properties",
    [
        {"path": OTHER, "version": "2"},
        {"path": OTHER},
        {"version": "2"},
        {"path": PATH, "version": ""},
        {"path": PATH, "version": "soon"},
        {"path": PATH, "version": "9" * 30},
        {"path": PATH, "version": "9" * 5_000},
    ],
    ids=["both", "path", "version", "empty", "no number", "30 digits", "5000 digits"],
)
def test_a_mark_whose_message_contradicts_itself_names_no_document(
    properties: Mapping[str, str],
) -> None:
    """The next drain would clear it by another document, and the loss be forgotten.  Refs #4."""
    mark = mark_of(a_letter(a_message(properties=properties)), MODEL)
    assert (mark.entity, mark.key, mark.path, mark.version) == (None, None, None, None)


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (b'"20"', b'"22"'),
        (b'"20"', b'"%s"' % (b"9" * 19)),
        (b'"20"', b'"%s"' % (b"9" * 5_000)),
        (b"document.written", b"document.unheard-of"),
        (b"{", b"["),
    ],
    ids=["other version", "19 digits", "5000 digits", "type", "no JSON"],
)
def test_a_body_that_cannot_be_read_names_no_document(now: bytes, then: bytes) -> None:
    """Properties alone are no witness: the writer never went by them.  Refs #4."""
    whole = a_message()
    assert now in whole.body
    mark = mark_of(a_letter(replace(whole, body=whole.body.replace(now, then))), MODEL)
    assert (mark.entity, mark.key, mark.path, mark.version) == (None, None, None, None)


def test_a_mode_that_nobody_reads_names_no_document() -> None:
    """A batch of events is about several."""
    message = replace(a_message(), content_type="application/cloudevents-batch+json")
    assert mark_of(a_letter(message), MODEL).path is None


def test_a_path_that_cannot_be_stored_is_left_out() -> None:
    """The database would refuse the whole page of marks, and nothing could be purged."""
    message = a_message("users/a\0/following/b", properties={})
    assert mark_of(a_letter(message), MODEL).path is None


def test_a_delivery_that_the_source_could_not_read_is_marked_by_its_path() -> None:
    """It has no version: only a check can clear the mark."""
    told = Unreadable(reason="garbage", path=PATH)
    message = unreadable_message(told, {}, b"garbage", source=SOURCE)
    mark = mark_of(a_letter(message), MODEL)
    assert (mark.entity, mark.path, mark.version) == ("FollowEdge", PATH, None)


def test_a_delivery_that_nobody_can_name_is_a_mark_all_the_same() -> None:
    """Nobody knows which document it was: that is the more reason to remember it."""
    message = unreadable_message(Unreadable(reason="garbage"), {}, b"garbage", source=SOURCE)
    mark = mark_of(a_letter(message), MODEL)
    assert (mark.entity, mark.key, mark.path, mark.version) == (None, None, None, None)


def test_a_path_that_nobody_declared_keeps_its_path() -> None:
    """A person can look there."""
    mark = mark_of(a_letter(a_message("invoices/i")), MODEL)
    assert (mark.entity, mark.path, mark.version) == (None, "invoices/i", 20)
