"""Which conversations are marked before their events are set aside."""

from __future__ import annotations

from storemirror.apply.unfit import unfit_marks
from storemirror.bus.port import Delivery, Message, Rejection
from storemirror.model.load import load_model
from storemirror.source.unreadable import Unreadable, unreadable_message
from storemirror.sql.port import UnverifiedDocument
from storemirror.sql.postgres.types import LIMITS
from tests.unit.apply.test_dead_letters import SOURCE, a_message

MODEL = load_model()
PATH = "conversations/c"


def marks(*messages: Message) -> list[UnverifiedDocument]:
    rejections = [
        Rejection(
            delivery=Delivery(
                message=message,
                lock_token=f"lock-{number}",
                sequence_number=number,
                delivery_count=1,
                enqueued_at_us=0,
                locked_until_us=1,
            ),
            reason="MappingFailed",
            description="d",
        )
        for number, message in enumerate(messages)
    ]
    return unfit_marks(rejections, MODEL, LIMITS)


def a_mark(version: int | None) -> UnverifiedDocument:
    return UnverifiedDocument(
        message_id="unfit:c",
        reason="MappingFailed",
        path=PATH,
        entity="DmConversation",
        key=("c",),
        version=version,
    )


def test_a_conversation_is_marked_once_by_its_newest_event() -> None:
    """A statement may touch a row once; the row must be newer than all that was set aside."""
    events = [a_message(PATH, version=version) for version in (20, 40, 30)]
    assert marks(*events) == [a_mark(40)]


def test_what_the_source_could_not_read_marks_without_a_version() -> None:
    """Nobody knows how new it is."""
    unreadable = Unreadable(reason="r", path=PATH)
    message = unreadable_message(unreadable, {}, b"body", source=SOURCE)
    assert [(m.path, m.version) for m in marks(message, a_message(PATH))] == [(PATH, None)]


def test_other_documents_are_not_marked() -> None:
    """Who may read what is in conversations alone; each mark is a row that a check must clear."""
    paths = ("conversations/c/messages/m", "users/a/blocks/b", "invoices/i")
    assert marks(*(a_message(path) for path in paths)) == []


def test_what_tells_no_document_marks_none() -> None:
    """No app's user can bring such a message onto the bus."""
    message = Message(message_id="m", body=b"no event", content_type="application/json")
    contradicted = a_message(PATH, properties={"path": "conversations/d"})
    assert marks(message, contradicted) == []


def test_an_id_that_no_row_can_have_marks_nothing() -> None:
    """There is no row that could be shown."""
    assert marks(a_message(f"conversations/{'x' * 129}")) == []
