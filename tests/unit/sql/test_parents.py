"""Whether stubs are made before a batch is tried."""

from __future__ import annotations

from storemirror.model.load import load_model
from storemirror.sql.parents import KnownParents

MODEL = load_model()
ONE = {"DmConversation": {("c1",)}}
BOTH = {"DmConversation": {("c1",), ("c2",)}}


def test_at_first_a_batch_is_tried_as_it_is() -> None:
    """A writer that starts anew finds the parents of a year in their table."""
    assert KnownParents(MODEL).to_make_first(ONE) == {}


def test_once_a_parent_was_missing_the_unknown_ones_come_first() -> None:
    """Where conversations are begun all the time, half of the small batches would fail."""
    parents = KnownParents(MODEL)
    parents.note_missing()
    parents.note_there(ONE)
    assert parents.to_make_first(BOTH) == {"DmConversation": {("c2",)}}
    assert parents.to_make_first(ONE) == {}


def test_stubs_that_were_there_already_are_not_asked_for_again() -> None:
    """Each would cost a transaction, and there may be more parents than are remembered."""
    parents = KnownParents(MODEL)
    parents.note_missing()
    parents.note_made(0)
    assert parents.to_make_first(ONE) == {}


def test_stubs_that_were_made_show_that_there_will_be_more() -> None:
    """Parents come anew at a steady rate or not at all."""
    parents = KnownParents(MODEL)
    parents.note_missing()
    parents.note_made(1)
    assert parents.to_make_first(ONE) == ONE


def test_after_a_purge_nothing_is_known() -> None:
    """It takes many stubs at once; what else it took is not known."""
    parents = KnownParents(MODEL)
    parents.note_there(BOTH)
    parents.note_missing()
    assert parents.to_make_first(ONE) == ONE


def test_no_more_is_remembered_than_is_allowed() -> None:
    """A writer runs for months, and its memory stays flat."""
    parents = KnownParents(MODEL, most_known=2)
    parents.note_missing()
    parents.note_there(BOTH)
    parents.note_there({"DmConversation": {("c3",)}})
    assert parents.to_make_first(BOTH) == BOTH


def test_rows_that_are_nobodys_parents_are_none() -> None:
    """Locking them makes their stubs."""
    parents = KnownParents(MODEL)
    parents.note_missing()
    assert parents.to_make_first({"FollowEdge": {("a", "b")}}) == {}
