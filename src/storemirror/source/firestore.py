"""
Cloud Firestore behind the port `DocumentStore`, by Google's asynchronous client.

The generated client is used, below the one with collections and snapshots: that one turns values
into Python's own on the way, and gives the bare messages to nobody.

A pinned view is a read time that Firestore itself has given: every commit before it is seen at
any later read of that moment, and every later commit has a later time.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc  # type: ignore[import-untyped]
from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from storemirror.clock import Clock
from storemirror.source.firestore_errors import TRANSIENT, translated_errors
from storemirror.source.firestore_names import ScanPlan, is_reserved, plan_scan, segments_of
from storemirror.source.firestore_values import Proto, fill_fields, fill_time
from storemirror.source.port import (
    Document,
    DocumentPage,
    DocumentRead,
    Precondition,
    PreconditionFailed,
    Write,
)
from storemirror.source.proto_values import fields_from_proto, us_from_proto

#: How long one call may take.  A page of a scan is one call.
CALL_TIMEOUT_S: Final = 60.0
#: First and longest wait before a call is repeated; each is drawn at random below its bound.
RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 5.0
#: Bytes of documents at which a page is cut short: 300 documents may have 300 MiB.
PAGE_MAX_BYTES: Final = 16 * 1024 * 1024
#: A document that is never there; reading it gives the time of now.
_PROBE_PATH: Final = "storemirror-probe/none"
_NAME_FIELD: Final = "__name__"
#: As Google's own client sets them: no limit on messages, a sign of life while idle.
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FirestoreAddress:
    """Which Firestore, and where."""

    project: str
    database: str = "(default)"
    #: host:port of an emulator; None: Google's, with application default credentials.
    emulator_host: str | None = None
    #: For how long reads are repeated while Firestore is in trouble; so are commits that lost
    #: against another one, of which nothing was written.
    retry_within_s: float = 10.0

    @property
    def name(self) -> str:
        """Give the database's resource name."""
        return f"projects/{self.project}/databases/{self.database}"


class FirestoreView:
    """See `PinnedView`.  Made by `FirestoreDocumentStore.pinned`; its scans may run at once."""

    def __init__(self, calls: _Calls, read_time_us: int) -> None:
        """Read at this moment."""
        self._calls = calls
        self._read_time_us = read_time_us

    @property
    def read_time_us(self) -> int:
        """See `PinnedView.read_time_us`."""
        return self._read_time_us

    async def scan(
        self, pattern: Sequence[str], *, page_size: int = 300, max_count: int | None = None
    ) -> AsyncIterator[DocumentPage]:
        """
        See `PinnedView.scan`.

        A page is one query that starts after the last document of the page before.  Pages are
        smaller than `page_size` where documents are large, or where other collections of the same
        id lie between: those are read, paid for and left out.

        Raises:
            ValueError: the pattern leaves a collection open.
            SourceUnavailable: Firestore did not answer.
            SourceRefused: rights, a read time too old, or an id that is sorted by its number.
        """
        plan = plan_scan(pattern)
        after: str | None = None
        remaining = max_count
        is_among_strangers = False
        while remaining is None or remaining > 0:
            is_bounded = remaining is not None and not is_among_strangers
            limit = min(page_size, remaining) if is_bounded and remaining else page_size
            found = await self._calls.page(plan, after, limit, self._read_time_us)
            documents = found.documents[:remaining]
            if documents:
                yield DocumentPage(documents=documents, read_time_us=self._read_time_us)
            if found.last_path is None:
                return
            after = found.last_path
            is_among_strangers = not documents
            remaining = None if remaining is None else remaining - len(documents)


