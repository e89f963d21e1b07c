"""What Firestore's refusals and outages become, seen on the wire."""

from __future__ import annotations

import re
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest

from storemirror.clock import SystemClock
from storemirror.errors import (
    ReadTimeRefused,
    SourceRefused,
    SourceUnavailable,
    StoreMirrorError,
)
from storemirror.event.value import encode_fields
from storemirror.source.budget import ReadBudget
from storemirror.source.firestore import (
    FirestoreAddress,
    FirestoreDocumentStore,
    open_firestore,
)
from storemirror.source.port import Precondition, Write
from tests.contract.source.conftest import opened
from tests.support.faulty_firestore import Fault, FaultyFirestore

Code = grpc.StatusCode
USER = ("users", "{userId}")


def a_write(path: str, precondition: Precondition = Precondition.NONE) -> Write:
    return Write(path=path, fields=encode_fields({"n": 1}), precondition=precondition)


async def scanned(store: FirestoreDocumentStore, page_size: int) -> list[str]:
    async with store.pinned() as view:
        pages = view.scan(USER, page_size=page_size)
        return [document.path async for page in pages for document in page.documents]


REFUSALS = [
    (Code.PERMISSION_DENIED, "Missing or insufficient permissions.", "roles/datastore.viewer"),
    (Code.UNAUTHENTICATED, "Request had invalid credentials.", "credentials"),
    (Code.NOT_FOUND, "The database (default) does not exist for project p", "does not exist"),
    (Code.FAILED_PRECONDITION, "The query requires an index.", "requires an index"),
    (Code.UNIMPLEMENTED, "Datastore Mode", "Datastore Mode"),
]
TOO_OLD = [
    (Code.FAILED_PRECONDITION, "The requested snapshot version is too old.", "one hour"),
    (Code.INVALID_ARGUMENT, "read_time must be within the past hour", "one hour"),
]
OUTAGES = [
    (Code.UNAVAILABLE, "connection refused", "reaches"),
    (Code.DEADLINE_EXCEEDED, "too slow", "too slow"),
    (Code.RESOURCE_EXHAUSTED, "Quota exceeded.", "quota is used up"),
    (Code.ABORTED, "Too much contention on these documents.", "contention"),
    (Code.INTERNAL, "oops", "oops"),
    (Code.UNKNOWN, "oops", "oops"),
    (Code.CANCELLED, "oops", "oops"),
]


@pytest.mark.parametrize(
    ("code", "words", "said", "error"),
    [
        *((*case, SourceRefused) for case in REFUSALS),
        *((*case, ReadTimeRefused) for case in TOO_OLD),
        *((*case, SourceUnavailable) for case in OUTAGES),
    ],
)
async def test_every_status_becomes_an_error_with_clear_words(
    impatient: FirestoreDocumentStore,
    faulty: FaultyFirestore,
    code: grpc.StatusCode,
    words: str,
    said: str,
    error: type[StoreMirrorError],
) -> None:
    """The operator reads what is wrong and what mends it; the writer knows whether to retry."""
    faulty.lasting = Fault(code=code, words=words)
    for call in (impatient.get("users/a"), impatient.commit([a_write("users/a")])):
        with pytest.raises(error, match=re.escape(said)) as caught:
            await call
        assert impatient._calls.where in str(caught.value)
        assert words in str(caught.value)
    with pytest.raises(error, match=re.escape(said)) as caught:
        await scanned(impatient, 300)
    assert type(caught.value) is error


@pytest.mark.parametrize(("code", "words"), [(c, w) for c, w, _ in OUTAGES])
async def test_a_scan_outlives_an_outage_and_gives_nothing_twice(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore, code: grpc.StatusCode, words: str
) -> None:
    """An hour's scan must not be lost to one page; the pinned moment makes repeating exact."""
    paths = [f"users/u{n}" for n in range(10)]
    await patient.commit([a_write(path) for path in paths])
    cut = [Fault(code=code, words=words, after_count=n) for n in (0, 2, 0, 1)]
    async with patient.pinned() as view:
        faulty.faults = [*cut]
        pages = view.scan(USER, page_size=4)
        found = [document.path async for page in pages for document in page.documents]
    assert found == paths
    assert faulty.calls.count("RunQuery") == 1 + 4


async def test_a_scan_is_one_query_and_with_a_limit_on_reads_one_a_page(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """Each costs the emulator a look at all; a query that may read on would pass the limit."""
    await patient.commit([a_write(f"users/u{n}") for n in range(10)])
    for budget, query_count in ((ReadBudget(), 1), (ReadBudget(100), 3)):
        faulty.calls.clear()
        async with patient.pinned() as view:
            pages = [page async for page in view.scan(USER, page_size=4, budget=budget)]
        assert [len(page.documents) for page in pages] == [4, 4, 2]
        assert faulty.calls.count("RunQuery") == query_count
        assert budget.spent_count == 10


async def test_a_commit_that_lost_is_repeated(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """Contention writes nothing, and is daily business in a busy conversation."""
    faulty.faults = [Fault(code=Code.ABORTED, words="contention")] * 3
    await patient.commit([a_write("users/a", Precondition.ABSENT)])
    assert faulty.calls == ["Commit"] * 4


async def test_a_commit_of_unknown_end_is_not_repeated(
    patient: FirestoreDocumentStore, faulty: FaultyFirestore
) -> None:
    """It may have been written: repeating would fail its own precondition."""
    faulty.faults = [Fault(code=Code.UNAVAILABLE, words="cut", after_count=1)]
    with pytest.raises(SourceUnavailable):
        await patient.commit([a_write("users/a", Precondition.ABSENT)])
    assert faulty.calls == ["Commit"]
    assert (await patient.get("users/a")).document is not None


async def test_no_server_at_all_is_an_unavailable_source(
    firestore_project: str, tmp_path: Path
) -> None:
    """The message names the database and says to look at the way there."""
    async with opened("127.0.0.1:1", firestore_project, retry_within_s=0.0) as store:
        with pytest.raises(SourceUnavailable, match=f"{firestore_project}.*reaches"):
            await store.get("users/a")


def test_no_credentials_are_a_refusal(
    firestore_project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Said at the start, not at the first call."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(SourceRefused, match="credentials"):
        open_firestore(FirestoreAddress(project=firestore_project), SystemClock())
