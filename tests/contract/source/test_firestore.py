"""What the Firestore adapter does beside its port: values, names, reads that are paid for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core.datetime_helpers import DatetimeWithNanoseconds
from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1 import GeoPoint as GoogleGeoPoint
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.vector import Vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storemirror.errors import SourceRefused
from storemirror.event.change import Fields
from storemirror.event.digest import digest_of
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.source import firestore_scan
from storemirror.source.firestore import FirestoreDocumentStore
from storemirror.source.port import DocumentStore, Precondition, PreconditionFailed, Write

MESSAGE = ("conversations", "{conversationId}", "messages", "{messageId}")
NAME = "projects/p/databases/(default)/documents/users/a"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
#: Firestore keeps names between two pairs of underscores for itself.
FIELD_NAME = TEXT.filter(lambda name: name and not (name[:2] == "__" and name[-2:] == "__"))
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    TEXT,
    st.binary(max_size=20),
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC)),  # noqa: DTZ001
    st.builds(Reference, st.sampled_from([NAME, NAME + "/b/c", NAME + "-é"])),
    st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180)),
)


def _maps(inner: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(FIELD_NAME, inner, max_size=3)


#: Firestore has no arrays in arrays.
ELEMENT = st.recursive(
    SCALAR,
    lambda inner: _maps(
        inner | st.lists(inner.filter(lambda v: not isinstance(v, list)), max_size=3)
    ),
    max_leaves=6,
)
DOCUMENT = st.dictionaries(FIELD_NAME, ELEMENT | st.lists(ELEMENT, max_size=3), max_size=5)


def native(value: object, client: AsyncClient) -> Any:
    """Give a value in the types of Google's client."""
    match value:
        case Reference(name=name):
            return client.document(name.split("/documents/")[1])
        case GeoPoint():
            return GoogleGeoPoint(value.latitude, value.longitude)
        case Mapping():
            return {name: native(item, client) for name, item in value.items()}
        case list():
            return [native(item, client) for item in value]
    return value


@pytest.fixture
def client(
    emulator_host: str, firestore_project: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncClient:
    """Google's own client, as an app uses it."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
    return AsyncClient(project=firestore_project)


async def fields_at(store: DocumentStore, path: str) -> Fields:
    read = await store.get(path)
    assert read.document is not None
    return read.document.fields


async def paths_of(
    store: DocumentStore,
    pattern: tuple[str, ...],
    page_size: int = 300,
    max_count: int | None = None,
) -> list[str]:
    async with store.pinned() as view:
        pages = view.scan(pattern, page_size=page_size, max_count=max_count)
        return [document.path async for page in pages for document in page.documents]


def a_write(path: str, **document: object) -> Write:
    return Write(path=path, fields=encode_fields(document))


def test_the_firestore_store_is_a_document_store(firestore: FirestoreDocumentStore) -> None:
    """The type checker holds the adapter to its port here."""
    port: DocumentStore = firestore
    assert port is firestore


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=DOCUMENT)
async def test_every_value_comes_back_bit_for_bit(
    firestore: FirestoreDocumentStore, document: dict[str, object]
) -> None:
    """What Firestore holds is what the event says: its digest is compared with the row's."""
    fields = encode_fields(document)
    await firestore.commit([Write(path="users/a", fields=fields)])
    found = await fields_at(firestore, "users/a")
    assert digest_of(found) == digest_of(fields)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=DOCUMENT)
async def test_what_an_app_writes_is_what_our_encoding_says(
    firestore: FirestoreDocumentStore,
    client: AsyncClient,
    firestore_project: str,
    document: dict[str, object],
) -> None:
    """A dual write makes its event before the trigger does: both must be the same to the bit."""
    await client.document("users/a").set(native(document, client))
    found = await fields_at(firestore, "users/a")
    expected = encode_fields(_in_project(document, firestore_project))
    assert digest_of(found) == digest_of(expected)


def _in_project(value: Any, project: str) -> Any:
    """Point references into the project that Google's client writes them for."""
    match value:
        case Reference(name=name):
            return Reference(name.replace("projects/p/", f"projects/{project}/"))
        case dict():
            return {name: _in_project(item, project) for name, item in value.items()}
        case list():
            return [_in_project(item, project) for item in value]
    return value


