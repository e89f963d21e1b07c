"""
The calls to Firestore: requests out of our values, our values out of the answers.

The generated client is used, below the one with collections and snapshots: that one turns values
into Python's own on the way, and gives the bare messages to nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import grpc  # type: ignore[import-untyped]
from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from storemirror.clock import Clock
from storemirror.errors import SourceRefused
from storemirror.event.value import ValueInvalid
from storemirror.source.firestore_errors import TRANSIENT, translated_errors
from storemirror.source.firestore_names import ScanPlan
from storemirror.source.firestore_query import NAME_FIELD, count_query, page_query
from storemirror.source.firestore_values import Proto, fill_fields, fill_time
from storemirror.source.port import (
    Document,
    DocumentPage,
    DocumentQuery,
    DocumentRead,
    Precondition,
    Write,
)
from storemirror.source.proto_values import fields_from_proto, us_from_proto

#: How long one call may take.  A scan's query that takes longer is gone on with by another.
CALL_TIMEOUT_S: Final = 60.0
#: How long giving up a transaction may take; nobody but the end of the store waits for it.
ROLLBACK_TIMEOUT_S: Final = 5.0
#: First and longest wait before a call is repeated; each is drawn at random below its bound.
RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 5.0
_COUNT_ALIAS: Final = "counted"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The documents behind the path `after`, up to and with the one at `up_to`; None: no bound."""

    after: str | None = None
    up_to: str | None = None


