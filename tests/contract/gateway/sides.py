"""
What the contract suite of the gateway's readers needs of a source, beyond the readers.

A source is put to the suite by writing a class for it and adding it to the fixture `side`.
Nothing in the suite's tests knows which source answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from storemirror.event.change import version_of
from storemirror.event.value import encode_fields
from storemirror.gateway.document_reader import DocumentFollowReader, DocumentMessagesReader
from storemirror.gateway.port import FollowReader, MessagesReader
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.model.entity import Model
from storemirror.source.port import DocumentStore, Write


class Side(Protocol):
    """One source under test."""

    @property
    def messages(self) -> MessagesReader:
        """Give the reader of direct messages."""
        ...

    @property
    def follow(self) -> FollowReader:
        """Give the reader of the follow graph."""
        ...

    @property
    def knows_its_time(self) -> bool:
        """Tell whether the source itself says up to when its answers show everything."""
        ...

    async def commit(self, *writes: Write) -> int:
        """
        Write documents, let the source show them, and give the commit time.

        What does not fit its declaration is set aside, as the writer does.
        """
        ...


class DocumentSide:
    """See `Side`.  The documents themselves."""

    knows_its_time = True

    def __init__(self, store: DocumentStore, model: Model) -> None:
        self.store = store
        self.messages: MessagesReader = DocumentMessagesReader(store, DirectMessages.of(model))
        self.follow: FollowReader = DocumentFollowReader(store, FollowGraph.of(model))

    async def commit(self, *writes: Write) -> int:
        return await self.store.commit(writes)


async def write(side: Side, path: str, **fields: object) -> int:
    """Write one document, and give its version."""
    committed_us = await side.commit(Write(path=path, fields=encode_fields(fields)))
    return version_of(committed_us, is_deleted=False)


async def write_all(side: Side, documents: Mapping[str, Mapping[str, object]]) -> int:
    """Write documents together, and give their version."""
    writes = [Write(path=path, fields=encode_fields(f)) for path, f in documents.items()]
    return version_of(await side.commit(*writes), is_deleted=False)


async def delete(side: Side, path: str) -> None:
    """Delete one document."""
    await side.commit(Write(path=path, fields=None))
