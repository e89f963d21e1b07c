"""Documents read again for the writer, on every document store."""

from __future__ import annotations

import pytest

from storemirror.errors import EntityUnknown
from storemirror.event.change import Origin, version_of
from storemirror.event.envelope import decode_change, source_of
from storemirror.event.value import encode_fields
from storemirror.model.entity import Model
from storemirror.source.port import DocumentStore, Write
from storemirror.source.reread import SourceReread

PATH = "conversations/c1/messages/m1"
SOURCE = source_of("demo", "(default)")


async def test_a_document_read_again_is_told_as_it_is(store: DocumentStore, model: Model) -> None:
    """The expired event's own contents may be long overtaken."""
    fields = encode_fields({"senderId": "a", "body": "hi"})
    committed_us = await store.commit([Write(path=PATH, fields=fields)])
    message = await SourceReread(store, model, source=SOURCE).reread(PATH, run="again-1")
    change = decode_change(message.body, source=SOURCE)
    assert change.version == version_of(committed_us, is_deleted=False)
    assert change.fields == fields
    assert change.origin is Origin.REREAD
    assert change.observed_at_us > committed_us
    assert message.message_id == f"{change.event_id}.again-1"
    assert message.properties["entity"] == "DmMessage"


async def test_a_document_that_is_gone_is_told_as_deleted(
    store: DocumentStore, model: Model
) -> None:
    """Its delete sorts between what was removed and any re-creation."""
    await store.commit([Write(path=PATH, fields=encode_fields({"body": "hi"}))])
    deleted_us = await store.commit([Write(path=PATH, fields=None)])
    message = await SourceReread(store, model, source=SOURCE).reread(PATH, run="again-1")
    recreated_us = await store.commit([Write(path=PATH, fields=encode_fields({"body": "ho"}))])
    change = decode_change(message.body, source=SOURCE)
    assert change.is_deleted
    assert deleted_us < change.commit_time_us == change.observed_at_us < recreated_us


async def test_a_path_of_no_entity_is_not_read_again(store: DocumentStore, model: Model) -> None:
    """There is no row that its event could be for."""
    with pytest.raises(EntityUnknown):
        await SourceReread(store, model, source=SOURCE).reread("settings/s1", run="again-1")
