"""
What the contract suite of the gateway's readers needs of a source, beyond the readers.

A source is put to the suite by writing a class for it and adding it to the fixture `side`.
Nothing in the suite's tests knows which source answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final, Protocol

from storemirror.apply.decode import EventDecoder
from storemirror.apply.unfit import unfit_marks
from storemirror.bus.port import Delivery, Message, Rejection
from storemirror.clock import SystemClock
from storemirror.errors import EntityUnknown, PoisonEventError
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.event.envelope import source_of
from storemirror.event.value import encode_fields
from storemirror.gateway.document_reader import DocumentFollowReader, DocumentMessagesReader
from storemirror.gateway.port import FollowReader, MessagesReader
from storemirror.gateway.social import LOSSLESS, DirectMessages, FollowGraph
from storemirror.gateway.sql_reader import SqlFollowReader, SqlMessagesReader
from storemirror.model.entity import Model
from storemirror.model.types import DialectLimits
from storemirror.source.port import DocumentStore, Write
from storemirror.source.triggers import message_of
from tests.contract.sql.side_door import Installed
from tests.support.mirrors import PROJECT, STORE

SOURCE: Final = source_of(PROJECT, STORE)


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

    def __init__(
        self, store: DocumentStore, model: Model, limits: DialectLimits = LOSSLESS
    ) -> None:
        self.store = store
        self.messages: MessagesReader = DocumentMessagesReader(
            store, DirectMessages.of(model, limits)
        )
        self.follow: FollowReader = DocumentFollowReader(store, FollowGraph.of(model, limits))

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


class SqlSide:
    """See `Side`.  The mirror's rows, as the writer makes them of the documents."""

    knows_its_time = False

    def __init__(self, installed: Installed) -> None:
        self.messages: MessagesReader = SqlMessagesReader(installed.reads)
        self.follow: FollowReader = SqlFollowReader(installed.reads)
        self.limits = installed.mirror.limits
        self._mirror = installed.mirror
        self._decoder = EventDecoder(
            model=installed.model, limits=installed.mirror.limits, source=SOURCE
        )
        self._model = installed.model
        self._committed_us = 0

    async def commit(self, *writes: Write) -> int:
        # Two writes of one moment would be one version.
        self._committed_us = max(SystemClock().now_us(), self._committed_us + 1)
        events = []
        for write in writes:
            message = self._message(write)
            try:
                events.append(self._decoder.decode(message))
            except PoisonEventError as exc:
                await self._set_aside(message, exc.reason)
        await self._mirror.apply(events)
        return self._committed_us

    async def _set_aside(self, message: Message, reason: str) -> None:
        """Mark what the writer marks."""
        delivery = Delivery(
            message=message,
            lock_token="t",
            sequence_number=1,
            delivery_count=1,
            enqueued_at_us=0,
            locked_until_us=0,
        )
        rejection = Rejection(delivery=delivery, reason=reason, description="")
        await self._mirror.mark_unverified(unfit_marks([rejection], self._model, self.limits))

    def _message(self, write: Write) -> Message:
        """Give the message of a write; of no entity's document it has the path alone."""
        change = Change(
            path=write.path,
            version=version_of(self._committed_us, is_deleted=write.fields is None),
            origin=Origin.TRIGGER,
            observed_at_us=self._committed_us,
            fields=write.fields,
            digest=digest_of(write.fields),
        )
        with contextlib.suppress(EntityUnknown):
            return message_of(change, self._model.match(write.path)[0].name, SOURCE)
        return message_of(change, "", SOURCE)
