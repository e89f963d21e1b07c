"""Which dead letters a purge takes, and what it marks of each."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from storemirror.apply.dead_letters import PurgeFilter, mark_of
from storemirror.bus.port import DeadLetter, Message
from storemirror.model.load import load_model

MODEL = load_model()
PATH = "users/a/following/b"


def a_letter(
    properties: Mapping[str, str] | None = None, *, reason: str = "MappingFailed", at_us: int = 10
) -> DeadLetter:
    told = {"path": PATH, "version": "20"} if properties is None else properties
    return DeadLetter(
        message=Message(message_id="e1", body=b"secret", content_type="x", properties=told),
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


def test_a_mark_of_a_message_that_tells_nothing_is_a_mark_all_the_same() -> None:
    """Nobody knows which document it was: that is the more reason to remember it."""
    mark = mark_of(a_letter({}), MODEL)
    assert (mark.entity, mark.key, mark.path, mark.version) == (None, None, None, None)


@pytest.mark.parametrize("version", ["", "soon", "²", "-1"])
def test_a_version_that_is_none_is_left_out(version: str) -> None:
    """Then only a check can clear the mark."""
    assert mark_of(a_letter({"path": PATH, "version": version}), MODEL).version is None


def test_a_path_that_nobody_declared_keeps_its_path() -> None:
    """A person can look there."""
    mark = mark_of(a_letter({"path": "invoices/i", "version": "20"}), MODEL)
    assert (mark.entity, mark.path, mark.version) == (None, "invoices/i", 20)