class FirestoreCalls:
    """One database of Firestore, and the calls that the adapter makes to it."""

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
        with translated_errors(self.where):
            return await self.repeated(partial(self.get_once, path), TRANSIENT)

    async def get_once(self, path: str, transaction: bytes = b"") -> DocumentRead:
        """Read one document, perhaps in a transaction.  Google's errors come out as they are."""
        request = types.BatchGetDocumentsRequest.pb()(database=self._address.name)
        request.documents.append(self.name_of(path))
        if transaction:
            request.transaction = transaction
        [answer] = await self._answers(
            self._client.batch_get_documents, types.BatchGetDocumentsRequest, request
        )
        self.read_count += 1
        return DocumentRead(
            path=path,
            document=self.document_of(answer.found) if answer.HasField("found") else None,
            read_time_us=us_from_proto(answer.read_time),
        )

    async def commit(self, writes: Sequence[Write], transaction: bytes = b"") -> int:
        """Commit, and give the commit time.  Google's errors come out as they are."""
        request = types.CommitRequest.pb()(database=self._address.name, transaction=transaction)
        for write in writes:
            self._fill_write(request.writes.add(), write)
        answer = await self._client.commit(
            types.CommitRequest.wrap(request),
            retry=None,
            timeout=CALL_TIMEOUT_S,
            metadata=self._metadata,
        )
        return us_from_proto(types.CommitResponse.pb(answer).commit_time)

    async def begin(self, lost: bytes) -> bytes:
        """
        Begin a read-write transaction.  Google's errors come out as they are.

        Args:
            lost: the one that this begins again, after it lost against another; empty for none.
        """
        request = types.BeginTransactionRequest.pb()(database=self._address.name)
        request.options.read_write.retry_transaction = lost
        answer = await self._client.begin_transaction(
            types.BeginTransactionRequest.wrap(request),
            retry=None,
            timeout=CALL_TIMEOUT_S,
            metadata=self._metadata,
        )
        return answer.transaction

    async def roll_back(self, transaction: bytes) -> None:
        """Give a transaction up.  Google's errors come out as they are."""
        request = types.RollbackRequest.pb()(database=self._address.name, transaction=transaction)
        await self._client.rollback(
            types.RollbackRequest.wrap(request),
            retry=None,
            timeout=ROLLBACK_TIMEOUT_S,
            metadata=self._metadata,
        )

    async def page(self, query: DocumentQuery) -> DocumentPage:
        """Read what a query finds; see `DocumentStore.query`."""
        request = types.RunQueryRequest.pb()(parent=self._parent_of(query))
        request.structured_query.CopyFrom(page_query(query, self.name_of))

        async def send() -> Iterable[Proto]:
            return await self._answers(self._client.run_query, types.RunQueryRequest, request)

        with translated_errors(self.where):
            answers = list(await self.repeated(send, TRANSIENT))
        documents = tuple(self.document_of(a.document) for a in answers if a.HasField("document"))
        self.read_count += max(len(documents), 1)
        # What was given at an earlier time is, by the protocol, the same at the later ones.
        read_time_us = min(us_from_proto(a.read_time) for a in answers if a.HasField("read_time"))
        return DocumentPage(documents=documents, read_time_us=read_time_us)

    async def count_of(self, query: DocumentQuery) -> int:
        """Count what a query finds; see `DocumentStore.count_of`."""
        request = types.RunAggregationQueryRequest.pb()(parent=self._parent_of(query))
        structured = request.structured_aggregation_query.structured_query
        structured.CopyFrom(count_query(query))
        return await self._counted(request, query.limit)

    @contextlib.asynccontextmanager
    async def running_query(
        self, plan: ScanPlan, span: Span, limit: int, read_time_us: int
    ) -> AsyncIterator[Callable[[], Awaitable[Proto | None]]]:
        """
        Send a scan's query, and lend what reads its answer.

        That gives the next bare `RunQueryResponse` message, None after the last; Google's errors
        come out as they are.  On leaving, the rest of the answer is called off.
        """
        request = self._query(plan, span, limit, read_time_us)
        # An iterable by its annotation, and in fact a call: it can be read message by message,
        # with a third less work, and ended early.
        call: Any = await self._client.run_query(
            types.RunQueryRequest.wrap(request),
            retry=None,
            timeout=CALL_TIMEOUT_S,
            metadata=self._metadata,
        )

        async def read() -> Proto | None:
            message = await call.read()
            return None if message is grpc.aio.EOF else types.RunQueryResponse.pb(message)

        try:
            yield read
        finally:
            call.cancel()

    async def count(self, plan: ScanPlan, max_count: int | None) -> int:
        """Count what a scan reads, at most `max_count`; one read for each 1,000 counted."""
        request = types.RunAggregationQueryRequest.pb()(parent=self._parent(plan))
        self._fill_query(request.structured_aggregation_query.structured_query, plan, Span())
        return await self._counted(request, max_count)

    async def _counted(self, request: Proto, max_count: int | None) -> int:
        aggregation = request.structured_aggregation_query
        counting = aggregation.aggregations.add(alias=_COUNT_ALIAS).count
        counting.SetInParent()
        if max_count is not None:
            counting.up_to.value = max_count

        async def send() -> int:
            answers = await self._answers(
                self._client.run_aggregation_query, types.RunAggregationQueryRequest, request
            )
            found = [a.result.aggregate_fields for a in answers if a.HasField("result")]
            return int(found[-1][_COUNT_ALIAS].integer_value)

        with translated_errors(self.where):
            counted = await self.repeated(send, TRANSIENT)
        self.read_count += max(-(-counted // 1_000), 1)
        return counted

    async def partition_paths(self, plan: ScanPlan, max_count: int) -> list[str] | None:
        """
        Ask for paths that divide a collection group into at most `max_count` parts.

        Returns:
            Paths in no certain order, of other collections of the group among them; None where
            the server has no partition queries, as Google's emulator.
        """
        request = types.PartitionQueryRequest.pb()(
            parent=self._documents, partition_count=max_count - 1
        )
        # A partition query is for collection groups alone, from the database's root.
        self._fill_query(request.structured_query, replace(plan, parent="", is_group=True), None)

        async def send() -> list[str] | None:
            try:
                cursors = await self._client.partition_query(
                    types.PartitionQueryRequest.wrap(request),
                    retry=None,
                    timeout=CALL_TIMEOUT_S,
                    metadata=self._metadata,
                )
                bare = [types.Cursor.pb(cursor) async for cursor in cursors]
            except google_errors.MethodNotImplemented:
                return None
            return [self.path_of(cursor.values[0].reference_value) for cursor in bare]

        with translated_errors(self.where):
            return await self.repeated(send, TRANSIENT)

    async def _answers(self, call: Any, kind: Any, request: Proto) -> Iterable[Proto]:
        """Call what answers with a stream, and gather its bare messages."""
        stream = await call(
            kind.wrap(request), retry=None, timeout=CALL_TIMEOUT_S, metadata=self._metadata
        )
        return [type(message).pb(message) async for message in stream]

    def retry_deadline_s(self) -> float:
        """Give until when, by the monotonic clock, what begins now is repeated."""
        return self._clock.monotonic_s() + self._address.retry_within_s

    async def repeated(
        self,
        send: Callable[[], Awaitable[T]],
        errors: tuple[type[Exception], ...],
        *,
        deadline_s: float | None = None,
    ) -> T:
        """
        Send until it works, or fails otherwise, or the time for that is over.

        Args:
            send: called once at least.
            errors: after which it is called again.
            deadline_s: see `retry_deadline_s`; None: as of now.
        """
        if deadline_s is None:
            deadline_s = self.retry_deadline_s()
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(errors),
            wait=wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_LONGEST_S),
            stop=lambda _: self._clock.monotonic_s() >= deadline_s,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(send)

    def _query(self, plan: ScanPlan, span: Span, limit: int, read_time_us: int) -> Proto:
        request = types.RunQueryRequest.pb()(parent=self._parent(plan))
        fill_time(request.read_time, read_time_us)
        self._fill_query(request.structured_query, plan, span)
        request.structured_query.limit.value = limit
        return request

    def _parent(self, plan: ScanPlan) -> str:
        return f"{self._documents}/{plan.parent}" if plan.parent else self._documents

    def _parent_of(self, query: DocumentQuery) -> str:
        above = query.collection.rpartition("/")[0]
        return f"{self._documents}/{above}" if above else self._documents

    def _fill_query(self, query: Proto, plan: ScanPlan, span: Span | None) -> None:
        """Fill in which documents, by rising name; without a span all of the collection."""
        selector = query.from_.add()
        selector.collection_id = plan.collection_id
        selector.all_descendants = plan.is_group
        order = query.order_by.add()
        order.field.field_path = NAME_FIELD
        order.direction = types.StructuredQuery.Direction.ASCENDING
        if span is None:
            return
        query.start_at.before = span.after is None
        lowest = span.after or plan.lowest_path
        query.start_at.values.add().reference_value = self.name_of(lowest)
        if span.up_to is not None:
            query.end_at.before = False
            query.end_at.values.add().reference_value = self.name_of(span.up_to)

    def _fill_write(self, target: Proto, write: Write) -> None:
        name = self.name_of(write.path)
        if write.fields is None:
            target.delete = name
        else:
            target.update.name = name
            fill_fields(target.update.fields, write.fields)
        if write.precondition is not Precondition.NONE:
            target.current_document.exists = write.precondition is Precondition.EXISTS

    def document_of(self, found: Proto) -> Document:
        """Give a bare `Document` message as ours; SourceRefused when it is of a newer kind."""
        path = self.path_of(found.name)
        try:
            fields = fields_from_proto(found.fields)
        except ValueInvalid as exc:
            raise SourceRefused(f"{path} cannot be read by this version: {exc}") from exc
        return Document(
            path=path,
            fields=fields,
            create_time_us=us_from_proto(found.create_time),
            update_time_us=us_from_proto(found.update_time),
        )

    def name_of(self, path: str) -> str:
        """Give the resource name of a document's path."""
        return f"{self._documents}/{path}"

    def path_of(self, name: str) -> str:
        """Give the path in a document's resource name."""
        return name.removeprefix(f"{self._documents}/")


def _transport(emulator_host: str | None) -> FirestoreGrpcAsyncIOTransport:
    """Make the way to an emulator, without encryption, or to Google's Firestore."""
    if emulator_host is not None:
        channel = grpc.aio.insecure_channel(emulator_host, options=_CHANNEL_OPTIONS)
    else:
        channel = FirestoreGrpcAsyncIOTransport.create_channel(options=_CHANNEL_OPTIONS)
    return FirestoreGrpcAsyncIOTransport(channel=channel)
