"""Contestants of *gateway* without a server: the bare queries, and the readers of both sources."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from bench.gateway import PAGE, Answer, Call, GatewayContestant, GatewayWorld, Opened
from bench.gateway_workload import Ask, load_into_store
from storemirror.gateway.document_reader import DocumentFollowReader, DocumentMessagesReader
from storemirror.gateway.port import FollowReader, MessagesReader
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.gateway.sql_reader import SqlFollowReader, SqlMessagesReader
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from storemirror.sql.postgres.reads import PostgresReads, ReadStatements, reading_database


def bare_queries(rate_per_s: float) -> GatewayContestant:
    """Give the statements alone: their rows are fetched, and nothing is made of them."""

    @contextlib.asynccontextmanager
    async def opened(world: GatewayWorld) -> AsyncIterator[Opened]:
        async with _reading(world) as database:
            statements = PostgresReads(database, world.mirror.rendering).statements

            async def answer(call: Call, ask: Ask) -> int:
                return min(PAGE, len(await bare_rows(database, statements, call, ask)))

            yield Opened(answer=answer)

    return GatewayContestant(name="bare_query", opened=opened, rate_per_s=rate_per_s)


async def bare_rows(
    database: Database, statements: ReadStatements, call: Call, ask: Ask
) -> Sequence[tuple[object, ...]]:
    """Fetch the rows of one call, by the statement that the gateway runs for it."""
    names: dict[str, object] = {"viewer": ask.user}
    if call is Call.LIST_CONVERSATIONS:
        statement = statements.inbox[0]
        names |= {"count": PAGE + 1}
    elif call is Call.LIST_MESSAGES:
        statement = statements.messages[None]
        names |= {"count": PAGE + 1, "conversation": ask.conversation}
    else:
        statement = statements.relationship
        names |= {"target": ask.target}
    return await database.fetch_prepared(statement, names)


def sql_readers(rate_per_s: float) -> GatewayContestant:
    """Give the gateway's readers without protocol, rights and server."""

    @contextlib.asynccontextmanager
    async def opened(world: GatewayWorld) -> AsyncIterator[Opened]:
        async with _reading(world) as database:
            reads = PostgresReads(database, world.mirror.rendering)
            answer = _answer_of(SqlMessagesReader(reads), SqlFollowReader(reads))
            yield Opened(answer=answer)

    return GatewayContestant(name="sql_reader", opened=opened, rate_per_s=rate_per_s)


def document_readers(rate_per_s: float) -> GatewayContestant:
    """Give the readers of documents, over the embedded store: reads that Firestore would serve."""

    @contextlib.asynccontextmanager
    async def opened(world: GatewayWorld) -> AsyncIterator[Opened]:
        database = Database(world.documents_dsn, DOCUMENTS, max_size=8)
        await database.open()
        try:
            store = EmbeddedDocumentStore(database)
            await store.prepare()
            await load_into_store(world.workload, store)
            async with database.connection() as conn:
                await conn.execute("VACUUM (ANALYZE)")
            model, limits = world.mirror.model, world.mirror.mirror.limits
            answer = _answer_of(
                DocumentMessagesReader(store, DirectMessages.of(model, limits)),
                DocumentFollowReader(store, FollowGraph.of(model, limits)),
            )
            yield Opened(answer=answer)
        finally:
            await database.aclose()

    return GatewayContestant(name="document_reader", opened=opened, rate_per_s=rate_per_s)


def _answer_of(messages: MessagesReader, follow: FollowReader) -> Answer:
    """Ask the readers of a source."""

    async def answer(call: Call, ask: Ask) -> int:
        if call is Call.LIST_CONVERSATIONS:
            inbox = await messages.conversations(ask.user, older_than=None, limit=PAGE)
            return len(inbox.items)
        if call is Call.LIST_MESSAGES:
            talk = await messages.messages(ask.user, ask.conversation, limit=PAGE)
            return 0 if talk is None else len(talk.items)
        found = await follow.relationship(ask.user, ask.target)
        sides = (found.outgoing, found.incoming, found.outgoing_block, found.incoming_block)
        return sum(side.exists for side in sides)

    return answer


@contextlib.asynccontextmanager
async def _reading(world: GatewayWorld) -> AsyncIterator[Database]:
    database = reading_database(world.mirror.dsn)
    await database.open()
    try:
        yield database
    finally:
        await database.aclose()