async def test_a_vector_is_a_map_of_its_numbers(
    firestore: FirestoreDocumentStore, client: AsyncClient
) -> None:
    """Firestore has no kind of value of its own for it; the whole of it is kept."""
    await client.document("users/a").set({"v": Vector([1.0, -0.0, 0.1])})
    assert await fields_at(firestore, "users/a") == encode_fields(
        {"v": {"__type__": "__vector__", "value": [1.0, -0.0, 0.1]}}
    )


async def test_times_are_cut_to_microseconds_by_firestore_itself(
    firestore: FirestoreDocumentStore, client: AsyncClient
) -> None:
    """Of nanoseconds nothing is stored, so that nothing is lost on our way."""
    moment = DatetimeWithNanoseconds(  # type: ignore[no-untyped-call]
        2026, 3, 1, nanosecond=123456789, tzinfo=UTC
    )
    await client.document("users/a").set({"at": moment})
    assert await fields_at(firestore, "users/a") == {
        "at": {"timestampValue": "2026-03-01T00:00:00.123456Z"}
    }


async def test_a_document_of_20_levels_and_one_of_almost_a_mebibyte_come_back(
    firestore: FirestoreDocumentStore,
) -> None:
    """Firestore's own limits are the only ones."""
    deep: dict[str, object] = {"end": True}
    for _ in range(18):
        deep = {"a": deep}
    writes = [a_write("users/deep", a=deep), a_write("users/big", text="x" * 1_048_400)]
    await firestore.commit(writes)
    for write in writes:
        assert await fields_at(firestore, write.path) == write.fields


async def test_a_document_above_firestores_limit_is_refused(
    firestore: FirestoreDocumentStore,
) -> None:
    """The words are Firestore's; repeating it would not help."""
    with pytest.raises(SourceRefused, match="longer than"):
        await firestore.commit([a_write("users/big", text="x" * 1_100_000)])


def test_a_kind_of_value_that_nobody_knows_yet_names_its_document(
    firestore: FirestoreDocumentStore,
) -> None:
    """Firestore may learn new ones; to leave such a field out would be a loss without a trace."""
    newer = types.Document(name="x/y", fields={"f": types.Value(field_reference_value="other")})
    with pytest.raises(SourceRefused, match=r"x/y .*f: no value of a document"):
        firestore._calls.document_of(types.Document.pb(newer))


async def test_a_commit_writes_a_document_once(firestore: FirestoreDocumentStore) -> None:
    """Two changes of one document at one time would have one version."""
    with pytest.raises(ValueError, match="once"):
        await firestore.commit([a_write("users/a", n=1), a_write("users/a", n=2)])


@pytest.mark.parametrize("document_id", [".", "..", "__x__"])
async def test_a_name_that_firestore_keeps_for_itself_is_read_as_absent(
    firestore: FirestoreDocumentStore, document_id: str
) -> None:
    """A row written by hand may have such a key; the check must be able to look."""
    committed_us = await firestore.commit([a_write("users/a", n=1)])
    read = await firestore.get(f"users/{document_id}")
    assert read.document is None
    assert read.read_time_us > committed_us


async def test_a_number_as_id_is_read_alone_and_refused_in_a_scan(
    firestore: FirestoreDocumentStore,
) -> None:
    """Firestore gives it before all others, and the check merges by bytes."""
    await firestore.commit([a_write("users/__id7__", n=1), a_write("users/A", n=1)])
    assert await fields_at(firestore, "users/__id7__") == encode_fields({"n": 1})
    with pytest.raises(SourceRefused, match=r"users/__id7__.*Datastore"):
        await paths_of(firestore, ("users", "{userId}"))


STRANGERS = (
    "albums/a1/messages/m1",
    "albums/a2/messages/m1",
    "conversations/c1/messages/m1/replies/r1/messages/m1",
    "conversations/c1/threads/t1/messages/m1",
    "users/u1/messages/m1",
    "users/u1/conversations/c1/messages/m1",
)


