"""From a document's change to an event: versions, ids, names, messages."""

from __future__ import annotations

import re

import pytest

from storemirror.errors import EntityUnknown
from storemirror.event.change import Change, EventType, Origin, event_id_of, version_of
from storemirror.event.digest import NO_DIGEST, digest_of
from storemirror.event.envelope import CONTENT_TYPE, decode_change, source_of
from storemirror.event.value import encode_fields
from storemirror.model.load import load_model
from storemirror.source.port import Document, DocumentChange
from storemirror.source.triggers import Unmirrored, change_of, message_of, triggers_of

PATH = "conversations/c1/messages/m1"
SOURCE = source_of("demo", "(default)")
MODEL = load_model()


def a_document(update_time_us: int, body: str = "hi", create_time_us: int = 10) -> Document:
    return Document(
        path=PATH,
        fields=encode_fields({"body": body}),
        create_time_us=create_time_us,
        update_time_us=update_time_us,
    )


def told(before: Document | None, after: Document | None) -> Change:
    change = change_of(DocumentChange(path=PATH, before=before, after=after))
    assert isinstance(change, Change)
    return change


@pytest.mark.parametrize("before", [None, a_document(10)], ids=["created", "updated"])
def test_a_write_has_the_version_of_the_after_image(before: Document | None) -> None:
    """Newest wins by Firestore's own commit time, and by nothing else."""
    after = a_document(20, "new")
    change = told(before, after)
    assert change.version == version_of(20, is_deleted=False)
    assert change.observed_at_us == 20
    assert change.fields == after.fields
    assert change.digest == digest_of(after.fields)
    assert change.event_type is EventType.WRITTEN
    assert change.origin is Origin.TRIGGER


def test_a_delete_sorts_right_after_the_write_it_removed() -> None:
    """A trigger knows no commit time of a delete; a retry must give the same number."""
    change = told(a_document(20), None)
    assert change.version == version_of(20, is_deleted=True)
    assert change.observed_at_us == 20
    assert change.fields is None
    assert change.digest == NO_DIGEST
    assert change.event_type is EventType.DELETED


def test_a_history_has_rising_versions() -> None:
    """Write, edit, delete, re-creation: each wins over the one before."""
    history = [
        told(None, a_document(10)),
        told(a_document(10), a_document(20, "edited")),
        told(a_document(20, "edited"), None),
        told(None, a_document(21, "again", create_time_us=21)),
    ]
    versions = [change.version for change in history]
    assert versions == sorted(set(versions))


def test_a_delete_of_what_never_existed_makes_no_event() -> None:
    """Google's emulator delivers it with both snapshots empty."""
    change = DocumentChange(path=PATH, before=None, after=None)
    assert change_of(change) is Unmirrored.NEVER_EXISTED


def test_a_write_that_changed_nothing_makes_no_event() -> None:
    """Google's emulator delivers it with the update time it had: told before."""
    change = DocumentChange(path=PATH, before=a_document(10), after=a_document(10))
    assert change_of(change) is Unmirrored.NOTHING_CHANGED


def test_a_new_update_time_is_told_though_the_contents_are_the_same() -> None:
    """The row must take the new version, else a re-read would look newer than the row."""
    assert told(a_document(10), a_document(20)).version == version_of(20, is_deleted=False)


def test_a_retried_delivery_gives_the_same_change() -> None:
    """The id is the same, so the second one is a duplicate; so is the trace it belongs to."""
    assert told(None, a_document(20)) == told(None, a_document(20))


def test_a_trace_begins_with_the_event() -> None:
    """W3C trace context: 16 bytes of trace id, 8 of span id, none of them all zero."""
    change = told(None, a_document(20))
    event_id = event_id_of(PATH, 40)
    assert change.traceparent == f"00-{event_id[:32]}-{event_id[32:48]}-01"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", change.traceparent)


def test_a_trace_that_came_in_is_kept() -> None:
    """The request that wrote the document is where the trace began."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    document_change = DocumentChange(path=PATH, before=None, after=a_document(20))
    change = change_of(document_change, traceparent=traceparent)
    assert isinstance(change, Change)
    assert change.traceparent == traceparent


def test_the_triggers_have_the_names_of_the_contract() -> None:
    """They are deployed, billed and watched under these names."""
    entities = {name: trigger.entity.name for name, trigger in triggers_of(MODEL).items()}
    assert entities == {
        "mirrorDmConversations": "DmConversation",
        "mirrorDmMessages": "DmMessage",
        "mirrorFollowEdges": "FollowEdge",
        "mirrorUserBlocks": "UserBlock",
    }


def test_a_trigger_tells_of_its_own_documents() -> None:
    """All triggers are the one function, each on its path."""
    document_change = DocumentChange(path=PATH, before=None, after=a_document(20))
    assert triggers_of(MODEL)["mirrorDmMessages"](document_change) == change_of(document_change)


def test_a_trigger_refuses_documents_of_another_path() -> None:
    """Deployed on a wrong path it would fill the wrong table."""
    document_change = DocumentChange(path=PATH, before=None, after=a_document(20))
    with pytest.raises(EntityUnknown, match="mirrorFollowEdges"):
        triggers_of(MODEL)["mirrorFollowEdges"](document_change)


def test_a_message_carries_the_event_and_what_filters_need() -> None:
    """Its id is the event's: the bus drops what it had already."""
    change = told(None, a_document(20))
    message = message_of(change, "DmMessage", SOURCE)
    assert message.message_id == change.event_id
    assert message.content_type == CONTENT_TYPE
    assert decode_change(message.body, source=SOURCE) == change
    assert message.properties == {
        "type": "storemirror.document.written.v1",
        "entity": "DmMessage",
        "origin": "trigger",
        "version": "40",
        "path": PATH,
        "traceparent": change.traceparent,
    }


def test_a_run_makes_a_message_id_of_its_own() -> None:
    """Else duplicate detection would swallow a repair of an event that the bus has seen."""
    change = told(None, a_document(20))
    message = message_of(change, "DmMessage", SOURCE, run="r" * 63)
    assert message.message_id == f"{change.event_id}.{'r' * 63}"
    assert len(message.message_id) == 128


@pytest.mark.parametrize("run", ["", "r" * 64])
def test_a_run_that_makes_no_message_id_is_refused(run: str) -> None:
    """Service Bus takes 128 characters; an empty run would name nothing."""
    with pytest.raises(ValueError, match="run"):
        message_of(told(None, a_document(20)), "DmMessage", SOURCE, run=run)
