"""What outages and refusals do to Firestore's transactions and queries, seen on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc  # type: ignore[import-untyped]
import pytest
from google.api_core import exceptions as google_errors

from storemirror.errors import SourceRefused, SourceUnavailable
from storemirror.event.value import encode_fields
from storemirror.source.firestore import (
    FirestoreDocumentStore,
)
from storemirror.source.port import (
    Decision,
    DocumentQuery,
    Precondition,
    PreconditionFailed,
    TransactionBody,
    TransactionReads,
    Write,
)
from tests.contract.source.conftest import opened
from tests.support.faulty_firestore import Fault, FaultyFirestore

Code = grpc.StatusCode
CONTENTION = Fault(code=Code.ABORTED, words="Too much contention on these documents.")
OUTAGE = Fault(code=Code.UNAVAILABLE, words="connection refused")
ATTEMPT = ["BeginTransaction", "BatchGetDocuments", "Commit"]
QUERY = DocumentQuery(collection="users", limit=10)


def a_write(path: str, precondition: Precondition = Precondition.NONE) -> Write:
    return Write(path=path, fields=encode_fields({"n": 1}), precondition=precondition)


async def creating(reads: TransactionReads) -> Decision[bool]:
    is_there = await reads.get("users/a") is not None
    return Decision(writes=[a_write("users/a", Precondition.ABSENT)], result=is_there)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([CONTENTION], ["BeginTransaction", *ATTEMPT]),
        ([OUTAGE], ["BeginTransaction", *ATTEMPT]),
        ([None, CONTENTION], [*ATTEMPT[:2], *ATTEMPT]),
        ([None, OUTAGE], [*ATTEMPT[:2], *ATTEMPT]),
        ([None, None, CONTENTION], [*ATTEMPT, *ATTEMPT]),
        ([None, None, CONTENTION, CONTENTION], [*ATTEMPT, "BeginTransaction", *ATTEMPT]),
    ],
    ids=["begin lost", "begin out", "read lost", "read out", "commit lost", "lost twice"],
)
async def test_a_transaction_that_wrote_nothing_is_begun_again(
    patient: FirestoreDocumentStore,
    faulty: FaultyFirestore,
    faults: list[Fault | None],
    expected: list[str],
) -> None:
    """From the start, with reads of its own: what the lost one had read may have changed."""
    faulty.faults = list(faults)
    done = await patient.transact(creating)
    assert (done.result, done.commit_time_us is not None) == (False, True)
    assert [call for call in faulty.calls if call != "Rollback"] == expected


async def test_a_commit_of_unknown_end_is_not_repeated(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """It may have been written: a message would be sent twice."""
    cut = Fault(code=Code.UNAVAILABLE, words="cut", after_count=1)
    faulty.faults = [None, None, cut]
    with pytest.raises(SourceUnavailable, match="cut"):
        await patient.transact(creating)
    assert faulty.calls.count("Commit") == 1
    assert (await patient.get("users/a")).document is not None


async def test_contention_that_lasts_is_an_unavailable_source(
    impatient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """The message has Firestore's own words."""
    faulty.lasting, faulty.lasting_method = CONTENTION, "Commit"
    with pytest.raises(SourceUnavailable, match="contention"):
        await impatient.transact(creating)


