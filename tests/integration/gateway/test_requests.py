"""
Property-based requests: what the OpenAPI document allows, and much that it does not, is sent.

Schemathesis makes them.  No answer may be a server's error, each must be of the form that the
document says, and what the document does not allow must be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from storemirror.clock import datetime_from_us
from storemirror.event.value import encode_fields
from storemirror.gateway.calls import Calls
from storemirror.gateway.openapi import openapi
from storemirror.gateway.port import Caller, ReadMode
from storemirror.gateway.port import Served as Source
from storemirror.gateway.wire import ConversationsResult, ListConversations
from storemirror.source.port import Write
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.server import EmbeddedServer
from tests.integration.gateway.hosted import CallsUnderTest, on_port
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.gateway.memory import MemoryHandlers
from tests.integration.gateway.world import GatewayWorld, running_gateway

CHECKS: list[Any] = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(openapi())
MOMENT = datetime_from_us(1_700_000_000_000_000)
NUMBERS = itertools.count()
EXAMPLES = settings(max_examples=30, deadline=None)


Opened = Callable[[JwkIssuer], AbstractAsyncContextManager[Calls]]


class Served:
    """A gateway in a thread of its own: schemathesis calls as any client, and blocks."""

    def __init__(self, opened: Opened) -> None:
        self.issuer = JwkIssuer()
        self._opened = opened
        self._listening: Future[int] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Served:
        self._thread.start()
        self._port = self._listening.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._listening.done():
                raise
            self._listening.set_exception(error)

    async def _serve(self) -> None:
        async with self._opened(self.issuer) as calls, on_port(calls) as port:
            self._listening.set_result(port)
            await self._stop.wait()

    def check(self, case: Case[Any]) -> None:
        """Send a request as a signed-in user, and judge the answer."""
        token = self.issuer.signer.sign(user_claims(), alg="none")
        case.call_and_validate(
            base_url=f"http://127.0.0.1:{self._port}",
            headers={"Authorization": f"Bearer {token}"},
            checks=CHECKS,
        )


@contextlib.asynccontextmanager
async def in_memory(issuer: JwkIssuer, handlers: MemoryHandlers) -> AsyncIterator[Calls]:
    yield CallsUnderTest(issuer, emulated=True, handlers=handlers).calls


@contextlib.asynccontextmanager
async def on_databases(
    issuer: JwkIssuer, server: EmbeddedServer, mode: ReadMode
) -> AsyncIterator[Calls]:
    """The whole gateway, on databases of its own that are made in this thread's loop."""
    admin = Database(server.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()

    names: list[str] = []

    async def new_database() -> str:
        names.append(f"requests_{os.getpid()}_{next(NUMBERS)}")
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(names[-1]))
        async with admin.connection() as conn:
            await conn.execute(create)
        return server.dsn(names[-1])

    settings = {
        "STOREMIRROR_GATEWAY_READ_MODE": mode.value,
        "STOREMIRROR_GATEWAY_CALLS_PER_MINUTE": "1000000",
        "STOREMIRROR_GATEWAY_OPENS_PER_MINUTE": "1000000",
        "FIREBASE_AUTH_EMULATOR_HOST": "none is asked",
    }
    # The keys' address is asked for nothing: the emulator's tokens are unsigned.
    issuer.port = 1
    async with running_gateway(new_database, issuer, settings) as world:
        await begin(world)
        yield world.gateway.calls
    async with admin.connection() as conn:
        for name in names:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            await conn.execute(drop)
    await admin.aclose()


async def begin(world: GatewayWorld) -> None:
    """Give the caller a conversation with messages in it, and others to follow and block."""
    store = await world.store()
    created = encode_fields({"participantIds": ["u1", "u2"], "createdAt": MOMENT})
    await store.commit([Write(path="conversations/c1", fields=created)])
    for n in range(5):
        fields = encode_fields({"senderId": f"u{n % 2 + 1}", "body": "x", "sentAt": MOMENT})
        await store.commit([Write(path=f"conversations/c1/messages/m{n}", fields=fields)])
    await world.settled()


def meant(case: Case[Any]) -> None:
    """
    Let every other good request be about what is there, and say something.

    No generator comes upon the ids, nor upon what two fields must be beside each other.
    """
    data = case.body.get("data") if isinstance(case.body, dict) else None
    if not isinstance(data, dict) or case.meta is None:
        return
    is_good = case.meta.generation.mode is GenerationMode.POSITIVE
    if not is_good or len(str(data)) % 2:
        return
    for name, known in (("conversationId", "c1"), ("messageId", "m0"), ("target", "u2")):
        if name in data:
            data[name] = known
    if "conversationId" in data and {"mode", "body", "attachments"} & set(data):
        data["body"] = None if data.get("mode") == "mirror" else "said"
        data["attachments"] = None
        data.setdefault("messageId", "m0")


@pytest.fixture(scope="module", params=[ReadMode.FIRESTORE, ReadMode.SQL_ONLY], ids=str)
def served(request: pytest.FixtureRequest, postgres: EmbeddedServer) -> Iterator[Served]:
    with Served(partial(on_databases, server=postgres, mode=request.param)) as gateway:
        yield gateway


@pytest.mark.postgres
@SCHEMA.parametrize()
@EXAMPLES
def test_no_request_is_a_servers_error(case: Case[Any], served: Served) -> None:
    """Whatever a client sends, it is answered as the document says, by either side."""
    meant(case)
    served.check(case)


class Failing(MemoryHandlers):
    """Fails at what nobody foresaw."""

    async def list_conversations(
        self, caller: Caller, request: ListConversations
    ) -> ConversationsResult:
        raise ValueError


class Misshapen(MemoryHandlers):
    """Answers otherwise than the document says."""

    async def list_conversations(
        self, caller: Caller, request: ListConversations
    ) -> ConversationsResult:
        wrong: Any = 7
        return ConversationsResult(items=[], older=wrong, source=Source.SQL, as_of=None)


@pytest.mark.parametrize(
    ("handlers", "found"), [(Failing(), "Server error"), (Misshapen(), "violates schema")]
)
def test_a_planted_fault_is_found(handlers: MemoryHandlers, found: str) -> None:
    """A guard that nobody has seen fail is no guard."""
    case = SCHEMA["/sqlGatewayDmListConversations"]["POST"].Case(
        body={"data": {}}, media_type="application/json"
    )
    opened = partial(in_memory, handlers=handlers)
    with Served(opened) as gateway, pytest.raises(FailureGroup, match=found):
        gateway.check(case)
