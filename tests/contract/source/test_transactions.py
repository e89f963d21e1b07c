"""What a transaction of every document store promises; see `DocumentStore.transact`."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.event.change import Fields
from storemirror.event.value import encode_fields
from storemirror.source.port import (
    Decision,
    DocumentStore,
    Precondition,
    PreconditionFailed,
    TransactionBody,
    TransactionReads,
    Write,
)


def numbered(number: int) -> Fields:
    return encode_fields({"n": number})


def a_write(path: str, number: int = 1, precondition: Precondition = Precondition.NONE) -> Write:
    return Write(path=path, fields=numbered(number), precondition=precondition)


async def number_at(reads: TransactionReads, path: str) -> int:
    document = await reads.get(path)
    return 0 if document is None else int(str(document.fields["n"]["integerValue"]))


async def incremented(reads: TransactionReads) -> Decision[int]:
    number = await number_at(reads, "users/a") + 1
    return Decision(writes=[a_write("users/a", number)], result=number)


async def stored(store: DocumentStore, path: str) -> Fields | None:
    document = (await store.get(path)).document
    return None if document is None else document.fields


async def test_what_a_transaction_reads_decides_what_it_writes(store: DocumentStore) -> None:
    """Its commit time is the version of what it wrote."""
    await store.commit([a_write("users/a", 5)])
    done = await store.transact(incremented)
    read = await store.get("users/a")
    assert read.document is not None
    assert (read.document.fields, done.result) == (numbered(6), 6)
    assert done.commit_time_us == read.document.update_time_us


async def test_many_transactions_at_once_lose_no_update(store: DocumentStore) -> None:
    """Each sees what those before it wrote: two messages may not both be the first."""
    done = await asyncio.gather(*[store.transact(incremented) for _ in range(25)])
    assert sorted(d.result for d in done) == list(range(1, 26))
    assert await stored(store, "users/a") == numbered(25)
    by_time = sorted(done, key=lambda d: d.commit_time_us or 0)
    assert [d.result for d in by_time] == list(range(1, 26))


async def test_transactions_on_different_documents_do_not_disturb_each_other(
    store: DocumentStore,
) -> None:
    """A busy app has many conversations."""

    def adding_to(path: str) -> TransactionBody[None]:
        async def body(reads: TransactionReads) -> Decision[None]:
            number = await number_at(reads, path) + 1
            return Decision(writes=[a_write(path, number)], result=None)

        return body

    paths = [f"users/u{n}" for n in range(20)]
    await asyncio.gather(*[store.transact(adding_to(path)) for path in paths])
    assert [await stored(store, path) for path in paths] == [numbered(1)] * 20


async def test_a_transaction_that_writes_nothing_commits_nothing(store: DocumentStore) -> None:
    """A repeated call finds its work done, and has only something to say."""
    await store.commit([a_write("users/a", 5)])

    async def body(reads: TransactionReads) -> Decision[int]:
        return Decision(result=await number_at(reads, "users/a"))

    done = await store.transact(body)
    assert (done.commit_time_us, done.result) == (None, 5)
    # Whatever it had locked is free again.
    await store.commit([a_write("users/a", 6)])


async def test_what_a_body_raises_comes_out_and_nothing_is_written(store: DocumentStore) -> None:
    """A refusal is the body's own error, told as it is."""
    await store.commit([a_write("users/a", 5)])

    async def body(reads: TransactionReads) -> Decision[None]:
        await reads.get("users/a")
        raise LookupError("blocked")

    with pytest.raises(LookupError, match="blocked"):
        await store.transact(body)
    await store.commit([a_write("users/a", 6)])
    assert await stored(store, "users/a") == numbered(6)


async def test_a_failed_precondition_writes_nothing(store: DocumentStore) -> None:
    """The same error as a commit's, so that a repeated send is known by it."""
    await store.commit([a_write("users/b", 1)])

    async def body(reads: TransactionReads) -> Decision[None]:
        number = await number_at(reads, "users/a")
        writes = [a_write("users/a", number + 1), a_write("users/b", 2, Precondition.ABSENT)]
        return Decision(writes=writes, result=None)

    with pytest.raises(PreconditionFailed) as caught:
        await store.transact(body)
    assert caught.value.path == "users/b"
    assert await stored(store, "users/a") is None
    assert await stored(store, "users/b") == numbered(1)


async def test_a_delete_in_a_transaction_has_read_what_it_deletes(store: DocumentStore) -> None:
    """The delete's version is made of the before-image's update time."""
    written_us = await store.commit([a_write("users/a", 5)])

    async def body(reads: TransactionReads) -> Decision[int | None]:
        document = await reads.get("users/a")
        before_us = None if document is None else document.update_time_us
        return Decision(writes=[Write(path="users/a", fields=None)], result=before_us)

    done = await store.transact(body)
    assert done.result == written_us
    assert await stored(store, "users/a") is None


async def test_an_absent_document_is_read_as_absent_until_the_commit(store: DocumentStore) -> None:
    """Both of two that saw nothing cannot be first."""
    firsts = await asyncio.gather(*[store.transact(claimed) for _ in range(8)])
    assert sorted(first.result for first in firsts) == [False] * 7 + [True]


async def claimed(reads: TransactionReads) -> Decision[bool]:
    if await reads.get("users/a") is not None:
        return Decision(result=False)
    return Decision(writes=[a_write("users/a")], result=True)


@pytest.mark.parametrize("path", ["", "users", "users//x/y", "users/a/following"])
async def test_what_is_no_documents_path_is_refused(store: DocumentStore, path: str) -> None:
    """A mistake of the caller, on reading and on writing; nothing is written."""

    async def reading(reads: TransactionReads) -> Decision[None]:
        await reads.get(path)
        return Decision(writes=[a_write("users/a")], result=None)

    async def writing(reads: TransactionReads) -> Decision[None]:
        await reads.get("users/a")
        return Decision(writes=[a_write("users/a"), a_write(path)], result=None)

    for body in (reading, writing):
        with pytest.raises(ValueError, match=r"path|segment"):
            await store.transact(body)
    assert await stored(store, "users/a") is None


async def test_a_document_written_twice_is_refused(store: DocumentStore) -> None:
    """Which of the two would stand is nobody's guess."""

    async def body(reads: TransactionReads) -> Decision[None]:
        return Decision(writes=[a_write("users/a", 1), a_write("users/a", 2)], result=None)

    with pytest.raises(ValueError, match="once"):
        await store.transact(body)
    assert await stored(store, "users/a") is None


async def test_a_document_read_twice_is_the_same(store: DocumentStore) -> None:
    """A body may ask in more than one place."""
    await store.commit([a_write("users/a", 5)])

    async def body(reads: TransactionReads) -> Decision[bool]:
        return Decision(result=await reads.get("users/a") == await reads.get("users/a"))

    assert (await store.transact(body)).result
