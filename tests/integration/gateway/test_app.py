"""The callables over HTTP, at the paths where Firebase's SDKs look for them."""

from __future__ import annotations

import asyncio
import json

import pytest

from storemirror.gateway.calls import CallLimits
from storemirror.serving import BodyRoom
from tests.integration.gateway.hosted import CallsUnderTest, on_port
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.receiver.hosted import call
from tests.support.node import PROJECT

LIST = "sqlGatewayDmListConversations"
BODY = b'{"data": null}'


@pytest.mark.parametrize("path", [f"/{LIST}", f"/{PROJECT}/us-central1/{LIST}"])
async def test_a_callable_is_found_where_sdks_look(under_test: CallsUnderTest, path: str) -> None:
    """By a domain of its own, and as the emulator's paths are."""
    async with on_port(under_test.calls) as port:
        answer = await call(port, "POST", path, under_test.headers(), BODY)
    assert answer.status == 200
    assert json.loads(answer.body)["result"]["items"] == []


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_another_method_is_a_bad_request(under_test: CallsUnderTest, method: str) -> None:
    """In words that SDKs read, and not in those of the web server."""
    async with on_port(under_test.calls) as port:
        answer = await call(port, method, f"/{LIST}", under_test.headers(), BODY)
    assert json.loads(answer.body)["error"]["status"] == "INVALID_ARGUMENT"


async def test_a_path_of_nothing_is_not_found(under_test: CallsUnderTest) -> None:
    """Whatever is behind it."""
    async with on_port(under_test.calls) as port:
        for path in ("/", "/nothing", "/a/b", "/a/b/c/d", "/%00", "/..%2fetc"):
            assert (await call(port, "POST", path, under_test.headers(), BODY)).status == 404


async def test_a_large_body_is_read_and_refused(issuer: JwkIssuer) -> None:
    """Unread, the client would see a broken connection in place of the answer."""
    under_test = CallsUnderTest(issuer, limits=CallLimits(body_max_bytes=1_024))
    body = b'{"data": "' + b"x" * 2_000_000 + b'"}'
    async with on_port(under_test.calls) as port:
        answer = await call(port, "POST", f"/{LIST}", under_test.headers(), body)
        assert b"2000012 bytes" in answer.body
        health = await call(port, "GET", "/healthz", {}, b"")
    assert json.loads(health.body) == {
        "answered_count": 0,
        "refused_count": 1,
        "failed_count": 0,
        "under_way_count": 0,
    }


async def test_a_body_without_room_is_answered_at_once(issuer: JwkIssuer) -> None:
    """Nobody has proved who they are yet; the connection ends, for its rest is not read."""
    under_test = CallsUnderTest(issuer)
    async with on_port(under_test.calls, room=BodyRoom(0)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /%s HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1" % LIST.encode())
        answered = await reader.read()
        writer.close()
        whole = await call(port, "POST", f"/{LIST}", under_test.headers(), BODY)
    assert answered.startswith(b"HTTP/1.1 503 ")
    assert under_test.calls.counts.failed_count == 1
    assert whole.status == 200