@pytest.mark.parametrize("page_size", [1, 2, 300])
@pytest.mark.parametrize("max_count", [1, 2, 3, 300])
async def test_collections_of_the_same_id_elsewhere_are_left_out(
    firestore: FirestoreDocumentStore, page_size: int, max_count: int
) -> None:
    """A collection group is every `messages` there is; only those of conversations are mirrored."""
    wanted = [f"conversations/c{n}/messages/m1" for n in range(3)]
    await firestore.commit([a_write(path, n=1) for path in (*STRANGERS, *wanted)])
    found = await paths_of(firestore, MESSAGE, page_size=page_size, max_count=max_count)
    assert found == wanted[:max_count]


async def test_strangers_before_and_behind_are_not_paid_for(
    firestore: FirestoreDocumentStore,
) -> None:
    """Each document read costs money, wanted or not."""
    albums = [f"albums/a{n}/messages/m" for n in range(50)]
    users = [f"users/u{n}/messages/m" for n in range(50)]
    wanted = [f"conversations/c{n}/messages/m" for n in range(5)]
    await firestore.commit([a_write(path, n=1) for path in (*albums, *wanted, *users)])
    before = firestore.read_count
    assert await paths_of(firestore, MESSAGE, page_size=300) == wanted
    pin_and_first_stranger = 2
    assert firestore.read_count - before == len(wanted) + pin_and_first_stranger


async def test_a_fixed_id_narrows_a_collection_group(firestore: FirestoreDocumentStore) -> None:
    """One tenant's documents are read without those of all the others."""
    wanted = [f"tenants/acme/users/{u}/posts/{p}" for u in "ab" for p in "12"]
    others = [f"tenants/{t}/users/a/posts/1" for t in ("aaa", "other")]
    others += [
        "tenants/acme/albums/a/posts/1",
        "tenants/acme/users/a",
        "tenants/acme/zoos/z/posts/1",
    ]
    await firestore.commit([a_write(path, n=1) for path in (*others, *wanted)])
    before = firestore.read_count
    pattern = ("tenants", "acme", "users", "{userId}", "posts", "{postId}")
    assert await paths_of(firestore, pattern) == wanted
    pin_and_first_stranger = 2
    assert firestore.read_count - before == len(wanted) + pin_and_first_stranger


async def test_a_pattern_without_parameters_is_one_document(
    firestore: FirestoreDocumentStore,
) -> None:
    """Settings may lie in a document of their own."""
    await firestore.commit([a_write(f"settings/{name}", n=1) for name in ("a", "main", "z")])
    assert await paths_of(firestore, ("settings", "main"), page_size=1) == ["settings/main"]


async def test_an_empty_collection_costs_two_reads(firestore: FirestoreDocumentStore) -> None:
    """One for the moment, and a query costs one at least."""
    assert await paths_of(firestore, MESSAGE) == []
    assert firestore.read_count == 2


async def test_the_write_that_failed_is_found_among_several(
    firestore: FirestoreDocumentStore,
) -> None:
    """Firestore tells it only in words, which are others in the emulator."""
    await firestore.commit([a_write("users/b", n=1)])
    fields = encode_fields({"n": 2})
    writes = [
        Write(path=f"users/{u}", fields=fields, precondition=Precondition.ABSENT) for u in "abc"
    ]
    with pytest.raises(PreconditionFailed) as caught:
        await firestore.commit(writes)
    assert caught.value.path == "users/b"


async def test_a_page_of_large_documents_is_cut_short(
    firestore: FirestoreDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 documents of 1 MiB would be more than a worker may use; nothing is left out for it."""
    monkeypatch.setattr(firestore_scan, "PAGE_MAX_BYTES", 25_000)
    paths = [f"users/u{n}" for n in range(10)]
    await firestore.commit([a_write(path, text="x" * 10_000) for path in paths])
    async with firestore.pinned() as view:
        pages = [page async for page in view.scan(("users", "{userId}"))]
    assert [len(page.documents) for page in pages] == [3, 3, 3, 1]
    assert [d.path for page in pages for d in page.documents] == paths
