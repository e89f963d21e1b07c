"""
Property-based requests: what the OpenAPI document allows, and much that it does not, is sent.

Schemathesis makes them.  No answer may be a server's error, each must be of the form that the
document says, and what the document does not allow must be refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from storemirror.gateway.openapi import openapi
from storemirror.gateway.port import Caller
from storemirror.gateway.port import Served as Source
from storemirror.gateway.wire import ConversationsResult, ListConversations
from tests.integration.gateway.hosted import CallsUnderTest, on_port
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.gateway.memory import MemoryHandlers

CHECKS: list[Any] = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(openapi())
EXAMPLES = settings(max_examples=30, deadline=None)


class Served:
    """A gateway in a thread of its own: schemathesis calls as any client, and blocks."""

    def __init__(self, handlers: MemoryHandlers | None = None) -> None:
        self.issuer = JwkIssuer()
        self._handlers = handlers
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._port = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Served:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        under_test = CallsUnderTest(
            self.issuer, emulated=True, calls_per_minute=1_000_000, handlers=self._handlers
        )
        async with on_port(under_test.calls) as port:
            self._port = port
            self._listening.set()
            await self._stop.wait()

    def check(self, case: Case[Any]) -> None:
        """Send a request as a signed-in user, and judge the answer."""
        token = self.issuer.signer.sign(user_claims(), alg="none")
        case.call_and_validate(
            base_url=f"http://127.0.0.1:{self._port}",
            headers={"Authorization": f"Bearer {token}"},
            checks=CHECKS,
        )


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as gateway:
        yield gateway


@SCHEMA.parametrize()
@EXAMPLES
def test_no_request_is_a_servers_error(case: Case[Any], served: Served) -> None:
    """Whatever a client sends, it is answered as the document says."""
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
    with Served(handlers) as gateway, pytest.raises(FailureGroup, match=found):
        gateway.check(case)
