"""What queries of every document store promise; see `DocumentStore.query`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from storemirror.event.change import Value
from storemirror.event.value import GeoPoint, Reference, encode_fields, encode_value
from storemirror.source.port import (
    Comparison,
    Condition,
    DocumentPage,
    DocumentQuery,
    DocumentStore,
    Write,
)

NAME = "projects/p/databases/(default)/documents/users/a"


def at(second: int) -> datetime:
    return datetime(2026, 1, 1, 0, 0, second, 1, tzinfo=UTC)


def where(field: str, comparison: str, value: object) -> Condition:
    return Condition(
        field=tuple(field.split(".")),
        comparison=Comparison(comparison),
        value=encode_value(value),
    )


def asked(collection: str, *conditions: Condition, limit: int = 100, **more: Any) -> DocumentQuery:
    if isinstance(more.get("order_by"), str):
        more["order_by"] = tuple(more["order_by"].split("."))
    return DocumentQuery(collection=collection, conditions=conditions, limit=limit, **more)


async def write(store: DocumentStore, documents: Mapping[str, Mapping[str, object]]) -> int:
    return await store.commit(
        [Write(path=path, fields=encode_fields(d)) for path, d in documents.items()]
    )


async def ids(store: DocumentStore, query: DocumentQuery) -> list[str]:
    page = await store.query(query)
    return [document.path.rpartition("/")[2] for document in page.documents]


async def all_ids(store: DocumentStore, query: DocumentQuery) -> list[str]:
    """Page through everything, one page after the other."""
    found: list[str] = []
    while True:
        page = await store.query(query)
        found.extend(document.path.rpartition("/")[2] for document in page.documents)
        if len(page.documents) < query.limit:
            return found
        last = page.documents[-1]
        value: Value | None = None
        if query.order_by is not None:
            [name] = query.order_by
            value = last.fields[name]
        query = DocumentQuery(
            collection=query.collection,
            conditions=query.conditions,
            order_by=query.order_by,
            is_falling=query.is_falling,
            limit=query.limit,
            after=(value, found[-1]),
        )


async def test_a_query_finds_whole_documents_of_one_collection(store: DocumentStore) -> None:
    """Other collections of the same id, deeper and beside, are other people's."""
    committed_us = await write(
        store,
        {
            "conversations/c1/messages/m1": {"n": 1},
            "conversations/c1/messages/m2": {"n": 2},
            "conversations/c1/messagesX/m3": {"n": 3},
            "conversations/c10/messages/m4": {"n": 4},
            "conversations/c1": {"n": 5},
            "conversations/c1/messages/m1/messages/m5": {"n": 6},
        },
    )
    page = await store.query(asked("conversations/c1/messages"))
    read = [await store.get(f"conversations/c1/messages/{m}") for m in ("m1", "m2")]
    assert list(page.documents) == [r.document for r in read]
    assert page.read_time_us > committed_us
    assert await ids(store, asked("conversations")) == ["c1"]
    assert await ids(store, asked("nothing")) == []


async def test_a_page_shows_what_was_written_before_it(store: DocumentStore) -> None:
    """All that was told to be written when it was asked for, and nothing from after its time."""
    times: dict[str, int] = {}

    async def write_many() -> None:
        for n in range(60):
            times[f"m{n:02}"] = await write(store, {f"chats/c/messages/m{n:02}": {"sentAt": at(n)}})

    async def look_often() -> None:
        for _ in range(15):
            query = asked("chats/c/messages", where("sentAt", ">=", at(0)), order_by="sentAt")
            before = set(times)
            page = await store.query(query)
            pages.append((before, page))

    pages: list[tuple[set[str], DocumentPage]] = []
    await asyncio.gather(write_many(), look_often())
    for before, page in pages:
        shown = {d.path.rpartition("/")[2] for d in page.documents}
        # Of what is being written meanwhile Google's emulator may leave out what has its time
        # already (seen); the embedded store does not, which is among its own tests.
        assert before <= shown <= {m for m, us in times.items() if us < page.read_time_us}


async def test_documents_are_found_by_an_element_of_an_array(store: DocumentStore) -> None:
    """An inbox: the conversations in which somebody takes part."""
    await write(
        store,
        {
            "chats/c1": {"who": ["a", "b"]},
            "chats/c2": {"who": ["b", "c"]},
            "chats/c3": {"who": ["c", "a", "a"]},
            "chats/c4": {"who": "a"},
            "chats/c5": {"who": {"a": True}},
            "chats/c6": {"who": [{"x": "a"}]},
            "chats/c7": {"other": ["a"]},
            "chats/c8": {"deep": {"who": ["a", 3, True]}},
            "groups/c9": {"who": ["a"]},
        },
    )
    assert await ids(store, asked("chats", where("who", "array-contains", "a"))) == ["c1", "c3"]
    assert await ids(store, asked("chats", where("deep.who", "array-contains", "a"))) == ["c8"]
    assert await ids(store, asked("chats", where("deep.who", "array-contains", 3))) == ["c8"]
    assert await ids(store, asked("chats", where("who", "array-contains", "nobody"))) == []


