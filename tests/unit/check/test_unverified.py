"""Which unverified documents a check has shown to be right."""

from __future__ import annotations

from dataclasses import replace

from storemirror.check.unverified import Watch
from storemirror.sql.port import UnverifiedDocument

PATH = "users/a/following/b"
MARK = UnverifiedDocument(
    message_id="e1",
    reason="MappingFailed",
    path=PATH,
    entity="FollowEdge",
    key=("a", "b"),
    version=20,
)
NOWHERE = replace(MARK, message_id="e2", path=None, entity=None, key=None, version=None)
UNDECLARED = replace(MARK, message_id="e3", path="invoices/i", entity=None, key=None)
ALL = ("FollowEdge", "DmMessage")


def verified(
    watch: Watch, *, compared: tuple[str, ...] = ALL, is_limited: bool = False
) -> list[str]:
    found = watch.decide_verified(compared=compared, declared=ALL, is_limited=is_limited)
    return [mark.message_id for mark in found]


def test_a_document_that_was_compared_and_not_doubted_is_right() -> None:
    """Absent on both sides it is not even seen, and right all the same."""
    assert verified(Watch([MARK]), compared=("FollowEdge",)) == ["e1"]


def test_a_document_of_another_kind_was_not_compared() -> None:
    """`--check=messages` says nothing of follows."""
    assert verified(Watch([MARK]), compared=("DmMessage",)) == []


def test_a_document_in_doubt_stays() -> None:
    """It differs, or an acknowledged dead letter says why it may, or it changed at every look."""
    watch = Watch([MARK])
    watch.saw(PATH)
    watch.doubted([PATH])
    assert verified(watch) == []


def test_with_a_limit_only_what_was_seen_is_right() -> None:
    """The first fifty say nothing of the fifty-first."""
    watch = Watch([MARK, replace(MARK, message_id="e9", path="users/a/following/c")])
    watch.saw(PATH)
    watch.saw("users/x/following/y")
    assert verified(watch, is_limited=True) == ["e1"]


def test_a_mark_without_a_document_goes_when_all_is_right() -> None:
    """Whichever document it was about: its loss has left no trace."""
    assert verified(Watch([NOWHERE, UNDECLARED])) == ["e2", "e3"]


def test_a_mark_without_a_document_stays_while_anything_is_open() -> None:
    """One document in doubt may be the one."""
    assert verified(Watch([NOWHERE]), compared=("DmMessage",)) == []
    assert verified(Watch([NOWHERE]), is_limited=True) == []
    watch = Watch([NOWHERE])
    watch.doubted(["users/x/following/y"])
    assert verified(watch) == []


def test_a_mark_of_an_entity_that_is_no_longer_declared_counts_as_one_without() -> None:
    """No check compares it any more."""
    assert verified(Watch([replace(MARK, entity="Gone")])) == ["e1"]
    assert verified(Watch([replace(MARK, entity="Gone")]), compared=("DmMessage",)) == []


def test_without_marks_nothing_is_watched() -> None:
    """A check of ten million documents pays nothing for it."""
    assert not Watch([])
    assert Watch([MARK])
