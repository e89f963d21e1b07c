"""Random documents, read from both sources at once: every answer is the same, field by field."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from storemirror.apply.decode import EventDecoder
from storemirror.errors import PoisonEventError
from storemirror.event.change import Change
from storemirror.event.value import encode_fields
from storemirror.gateway.port import Edge, MessagesReader, Position
from storemirror.model.entity import Model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import Write
from storemirror.source.triggers import change_of, message_of
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import SOURCE, DocumentSide, Side, SqlSide, write
from tests.contract.sql.postgres import PostgresServer
from tests.contract.sql.side_door import Installed
from tests.support.databases import Databases

pytestmark = pytest.mark.postgres

USERS = ["a", "b", "B", "é", "\U0001d54f"]
CONVERSATIONS = ["c", "C", "c!", "ç", "\uff5a"]
MESSAGES = ["m", "M", "m-", "ñ", "\uffee", "\U0001f469"]
#: Documents of this id never fit their declaration.  Of one that did before, the mirror has the
#: earlier contents, until its dead letter is seen to.
MISFIT = "misfit"


class BothSides:
    """Documents and their mirror."""

    def __init__(self, store: EmbeddedDocumentStore, installed: Installed) -> None:
        self.documents: Side = DocumentSide(store, installed.model, installed.mirror.limits)
        self.sql: Side = SqlSide(installed)
        self._store = store
        self._model, self._mirror = installed.model, installed.mirror
        self._decoder = EventDecoder(
            model=installed.model, limits=installed.mirror.limits, source=SOURCE
        )

    async def commit(self, write: Write) -> None:
        """Write a document, and apply what its trigger tells; what does not fit is set aside."""
        await self._store.commit([write])
        async with self._store.outbox_batch() as batch:
            for told in batch.changes:
                change = change_of(told)
                assert isinstance(change, Change)
                entity, _ = self._model.match(change.path)
                with contextlib.suppress(PoisonEventError):
                    event = self._decoder.decode(message_of(change, entity.name, SOURCE))
                    await self._mirror.apply([event])


@pytest.fixture
async def both(new_database: Databases, model: Model) -> AsyncIterator[BothSides]:
    """An embedded store, and its mirror in PostgreSQL."""
    database = Database(await new_database(), DOCUMENTS, max_size=8)
    await database.open()
    store = EmbeddedDocumentStore(database)
    await store.prepare()
    async with contextlib.AsyncExitStack() as until_end:
        until_end.push_async_callback(store.aclose)
        server = PostgresServer(new_database, until_end)
        yield BothSides(store, await server.installed(model))


def random_write(rng: random.Random) -> Write:
    """Give a write that an app, or a careless one, may do."""
    kind = rng.choices(["conversation", "message", "edge"], [3, 8, 2])[0]
    document_id = MISFIT if rng.random() < 0.1 else ""
    if kind == "edge":
        document_id = document_id or rng.choice(USERS)
        path = f"users/{rng.choice(USERS)}/{rng.choice(['following', 'blocks'])}/{document_id}"
        fields: dict[str, object] = {"createdAt": rng.choice([None, at(1)])}
        misfits: dict[str, object] = {"createdAt": rng.choice(["yesterday", 5])}
    elif kind == "message":
        document_id = document_id or rng.choice(MESSAGES)
        path = f"conversations/{rng.choice(CONVERSATIONS)}/messages/{document_id}"
        fields = random_message(rng)
        misfits = {"sentAt": rng.choice(["yesterday", None, 5])}
    else:
        path = f"conversations/{document_id or rng.choice(CONVERSATIONS)}"
        fields = random_conversation(rng)
        misfits = rng.choice([{"createdAt": None}, {"participantIds": [*USERS, 5]}, {"title": 5}])
    if document_id == MISFIT:
        fields |= misfits
    return Write(path=path, fields=None if rng.random() < 0.15 else encode_fields(fields))


def random_conversation(rng: random.Random) -> dict[str, object]:
    members = rng.sample(USERS, rng.randint(1, 4))
    as_map = {member: rng.choice([True, None]) for member in members}
    return {
        "participantIds": rng.choice([members, members, [*members, members[0]], as_map]),
        "createdAt": at(rng.randint(-2, 6)),
        "title": rng.choice([None, "Lunch", "", "\0", "Üben \U0001f469\u200d\U0001f680"]),
        "lastReadAt": {user: at(rng.randint(-1, 6)) for user in rng.sample(USERS, 2)},
    }


def random_message(rng: random.Random) -> dict[str, object]:
    return {
        "senderId": rng.choice(USERS),
        "sentAt": at(rng.randint(0, 5)),
        "body": rng.choice([None, "", "hello", "\U0001f680" * 150, "two\nlines " * 20, "a\0b"]),
        "attachments": rng.choice(
            [
                None,
                [],
                "x",
                ["\0", {"a\0": 1}, -0.0, math.nan, -math.inf],
                [{"n": 1.5, "to": at(1), "deep": {"x": None}}],
            ]
        ),
        "editedAt": rng.choice([None, at(9)]),
    }


def places(rng: random.Random, ids: list[str]) -> Iterator[Position | None]:
    yield None
    for _ in range(4):
        yield Position(time_us=us(rng.randint(-3, 7)), id=rng.choice(ids))


async def all_answers(reader: MessagesReader, rng: random.Random) -> list[object]:
    """Ask for every user's inbox and conversations, from random places on."""
    answers: list[object] = []
    for user in USERS:
        for place in places(rng, CONVERSATIONS):
            limit = rng.choice([1, 2, 9])
            page = await reader.conversations(user, older_than=place, limit=limit)
            answers.append((user, place, limit, page.items, page.has_older))
        conversation = rng.choice(CONVERSATIONS)
        for place in places(rng, MESSAGES):
            limit = rng.choice([1, 2, 9])
            for way in ("older_than", "newer_than"):
                older, newer = (place, None) if way == "older_than" else (None, place)
                read = await reader.messages(
                    user, conversation, older_than=older, newer_than=newer, limit=limit
                )
                told = read and (read.items, read.has_older, read.has_newer)
                answers.append((user, conversation, way, place, limit, told))
    return answers


