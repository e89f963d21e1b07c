"""
The gateway itself as a contestant: `storemirror gateway` in a process of its own, called over HTTP.

Every call has the ID token of a user, signed as Firebase signs them, and comes over a connection
that is kept.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from bench.gateway import PAGE, Answer, Call, GatewayContestant, GatewayWorld, Opened
from bench.gateway_workload import Ask
from bench.http_client import HttpClient, connected, post
from bench.served import served
from bench.verify import ResultsWrong
from bench.workload import PROJECT
from bench.world import settings_in
from storemirror.config import load_settings
from storemirror.gateway.auth import USER_ISSUER
from storemirror.wiring import Parts
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.receiver.issuer import running_issuer

_NAMES: Final[Mapping[Call, str]] = {
    Call.LIST_CONVERSATIONS: "sqlGatewayDmListConversations",
    Call.LIST_MESSAGES: "sqlGatewayDmListMessages",
    Call.GET_RELATIONSHIP: "sqlGatewayFollowGetRelationship",
}


class _Result(msgspec.Struct, rename="camel"):
    """What is looked at of an answer: the rest is only seen to be JSON."""

    source: str
    items: list[msgspec.Raw] = []
    outgoing: bool = False
    incoming: bool = False
    outgoing_block: bool = False
    incoming_block: bool = False


class _Told(msgspec.Struct):
    """An answer of Firebase's protocol; an error has no result."""

    result: _Result | None = None


def gateway(rate_per_s: float) -> GatewayContestant:
    """Give one gateway process, whose reads SQL serves."""

    @contextlib.asynccontextmanager
    async def opened(world: GatewayWorld) -> AsyncIterator[Opened]:
        async with (
            running_issuer(JwkIssuer()) as issuer,
            _running(world, issuer.url) as (port, process_id),
            connected("127.0.0.1", port) as client,
        ):
            answer = _answer_over(client, _tokens(world, issuer))
            yield Opened(answer=answer, process_id=process_id)

    return GatewayContestant(name="gateway", opened=opened, rate_per_s=rate_per_s)


def _tokens(world: GatewayWorld, issuer: JwkIssuer) -> Mapping[str, str]:
    """Sign in every user."""
    return {
        user: issuer.signer.sign(user_claims(user, iss=f"{USER_ISSUER}{PROJECT}", aud=PROJECT))
        for user in world.workload.conversations
    }


def _answer_over(client: HttpClient, tokens: Mapping[str, str]) -> Answer:
    """Call as Firebase's SDK does, and count what comes back."""
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(_Told)

    async def answer(call: Call, ask: Ask) -> int:
        headers = (
            f"accept: */*\r\nauthorization: Bearer {tokens[ask.user]}\r\n"
            "content-type: application/json\r\n"
        )
        body = encoder.encode({"data": _asked(call, ask)})
        status, told = await client.ask(post(f"/{_NAMES[call]}", headers, body))
        result = decoder.decode(told).result
        if status != HTTPStatus.OK or result is None or result.source != "sql":
            words = told.decode(errors="replace")[:500]
            raise ResultsWrong(f"{call} of {ask} was not answered by SQL: {status} {words}")
        return len(result.items) + sum(
            (result.outgoing, result.incoming, result.outgoing_block, result.incoming_block)
        )

    return answer


def _asked(call: Call, ask: Ask) -> Mapping[str, object]:
    if call is Call.LIST_CONVERSATIONS:
        return {"pageSize": PAGE}
    if call is Call.LIST_MESSAGES:
        return {"conversationId": ask.conversation, "pageSize": PAGE}
    return {"target": ask.target}


@contextlib.asynccontextmanager
async def _running(world: GatewayWorld, keys_url: str) -> AsyncIterator[tuple[int, int]]:
    """Start the gateway; gives its port and its process id."""
    with tempfile.TemporaryDirectory(prefix="storemirror-bench-") as folder:
        environment = settings_in(
            Path(folder),
            STOREMIRROR_DOCUMENTS_DSN=world.documents_dsn,
            STOREMIRROR_BUS_DSN=world.bus_dsn,
            STOREMIRROR_SQL_DSN=world.mirror.dsn,
            STOREMIRROR_GATEWAY_PORT="0",
            STOREMIRROR_GATEWAY_AUTH_KEYS_URL=keys_url,
            STOREMIRROR_GATEWAY_READ_MODE="sql",
            # What is too much for the machine is to be seen as latency.
            STOREMIRROR_GATEWAY_SQL_TIMEOUT_S="50",
            STOREMIRROR_GATEWAY_READ_DEADLINE_S="60",
            STOREMIRROR_GATEWAY_CALLS_PER_MINUTE="1000000",
            STOREMIRROR_GATEWAY_OPENS_PER_MINUTE="1000000",
            STOREMIRROR_GATEWAY_CALLS_MAX_COUNT="10000",
            STOREMIRROR_GATEWAY_USER_CALLS_MAX_COUNT="10000",
        )
        async with Parts(load_settings(None, environment)) as parts:
            await parts.embedded_store()
            await (await parts.bus_admin()).provision(parts.topic())
        command = (str(Path(sys.executable).with_name("storemirror")), "gateway")
        async with served(command, Path(folder) / "gateway.log", environment) as where:
            yield where