class FirestoreDocumentStore:
    """See `DocumentStore`.  Make it with `open_firestore`.

    What a person must mend (rights, a database that is not there) is `SourceRefused`.
    """

    def __init__(self, calls: _Calls) -> None:
        """Work through an open client."""
        self._calls = calls

    @property
    def read_count(self) -> int:
        """Give how many document reads were paid for, as far as they can be counted here."""
        return self._calls.read_count

    async def get(self, path: str) -> DocumentRead:
        """See `DocumentStore.get`.  ValueError: `path` is no document's."""
        if is_reserved(segments_of(path)):
            # Firestore refuses to look, since no document can have such a name.
            probe = await self._calls.get(_PROBE_PATH)
            return DocumentRead(path=path, document=None, read_time_us=probe.read_time_us)
        return await self._calls.get(path)

    async def commit(self, writes: Sequence[Write]) -> int:
        """
        See `DocumentStore.commit`.

        A write of the contents that are there leaves the update time as it was.

        Raises:
            ValueError: a path is no document's, or is written twice; nothing was written.
            SourceRefused: Firestore refuses the rights or the data; nothing was written.
        """
        paths = [write.path for write in writes]
        for path in paths:
            segments_of(path)
        if len(set(paths)) < len(paths):
            raise ValueError("a commit writes a document once; nothing was written")
        try:
            return await self._calls.commit(writes)
        except google_errors.GoogleAPICallError as exc:
            refused = await self._refused_write(writes, exc)
            if refused is None:
                with translated_errors(self._calls.where):
                    raise
            raise PreconditionFailed(refused.path, refused.precondition) from exc

    async def _refused_write(
        self, writes: Sequence[Write], exc: google_errors.GoogleAPICallError
    ) -> Write | None:
        """Find the write whose precondition failed: Firestore names it only in words."""
        if isinstance(exc, google_errors.NotFound):
            failed = Precondition.EXISTS
        elif isinstance(exc, google_errors.AlreadyExists):
            failed = Precondition.ABSENT
        else:
            return None
        guarded = [write for write in writes if write.precondition is failed]
        for write in guarded if len(guarded) > 1 else ():
            read = await self._calls.get(write.path)
            if (read.document is None) is (failed is Precondition.EXISTS):
                return write
        return guarded[0] if guarded else None

    @contextlib.asynccontextmanager
    async def pinned(self) -> AsyncIterator[FirestoreView]:
        """See `DocumentStore.pinned`.  Costs one read; the view ends when the moment is too old."""
        probe = await self._calls.get(_PROBE_PATH)
        yield FirestoreView(self._calls, probe.read_time_us)

    async def aclose(self) -> None:
        """See `DocumentStore.aclose`."""
        await self._calls.aclose()


