"""Ids as long as the declaration lets them be, and no longer."""

from __future__ import annotations

import pytest

from storemirror.errors import CallRefused
from storemirror.gateway.ids import checked_id, checked_new_id, is_key
from storemirror.model.entity import KeyPart

SHORT, LONG = KeyPart(name="id", max_length=3), KeyPart(name="id", max_length=700)


@pytest.mark.parametrize(
    ("text", "part"),
    [("abc", SHORT), ("ééé", SHORT), ("é" * 700, LONG), ("a" * 700, LONG)],
    ids=["short", "two bytes each", "long, two bytes each", "long"],
)
def test_an_id_may_be_as_long_as_declared(text: str, part: KeyPart) -> None:
    """In characters; a declaration may let them be longer than 128."""
    assert is_key(text, part)
    assert checked_id(text, part, "it") == checked_new_id(text, part, "it") == text


@pytest.mark.parametrize(
    ("text", "part"),
    [("abcd", SHORT), ("a" * 701, LONG), ("😀" * 376, LONG), ("", LONG), ("a/b", LONG)],
    ids=["short", "long", "more bytes than Firestore takes", "empty", "slash"],
)
def test_an_id_may_be_no_longer(text: str, part: KeyPart) -> None:
    """Nor may it have more bytes than Firestore takes; who says so names the declared length."""
    assert not is_key(text, part)
    for check in (checked_id, checked_new_id):
        with pytest.raises(CallRefused, match=rf"it has 1 to {part.max_length} characters"):
            check(text, part, "it")


@pytest.mark.parametrize("text", ["a ", "a\n", "a\u0085", "\u200b"])
def test_nothing_is_made_of_an_id_that_another_database_takes_for_another(text: str) -> None:
    """What is there already may have such an id."""
    assert checked_id(text, LONG, "it") == text
    with pytest.raises(CallRefused, match="control characters"):
        checked_new_id(text, LONG, "it")