async def test_what_was_written_over_or_deleted_is_not_found(store: DocumentStore) -> None:
    """Whoever leaves a conversation has it in the inbox no longer."""
    await write(store, {f"chats/c{n}": {"who": ["a", "b"]} for n in range(3)})
    await write(store, {"chats/c1": {"who": ["b"]}})
    await store.commit([Write(path="chats/c2", fields=None)])
    assert await ids(store, asked("chats", where("who", "array-contains", "a"))) == ["c0"]
    assert await ids(store, asked("chats", where("who", "array-contains", "b"))) == ["c0", "c1"]


VALUES = {
    "null": None,
    "no": False,
    "yes": True,
    "nan": float("nan"),
    "minus": -1.5,
    "zero": 0,
    "two": 2,
    "twoPointFive": 2.5,
    "large": 2**53 + 1,
    "early": at(1),
    "late": at(2),
    "empty": "",
    "a": "a",
    "nul": "a\0b",
    "prose": "two words " * 20,
    "umlaut": "ä",
    "bytes": b"\x00",
    "moreBytes": b"\x01",
    "reference": Reference(NAME),
    "place": GeoPoint(1.0, 2.0),
    "placeBeside": GeoPoint(1.0, 3.0),
    "array": [1],
    "longerArray": [1, 2],
    "map": {"a": 1},
    "otherMap": {"b": 0},
}


@pytest.mark.parametrize("is_falling", [False, True])
async def test_values_of_all_types_have_firestores_order(
    store: DocumentStore, is_falling: bool
) -> None:
    """Both stores page alike, whatever an app has put into the field."""
    await write(store, {f"things/{name}": {"v": value} for name, value in VALUES.items()})
    await write(store, {"things/without": {"other": 1}})
    expected = list(reversed(VALUES)) if is_falling else list(VALUES)
    query = asked("things", order_by="v", is_falling=is_falling, limit=4)
    assert await all_ids(store, query) == expected


@pytest.mark.parametrize(
    ("comparison", "value", "expected"),
    [
        ("==", "a", ["a"]),
        ("==", "two words " * 20, ["prose"]),
        ("==", "a\0b", ["nul"]),
        ("==", 2.0, ["two"]),
        ("==", None, ["null"]),
        ("==", float("nan"), ["nan"]),
        ("==", at(2), ["late"]),
        ("==", [1, 2], ["longerArray"]),
        ("==", {"a": 1}, ["map"]),
        ("<", 2, ["minus", "zero"]),
        ("<=", 2, ["minus", "two", "zero"]),
        (">", 2, ["large", "twoPointFive"]),
        (">=", at(2), ["late"]),
        ("<", at(2), ["early"]),
        (">", at(1), ["late"]),
        ("<=", at(1), ["early"]),
        (">", "a", ["nul", "prose", "umlaut"]),
        ("!=", "a", sorted(set(VALUES) - {"a", "null"})),
        ("!=", None, sorted(set(VALUES) - {"null"})),
        ("!=", at(1), sorted(set(VALUES) - {"early", "null"})),
    ],
)
async def test_a_comparison_finds_what_firestore_finds(
    store: DocumentStore, comparison: str, value: object, expected: list[str]
) -> None:
    """Ranges find values of their own type alone; what is no value is never found."""
    await write(store, {f"things/{name}": {"v": v} for name, v in VALUES.items()})
    await write(store, {"things/without": {"other": 1}})
    condition = where("v", comparison, value)
    order_by = "v" if condition.comparison.is_inequality else None
    found = await ids(store, asked("things", condition, order_by=order_by))
    assert sorted(found) == expected
    assert await store.count_of(asked("things", condition)) == len(expected)


async def test_all_conditions_must_hold(store: DocumentStore) -> None:
    """Also those on a field that was asked about before."""
    await write(store, {f"things/t{n}": {"n": at(n), "kind": "ab"[n % 2]} for n in range(10)})
    query = asked(
        "things",
        where("n", ">", at(1)),
        where("n", "<=", at(6)),
        where("kind", "==", "a"),
        order_by="n",
        is_falling=True,
    )
    assert await ids(store, query) == ["t6", "t4", "t2"]


