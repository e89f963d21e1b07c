"""
A document read again, as a change.

What an `expired` event says may have been overtaken by a purge: the document as it is now decides.
"""

from __future__ import annotations

from storemirror.bus.port import Message
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.model.entity import Model
from storemirror.source.port import DocumentRead, DocumentStore
from storemirror.source.triggers import message_of, traced


def observed_change(
    read: DocumentRead, origin: Origin, *, expected_version: int | None = None
) -> Change:
    """
    Turn a document that was read into a change.

    Args:
        read: absence becomes a delete at the read time: later than whatever was deleted, earlier
            than any re-creation.
        origin: why it was read.
        expected_version: repairs only: the version the damaged row was seen with.
    """
    document = read.document
    if document is None:
        version = version_of(read.read_time_us, is_deleted=True)
    else:
        version = version_of(document.update_time_us, is_deleted=False)
    fields = None if document is None else document.fields
    change = Change(
        path=read.path,
        version=version,
        origin=origin,
        observed_at_us=read.read_time_us,
        fields=fields,
        digest=digest_of(fields),
        expected_version=expected_version,
    )
    return traced(change)


class SourceReread:
    """Reads documents again for the writer (`apply` declares what it needs of it)."""

    def __init__(self, store: DocumentStore, model: Model, *, source: str) -> None:
        """
        Read from `store`.

        Args:
            store: the documents.
            model: the declared entities.
            source: CloudEvents source; see `storemirror.event.envelope.source_of`.
        """
        self._store = store
        self._model = model
        self._source = source

    async def reread(self, path: str, *, run: str) -> Message:
        """
        Read a document as it is now, and give its event.

        Args:
            path: the document's.
            run: see `message_of`.

        Raises:
            EntityUnknown: no declared entity has this path.
            SourceUnavailable: the store did not answer.
        """
        entity, _ = self._model.match(path)
        change = observed_change(await self._store.get(path), Origin.REREAD)
        return message_of(change, entity.name, self._source, run=run)
