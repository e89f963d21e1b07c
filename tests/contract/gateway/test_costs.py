"""What reads from documents cost in Firestore, as the page on it says."""

from __future__ import annotations

import pytest

from storemirror.errors import CallRefused
from storemirror.gateway.port import Position
from storemirror.source.firestore import FirestoreDocumentStore
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import DocumentSide, Side, write

ME, YOU = "me", "you"


@pytest.fixture
def store(firestore_side: Side) -> FirestoreDocumentStore:
    """The store below the readers, which counts what is paid for."""
    assert isinstance(firestore_side, DocumentSide)
    assert isinstance(firestore_side.store, FirestoreDocumentStore)
    return firestore_side.store


async def fill(side: Side) -> None:
    for n in range(4):
        path = f"conversations/c{n}"
        await write(side, path, participantIds=[ME, YOU], createdAt=at(n))
        for m in range(n):
            message = {"senderId": YOU, "body": "x", "sentAt": at(m)}
            await write(side, f"{path}/messages/m{m}", **message)


async def test_an_inbox_costs_two_reads_a_conversation_and_one_each_on_the_page(
    firestore_side: Side, store: FirestoreDocumentStore
) -> None:
    """And one that looks for participants in a map; whatever the page's size."""
    await fill(firestore_side)
    begin = store.read_count
    page = await firestore_side.messages.conversations(ME, older_than=None, limit=3)
    assert len(page.items) == 3
    assert store.read_count - begin == 2 * 4 + 3 + 1
    begin = store.read_count
    await firestore_side.messages.conversations("nobody", older_than=None, limit=3)
    assert store.read_count - begin == 2


async def test_an_inbox_that_strangers_filled_is_refused_before_its_messages_are_read(
    firestore_side: Side, store: FirestoreDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may open conversations with anybody (issue 7)."""
    await fill(firestore_side)
    monkeypatch.setattr("storemirror.gateway.document_reader.INBOX_MAX_COUNT", 3)
    begin = store.read_count
    with pytest.raises(CallRefused) as refused:
        await firestore_side.messages.conversations(ME, older_than=None, limit=3)
    assert refused.value.status == "FAILED_PRECONDITION"
    assert store.read_count - begin == 4
    monkeypatch.setattr("storemirror.gateway.document_reader.INBOX_MAX_COUNT", 4)
    assert (await firestore_side.messages.conversations(ME, older_than=None, limit=3)).items


async def test_messages_cost_one_read_each_and_two_more(
    firestore_side: Side, store: FirestoreDocumentStore
) -> None:
    """The conversation, and the message that shows that there are older ones."""
    await fill(firestore_side)
    begin = store.read_count
    page = await firestore_side.messages.messages(ME, "c3", limit=2)
    assert page is not None
    assert len(page.items) == 2
    assert store.read_count - begin == 1 + 2 + 1
    begin = store.read_count
    behind = Position(time_us=us(2), id="m2")
    await firestore_side.messages.messages(ME, "c3", older_than=behind, limit=1)
    assert store.read_count - begin == 1 + 1 + 1 + 1


async def test_a_relationship_costs_four_reads(
    firestore_side: Side, store: FirestoreDocumentStore
) -> None:
    """Absence is paid for too."""
    begin = store.read_count
    await firestore_side.follow.relationship(ME, YOU)
    assert store.read_count - begin == 4
