"""Which query reads a pattern's documents, and which paths can be a document's."""

from __future__ import annotations

import pytest

from storemirror.errors import SourceRefused
from storemirror.source.firestore_names import is_reserved, plan_scan, segments_of

MESSAGE = ("conversations", "{c}", "messages", "{m}")


@pytest.mark.parametrize(
    ("pattern", "parent", "collection_id", "is_group"),
    [
        (("conversations", "{c}"), "", "conversations", False),
        (MESSAGE, "", "messages", True),
        (("tenants", "acme", "users", "{u}"), "tenants/acme", "users", False),
        (("tenants", "acme", "users", "{u}", "posts", "{p}"), "tenants/acme", "posts", True),
        (("tenants", "{t}", "users", "root"), "", "users", True),
        (("settings", "main"), "", "settings", False),
    ],
)
def test_the_query_is_the_narrowest_there_is(
    pattern: tuple[str, ...], parent: str, collection_id: str, is_group: bool
) -> None:
    """Each stranger that a query gives is a read paid for nothing."""
    plan = plan_scan(pattern)
    assert (plan.parent, plan.collection_id, plan.is_group) == (parent, collection_id, is_group)


@pytest.mark.parametrize("pattern", [(), ("users",), ("{any}", "{id}"), ("a", "{b}", "c")])
def test_what_is_no_pattern_of_documents_is_refused(pattern: tuple[str, ...]) -> None:
    """A collection left open would be the whole database."""
    with pytest.raises(ValueError, match="no pattern"):
        plan_scan(pattern)


@pytest.mark.parametrize(
    "path",
    [
        "conversations/c/messages/m/replies/r",
        "rooms/c/messages/m",
        "rooms/r/conversations/c/messages/m",
        "conversations/c",
    ],
)
def test_a_document_elsewhere_is_no_document_of_the_pattern(path: str) -> None:
    """A collection group holds every collection of its id."""
    assert not plan_scan(MESSAGE).fits(path.split("/"))


def test_a_scan_ends_where_no_wanted_document_can_follow() -> None:
    """What sorts behind the first collection of the pattern is not read to its end."""
    plan = plan_scan(MESSAGE)
    assert plan.is_past(["users", "u", "messages", "m"])
    assert plan.is_past(["conversations2", "c", "messages", "m"])
    assert not plan.is_past(["conversations", "z", "a", "b", "messages", "m"])
    assert not plan.is_past(["albums", "a", "messages", "m"])


@pytest.mark.parametrize(
    "path", ["conversations/__id7__/messages/m", "conversations/c/messages/__id-7__"]
)
def test_an_id_that_is_sorted_as_a_number_ends_the_scan(path: str) -> None:
    """Keys must rise as bytes; to give it in its place all such ids would have to be held."""
    with pytest.raises(SourceRefused, match=path):
        plan_scan(MESSAGE).fits(path.split("/"))


def test_reserved_names_are_told_from_those_of_an_import() -> None:
    """Firestore refuses to look up the former; documents can have the latter."""
    assert [is_reserved(["users", i]) for i in (".", "..", "__x__", "____", "__a\n__")] == [
        True
    ] * 5
    assert not any(is_reserved(["users", i]) for i in ("...", "__x", "x__", "__id7__", "__id-7__"))


@pytest.mark.parametrize("path", ["users/" + "é" * 751, "users/\ud800", "users", "users//a/b"])
def test_what_cannot_be_a_path_is_a_mistake_of_the_caller(path: str) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(ValueError, match=r"path|segment"):
        segments_of(path)