def open_firestore(address: FirestoreAddress, clock: Clock) -> FirestoreDocumentStore:
    """
    Make a store; nothing is sent yet.  To be called in the event loop that uses it.

    Raises:
        SourceRefused: there are no application default credentials.
    """
    with translated_errors(f"Firestore {address.name}"):
        return FirestoreDocumentStore(_Calls(address, clock))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What one query of a scan gave."""

    documents: tuple[Document, ...]
    #: The last path read, to go on after; None: there is nothing behind it.
    last_path: str | None


class _Calls:
    """The calls to Firestore: requests out of our values, our values out of answers."""

    def __init__(self, address: FirestoreAddress, clock: Clock) -> None:
        """Make the channel; it connects at the first call."""
        self.where = f"Firestore {address.name}"
        self.read_count = 0
        self._address = address
        self._clock = clock
        self._documents = f"{address.name}/documents"
        self._metadata = [("google-cloud-resource-prefix", address.name)]
        if address.emulator_host is not None:
            self._metadata.append(("authorization", "Bearer owner"))
        self._client = FirestoreAsyncClient(transport=_transport(address.emulator_host))

    async def aclose(self) -> None:
        """Close the channel."""
        await self._client.transport.close()  # type: ignore[no-untyped-call]

    async def get(self, path: str) -> DocumentRead:
        """Read one document as it is now; see `DocumentStore.get`."""
        request = types.BatchGetDocumentsRequest.pb()(database=self._address.name)
        request.documents.append(self._name_of(path))

        async def send() -> Proto:
            [answer] = await self._answers(
                self._client.batch_get_documents, types.BatchGetDocumentsRequest, request
            )
            return answer

        with translated_errors(self.where):
            answer = await self._repeated(send, TRANSIENT)
        self.read_count += 1
        return DocumentRead(
            path=path,
            document=self._document(answer.found) if answer.HasField("found") else None,
            read_time_us=us_from_proto(answer.read_time),
        )

    async def commit(self, writes: Sequence[Write]) -> int:
        """Commit, and give the commit time.  Google's errors come out as they are."""
        request = types.CommitRequest.pb()(database=self._address.name)
        for write in writes:
            self._fill_write(request.writes.add(), write)

        async def send() -> Proto:
            return await self._client.commit(
                types.CommitRequest.wrap(request),
                retry=None,
                timeout=CALL_TIMEOUT_S,
                metadata=self._metadata,
            )

        answer = await self._repeated(send, (google_errors.Aborted,))
        return us_from_proto(types.CommitResponse.pb(answer).commit_time)

    async def page(
        self, plan: ScanPlan, after: str | None, limit: int, read_time_us: int
    ) -> _Found:
        """Read at most `limit` documents of a scan, by rising name, after the one at `after`."""
        request = self._query(plan, after, limit, read_time_us)

        async def send() -> _Found:
            return await self._found(plan, request, limit)

        with translated_errors(self.where):
            return await self._repeated(send, TRANSIENT)

    async def _found(self, plan: ScanPlan, request: Proto, limit: int) -> _Found:
        documents: list[Document] = []
        count = size_bytes = 0
        path: str | None = None
        is_at_end = False
        # An iterable by its annotation, and in fact a call, which can be ended early.
        stream: Any = await self._client.run_query(
            types.RunQueryRequest.wrap(request),
            retry=None,
            timeout=CALL_TIMEOUT_S,
            metadata=self._metadata,
        )
        async for message in stream:
            answer = types.RunQueryResponse.pb(message)
            if not answer.HasField("document"):
                continue
            count += 1
            self.read_count += 1
            path = self._path_of(answer.document.name)
            segments = path.split("/")
            if plan.fits(segments):
                documents.append(self._document(answer.document))
            is_at_end = plan.is_past(segments)
            size_bytes += answer.ByteSize()
            if is_at_end or size_bytes > PAGE_MAX_BYTES:
                stream.cancel()
                break
        has_more = not is_at_end and (count == limit or size_bytes > PAGE_MAX_BYTES)
        return _Found(documents=tuple(documents), last_path=path if has_more else None)

    async def _answers(self, call: Any, kind: Any, request: Proto) -> Iterable[Proto]:
        """Call what answers with a stream, and gather its bare messages."""
        stream = await call(
            kind.wrap(request), retry=None, timeout=CALL_TIMEOUT_S, metadata=self._metadata
        )
        return [type(message).pb(message) async for message in stream]

    async def _repeated(
        self, send: Callable[[], Awaitable[T]], errors: tuple[type[Exception], ...]
    ) -> T:
        """Send until it works, or fails otherwise, or the time for that is over."""
        deadline_s = self._clock.monotonic_s() + self._address.retry_within_s
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(errors),
            wait=wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_LONGEST_S),
            stop=lambda _: self._clock.monotonic_s() >= deadline_s,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(send)

    def _query(self, plan: ScanPlan, after: str | None, limit: int, read_time_us: int) -> Proto:
        parent = f"{self._documents}/{plan.parent}" if plan.parent else self._documents
        request = types.RunQueryRequest.pb()(parent=parent)
        fill_time(request.read_time, read_time_us)
        query = request.structured_query
        selector = query.from_.add()
        selector.collection_id = plan.collection_id
        selector.all_descendants = plan.is_group
        order = query.order_by.add()
        order.field.field_path = _NAME_FIELD
        order.direction = types.StructuredQuery.Direction.ASCENDING
        query.limit.value = limit
        start = query.start_at
        start.before = after is None
        start.values.add().reference_value = self._name_of(after or plan.lowest_path)
        return request

    def _fill_write(self, target: Proto, write: Write) -> None:
        name = self._name_of(write.path)
        if write.fields is None:
            target.delete = name
        else:
            target.update.name = name
            fill_fields(target.update.fields, write.fields)
        if write.precondition is not Precondition.NONE:
            target.current_document.exists = write.precondition is Precondition.EXISTS

    def _document(self, found: Proto) -> Document:
        return Document(
            path=self._path_of(found.name),
            fields=fields_from_proto(found.fields),
            create_time_us=us_from_proto(found.create_time),
            update_time_us=us_from_proto(found.update_time),
        )

    def _name_of(self, path: str) -> str:
        return f"{self._documents}/{path}"

    def _path_of(self, name: str) -> str:
        return name.removeprefix(f"{self._documents}/")


def _transport(emulator_host: str | None) -> FirestoreGrpcAsyncIOTransport:
    """Make the way to an emulator, without encryption, or to Google's Firestore."""
    if emulator_host is not None:
        channel = grpc.aio.insecure_channel(emulator_host, options=_CHANNEL_OPTIONS)
    else:
        channel = FirestoreGrpcAsyncIOTransport.create_channel(options=_CHANNEL_OPTIONS)
    return FirestoreGrpcAsyncIOTransport(channel=channel)
