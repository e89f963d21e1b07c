"""The callables as Firebase Functions: what is deployed, and one that is called."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from storemirror.gateway.auth import USER_ISSUER
from storemirror.gateway.callables import CALLABLES
from tests.integration.functions.deployment import Deployment
from tests.integration.functions.framework import Function, running_functions
from tests.integration.functions.test_manifest import manifest
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.gateway.world import JSON
from tests.integration.receiver.hosted import HOST, call
from tests.integration.receiver.issuer import running_issuer
from tests.support.mirrors import PROJECT

pytestmark = pytest.mark.postgres

ON = {"STOREMIRROR_FUNCTIONS_WITH_GATEWAY": "true"}
SEND = "sqlGatewayDmSend"
OPEN = "sqlGatewayDmOpenConversation"


def test_the_callables_are_deployed_when_they_are_asked_for(functions_folder: Path) -> None:
    """Each as a callable, with the databases' secrets; without the setting none of them."""
    assert not CALLABLES.keys() & manifest(functions_folder)["endpoints"].keys()
    endpoints = manifest(functions_folder, **ON)["endpoints"]
    assert endpoints.keys() >= CALLABLES.keys()
    for name in CALLABLES:
        assert endpoints[name]["callableTrigger"] == {}
        secrets = {secret["key"] for secret in endpoints[name]["secretEnvironmentVariables"]}
        assert secrets >= {"STOREMIRROR_BUS_DSN", "STOREMIRROR_SQL_DSN"}


async def refused(port: int, header: str, body: Iterable[bytes]) -> str:
    """Send a request, and give the refusal with its head."""
    reader, writer = await asyncio.open_connection(HOST, port)
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{header}\r\n\r\n"
    with contextlib.closing(writer):
        writer.write(head.encode())
        for part in body:
            writer.write(part)
            await writer.drain()
        return (await reader.readuntil(b"}}")).decode()


def peak_bytes(function: Function) -> int:
    """Give the most memory that the function's server has had in hand."""
    server = function.process.pid
    [worker] = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    lines = Path(f"/proc/{worker}/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * 1_024


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, which Linux has")
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "chunked"])
async def test_a_body_that_is_too_large_is_not_kept(
    functions_folder: Path, deployment: Deployment, tmp_path: Path, is_told: bool
) -> None:
    """A few of them would end the instance, and every call that it has in hand (issue 7)."""
    deployment.variables.update(ON)
    part, count = b" " * 1_048_576, 128
    chunk = b"%x\r\n%b\r\n" % (len(part), part)
    with running_functions(functions_folder, (OPEN,), deployment.environment, tmp_path) as started:
        opening = started[OPEN]
        await refused(opening.port, "content-length: 2", [b"{}"])
        before_bytes = peak_bytes(opening)
        if is_told:
            header, body = f"content-length: {count * len(part)}", [part] * count
        else:
            header, body = "transfer-encoding: chunked", [*[chunk] * count, b"0\r\n\r\n"]
        told = await refused(opening.port, header, body)
        assert told.startswith("HTTP/1.1 400 ")
        assert f"has {count * len(part)} bytes" in told
        assert peak_bytes(opening) - before_bytes < count * len(part) / 4


async def test_a_gateway_that_cannot_be_opened_answers_as_a_callable(
    functions_folder: Path, deployment: Deployment, tmp_path: Path
) -> None:
    """An app knows what to do with UNAVAILABLE, and nothing of a page in HTML (issue 7)."""
    origin = "https://app.example"
    deployment.variables.update(
        ON,
        STOREMIRROR_GATEWAY_ALLOWED_ORIGINS=origin,
        STOREMIRROR_GATEWAY_TEMPLATE_FILE="none.json",
        STOREMIRROR_GATEWAY_FETCH_TEMPLATE="true",
    )
    with running_functions(functions_folder, (OPEN,), deployment.environment, tmp_path) as started:
        told = await refused(
            started[OPEN].port, f"content-length: 12\r\norigin: {origin}", [b'{"data": {}}']
        )
        assert told.startswith("HTTP/1.1 503 ")
        assert '"status":"UNAVAILABLE"' in told
        assert f"access-control-allow-origin: {origin}" in told.lower()
        assert "template" not in told
        [line] = started[OPEN].logged("gateway.not_opened")
        assert "gateway.fetch_template" in json.dumps(line)


async def test_a_callable_answers_as_the_gateway_s_own_server_does(
    functions_folder: Path, deployment: Deployment, emulator_host: str, tmp_path: Path
) -> None:
    """The same handlers, tokens and errors (issue 7)."""
    deployment.variables.update(ON, FIRESTORE_EMULATOR_HOST=emulator_host)
    async with running_issuer(JwkIssuer()) as issuer:
        deployment.variables["STOREMIRROR_GATEWAY_AUTH_KEYS_URL"] = issuer.url
        deployment.variables["STOREMIRROR_GATEWAY_DUAL_WRITE"] = "true"

        async def called(port: int, uid: str | None, data: object) -> Any:
            headers = dict(JSON)
            if uid is not None:
                token = issuer.signer.sign(user_claims(uid, aud=PROJECT, iss=USER_ISSUER + PROJECT))
                headers["authorization"] = f"Bearer {token}"
            body = json.dumps({"data": data}).encode()
            answer = await call(port, "POST", "/", headers, body)
            return answer.status, json.loads(answer.body)

        environment = deployment.environment
        with running_functions(functions_folder, (OPEN, SEND), environment, tmp_path) as started:
            opening = {"conversationId": "c-functions", "participantIds": ["ben"]}
            status, opened = await called(started[OPEN].port, "ann", opening)
            assert (status, opened["result"]["mirrored"]) == (200, True)
            message = {"conversationId": "c-functions", "messageId": "m1", "body": "hi"}
            status, sent = await called(started[SEND].port, "ann", message)
            assert (status, sent["result"]["message"]["body"]) == (200, "hi")
            for uid, expected in ((None, "UNAUTHENTICATED"), ("eve", "NOT_FOUND")):
                _, refused = await called(started[SEND].port, uid, message)
                assert refused["error"]["status"] == expected