async def all_edges(side: Side) -> list[tuple[Edge, ...]]:
    """Ask how everybody stands to everybody; the version of what exists alone is the same."""
    found = []
    for viewer in USERS:
        for target in USERS:
            r = await side.follow.relationship(viewer, target)
            edges = (r.outgoing, r.incoming, r.outgoing_block, r.incoming_block)
            found.append(tuple(e if e.exists else Edge(exists=False, version=None) for e in edges))
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_both_sources_answer_alike(both: BothSides, seed: int) -> None:
    """Whoever is moved from one to the other sees no difference."""
    rng = random.Random(seed)
    for round_number in range(3):
        for _ in range(60):
            await both.commit(random_write(rng))
        asked = f"{seed}/{round_number}"
        by_documents = await all_answers(both.documents.messages, random.Random(asked))
        by_sql = await all_answers(both.sql.messages, random.Random(asked))
        assert by_documents == by_sql
        assert await all_edges(both.documents) == await all_edges(both.sql)
        assert sum(bool(answer) for answer in by_sql) > 20


@pytest.mark.parametrize("seed", range(2))
async def test_both_sources_end_a_page_early_at_the_same_item(
    both: BothSides, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """However many they fetch at a time; else shadow reads would count what one side leaves out."""
    monkeypatch.setattr("storemirror.gateway.page_budget.PAGE_MAX_WEIGHT", 700)
    monkeypatch.setattr("storemirror.gateway.page_budget.FIRST_COUNT", 2)
    rng = random.Random(seed)
    await both.commit(
        Write(
            path="conversations/c",
            fields=encode_fields({"participantIds": ["a"], "createdAt": at(0)}),
        )
    )
    for n in range(12):
        fields = encode_fields(random_message(rng))
        await both.commit(Write(path=f"conversations/c/messages/{n:02}", fields=fields))
    early_count = 0
    for place in [None, *(Position(time_us=us(rng.randint(-1, 6)), id="05") for _ in range(8))]:
        for older, newer in ((place, None), (None, place)):
            pages = [
                await side.messages.messages("a", "c", older_than=older, newer_than=newer, limit=9)
                for side in (both.documents, both.sql)
            ]
            by_documents, by_sql = pages
            assert by_documents is not None
            assert by_sql is not None
            assert by_documents.items == by_sql.items
            assert by_documents.has_older == by_sql.has_older
            assert by_documents.has_newer == by_sql.has_newer
            has_further = by_sql.has_older if newer is None else by_sql.has_newer
            early_count += has_further and len(by_sql.items) < 9
    assert early_count > 5


@pytest.fixture(
    params=[
        "postgres_side",
        "tsql_side",
        pytest.param("sqlserver_side", marks=pytest.mark.sqlserver),
    ]
)
def mirrored(request: pytest.FixtureRequest) -> SqlSide:
    """The mirror in each database."""
    side = request.getfixturevalue(request.param)
    assert isinstance(side, SqlSide)
    return side


async def test_what_a_database_cannot_hold_is_answered_alike(
    mirrored: SqlSide, embedded_side: Side, model: Model
) -> None:
    """Else each is a false alarm of the shadow reads (issue 7)."""
    assert isinstance(embedded_side, DocumentSide)
    documents = DocumentSide(embedded_side.store, model, mirrored.limits)
    for side in (mirrored, documents):
        await write(side, "conversations/c", participantIds=["a"], createdAt=at(0), title="a\0b")
        odd = ["a\0b", {"a\0b": math.nan}, math.inf, -0.0]
        path = "conversations/c/messages/m"
        await write(side, path, senderId="a", sentAt=at(1), body="a\0b", attachments=odd)
    answers = []
    for side in (mirrored, documents):
        inbox = await side.messages.conversations("a", older_than=None, limit=5)
        page = await side.messages.messages("a", "c", limit=5)
        assert page is not None
        [talk], [item] = inbox.items, page.items
        answers.append((talk.title, talk.last_message_preview, item.body, repr(item.attachments)))
    assert answers[0] == answers[1]
    assert answers[0][:3] == ("a\ufffdb",) * 3