@pytest.mark.parametrize("is_falling", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_pages_follow_each_other_without_gap_or_overlap(
    store: DocumentStore, is_falling: bool, limit: int
) -> None:
    """Equal times are told apart by the document's id, in the order of its bytes."""
    odd = ["Z", "a", "a!", "aa", "é", "\uff5a", "\U0001d54f"]
    documents = {f"chats/c/messages/{i}": {"sentAt": at(n % 3)} for n, i in enumerate(odd)}
    await write(store, documents)
    in_order = sorted((n % 3, i.encode()) for n, i in enumerate(odd))
    if is_falling:
        in_order.reverse()
    query = asked(
        "chats/c/messages",
        where("sentAt", ">=", at(0)),
        order_by="sentAt",
        is_falling=is_falling,
        limit=limit,
    )
    assert await all_ids(store, query) == [i.decode() for _, i in in_order]


async def test_pages_by_id_follow_each_other(store: DocumentStore) -> None:
    """An inbox of many conversations is read page by page."""
    await write(store, {f"chats/c{n:02}": {"who": ["a"] if n % 3 else ["b"]} for n in range(20)})
    query = asked("chats", where("who", "array-contains", "a"), limit=4)
    assert await all_ids(store, query) == [f"c{n:02}" for n in range(20) if n % 3]
    assert await all_ids(store, asked("chats", limit=7)) == [f"c{n:02}" for n in range(20)]


async def test_a_page_may_begin_where_no_document_is(store: DocumentStore) -> None:
    """A message that a client has seen may be deleted since."""
    await write(store, {f"chats/c/messages/m{n}": {"sentAt": at(2 * n)} for n in range(5)})
    query = asked(
        "chats/c/messages",
        where("sentAt", ">=", at(0)),
        order_by="sentAt",
        after=(encode_value(at(3)), "m9"),
    )
    assert await ids(store, query) == ["m2", "m3", "m4"]
    behind_id = asked("chats/c/messages", after=(None, "m1x"))
    assert await ids(store, behind_id) == ["m2", "m3", "m4"]


async def test_a_field_in_a_map_orders_and_is_found_by_any_name(store: DocumentStore) -> None:
    """A map of users has user ids for names of fields."""
    odd = "u.1`\\ é"
    await write(
        store,
        {
            "chats/c1": {"who": {odd: at(2)}},
            "chats/c2": {"who": {odd: at(1), "other": 1}},
            "chats/c3": {"who": {"other": 1}},
            "chats/c4": {"who": [odd]},
            "chats/c5": {"who": {odd: None}},
        },
    )
    query = DocumentQuery(collection="chats", order_by=("who", odd), limit=10)
    assert await ids(store, query) == ["c5", "c2", "c1"]


async def test_a_count_stops_at_its_limit(store: DocumentStore) -> None:
    """What is more than 99 is told as 99+, and costs no more to count."""
    await write(
        store,
        {
            f"chats/c/messages/m{n}": {
                "sentAt": at(n),
                "senderId": "ab"[n % 2],
                "body": "hello you",
            }
            for n in range(10)
        },
    )
    await write(store, {"chats/c/messages/odd": {"sentAt": "yesterday", "senderId": "a"}})
    later, others = where("sentAt", ">", at(3)), where("senderId", "!=", "b")
    for limit, expected in ((100, 3), (3, 3), (2, 2), (1, 1)):
        assert await store.count_of(asked("chats/c/messages", later, others, limit=limit)) == (
            expected
        )
    assert await store.count_of(asked("chats/c/messages")) == 11
    assert await store.count_of(asked("chats/none/messages", later, others)) == 0


@pytest.mark.parametrize("collection", ["", "chats/c", "chats//messages", "/chats"])
async def test_what_is_no_collections_path_is_refused(
    store: DocumentStore, collection: str
) -> None:
    """A mistake of the caller, before anything is sent."""
    with pytest.raises(ValueError, match=r"path|segment"):
        await store.query(asked(collection))
    with pytest.raises(ValueError, match=r"path|segment"):
        await store.count_of(asked(collection))


async def test_an_inequality_on_another_field_than_the_order_is_refused(
    store: DocumentStore,
) -> None:
    """Firestore would put the documents into that field's order instead."""
    with pytest.raises(ValueError, match="order"):
        await store.query(asked("things", where("v", "<", 1), order_by="w"))
    with pytest.raises(ValueError, match="order"):
        await store.query(asked("things", where("v", "!=", 1)))
    with pytest.raises(ValueError, match="behind"):
        await store.count_of(asked("things", after=(None, "t1")))


def test_a_query_that_no_store_could_answer_cannot_be_made() -> None:
    """A place needs a value where the order is by a field, and none where it is by id."""
    with pytest.raises(ValueError, match="limit"):
        asked("things", limit=0)
    with pytest.raises(ValueError, match="after"):
        asked("things", order_by="v", after=(None, "t1"))
    with pytest.raises(ValueError, match="after"):
        asked("things", after=(encode_value(1), "t1"))