async def test_an_outage_that_lasts_is_an_unavailable_source(
    impatient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """The caller can tell that nothing was written only where it knows its commit was not sent."""
    faulty.lasting = OUTAGE
    with pytest.raises(SourceUnavailable, match="reaches"):
        await impatient.transact(creating)
    with pytest.raises(SourceUnavailable, match="reaches"):
        await impatient.query(QUERY)
    with pytest.raises(SourceUnavailable, match="reaches"):
        await impatient.count_of(QUERY)


async def test_a_transaction_given_up_is_rolled_back(
    faulty: FaultyFirestore, firestore_project: str
) -> None:
    """Else it would lock what it has read for a minute, and every writer would wait for it."""
    called_off = asyncio.Event()

    async def raising(reads: TransactionReads) -> Decision[None]:
        await reads.get("users/a")
        raise LookupError

    async def silent(reads: TransactionReads) -> Decision[None]:
        await reads.get("users/a")
        return Decision(result=None)

    async def refused(reads: TransactionReads) -> Decision[None]:
        await reads.get("users/a")
        return Decision(writes=[a_write("users/b", Precondition.ABSENT)], result=None)

    async def endless(reads: TransactionReads) -> Decision[None]:
        await reads.get("users/a")
        called_off.set()
        return await asyncio.Future()

    async with opened(faulty.host, firestore_project, retry_within_s=60.0) as store:
        await store.commit([a_write("users/b")])
        with pytest.raises(LookupError):
            await store.transact(raising)
        await store.transact(silent)
        with pytest.raises(PreconditionFailed):
            await store.transact(refused)
        task = asyncio.create_task(store.transact(endless))
        await called_off.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert faulty.calls.count("Rollback") == 4


async def test_a_rollback_that_fails_is_nobodys_error(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """Firestore ends the transaction by itself; the answer is there already."""
    faulty.lasting, faulty.lasting_method = OUTAGE, "Rollback"

    async def silent(reads: TransactionReads) -> Decision[str]:
        await reads.get("users/a")
        return Decision(result="said")

    assert (await patient.transact(silent)).result == "said"


@pytest.mark.parametrize("fault", [OUTAGE, CONTENTION], ids=["out", "aborted"])
async def test_a_query_outlives_an_outage(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore, fault: Fault
) -> None:
    """Reads are repeated, as all of them are."""
    await patient.commit([a_write(f"users/u{n}") for n in range(3)])
    cut = Fault(code=fault.code, words=fault.words, after_count=1)
    faulty.faults = [fault, cut]
    page = await patient.query(QUERY)
    assert [document.path for document in page.documents] == [f"users/u{n}" for n in range(3)]
    faulty.faults = [fault]
    assert await patient.count_of(QUERY) == 3


async def test_an_index_that_is_not_there_is_a_refusal_in_firestores_own_words(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """They carry the address of the page that makes it."""
    words = "The query requires an index. You can create it here: https://console.example/i"
    faulty.lasting = Fault(code=Code.FAILED_PRECONDITION, words=words)
    with pytest.raises(SourceRefused, match=r"console\.example"):
        await patient.query(QUERY)
    with pytest.raises(SourceRefused, match=r"console\.example"):
        await patient.count_of(QUERY)


async def test_what_is_paid_for_is_counted(firestore: FirestoreDocumentStore) -> None:
    """One read a document found and one at least; one for each 1,000 counted."""
    await firestore.commit([a_write(f"users/u{n}") for n in range(3)])
    begin = firestore.read_count
    await firestore.query(QUERY)
    await firestore.query(DocumentQuery(collection="nobody", limit=10))
    assert firestore.read_count - begin == 3 + 1
    await firestore.count_of(QUERY)
    assert firestore.read_count - begin == 5
    await firestore.transact(creating)
    assert firestore.read_count - begin == 6


async def test_a_collection_that_firestore_keeps_for_itself_is_empty(
    firestore: FirestoreDocumentStore,
) -> None:
    """It refuses to look there; a client may name anything."""
    for collection in ("users/../blocks", "users/__x__/blocks"):
        query = DocumentQuery(collection=collection, limit=10)
        page = await firestore.query(query)
        assert page.documents == ()
        assert page.read_time_us > 0
        assert await firestore.count_of(query) == 0

    async def body(reads: TransactionReads) -> Decision[bool]:
        return Decision(result=await reads.get("users/..") is None)

    assert (await firestore.transact(body)).result


async def test_a_transaction_that_waits_to_run_again_holds_up_no_other(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """One hot document would stop every writer that lost once, on any other (issue 7)."""
    is_over, is_fighting = asyncio.Event(), asyncio.Event()
    runs = {"users/hot": 0, "users/calm": 0}

    def losing(path: str, until: Callable[[], bool]) -> TransactionBody[None]:
        async def body(reads: TransactionReads) -> Decision[None]:
            await reads.get(path)
            runs[path] += 1
            if runs["users/hot"] > 1:
                is_fighting.set()
            if not until():
                raise google_errors.Aborted("Too much contention on these documents.")  # type: ignore[no-untyped-call]
            return Decision(writes=[a_write(path)], result=None)

        return body

    hot = asyncio.create_task(patient.transact(losing("users/hot", is_over.is_set)))
    await is_fighting.wait()
    await patient.transact(losing("users/calm", lambda: runs["users/calm"] > 1))
    assert not hot.done()
    is_over.set()
    await hot
    assert (runs["users/calm"], runs["users/hot"] > 1) == (2, True)
