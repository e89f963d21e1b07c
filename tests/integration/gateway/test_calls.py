"""One call, from headers and bytes to the answer: who may, how often, how long, and what came."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from storemirror.errors import (
    CallRefused,
    DatabaseRefused,
    SourceUnavailable,
    SqlUnavailable,
)
from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.calls import CallLimits
from storemirror.gateway.port import Served
from storemirror.gateway.protocol import CallStatus
from tests.integration.gateway.hosted import JSON, CallsUnderTest
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.receiver.issuer import ACCOUNT, Issuer

LIST = "sqlGatewayDmListConversations"
RELATIONSHIP = "sqlGatewayFollowGetRelationship"
SECRET = "postgresql://user:password@host"


async def test_the_handler_learns_who_calls_and_what_is_asked(under_test: CallsUnderTest) -> None:
    """And its answer comes back wrapped."""
    opened = await under_test.result("sqlGatewayDmOpenConversation", {"participantIds": ["u2"]})
    sent = await under_test.result(
        "sqlGatewayDmSend", {"conversationId": opened["conversationId"], "body": "hi"}, uid="u2"
    )
    assert sent["message"]["senderId"] == "u2"
    inbox = await under_test.result(LIST)
    assert [line["unreadCount"] for line in inbox["items"]] == [1]
    assert [caller.uid for caller in under_test.memory.callers] == ["u1", "u2", "u1"]


async def test_an_unknown_callable_is_not_found(under_test: CallsUnderTest) -> None:
    """As a function is that was never deployed."""
    assert await under_test.error("sqlGatewayNothing") == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", CALLABLES)
async def test_nobody_calls_without_signing_in(under_test: CallsUnderTest, name: str) -> None:
    """Each of them, however new."""
    assert await under_test.error(name, uid=None) == (401, "UNAUTHENTICATED")
    assert under_test.memory.callers == []


@pytest.mark.parametrize("name", CALLABLES)
async def test_every_callable_refuses_what_it_does_not_know(
    under_test: CallsUnderTest, name: str
) -> None:
    """A slip of the pen is not taken for a wish; the handler is not reached."""
    assert await under_test.error(name, {"nonsense": 1}) == (400, "INVALID_ARGUMENT")
    assert under_test.memory.callers == []


async def test_a_call_that_is_no_call_is_a_bad_request(under_test: CallsUnderTest) -> None:
    """Before anybody asks who it is from."""
    answer = await under_test.calls.answer(LIST, "GET", {}, b"")
    assert answer.status == 400
    answer = await under_test.calls.answer(LIST, "POST", {"content-type": "text/plain"}, b"{}")
    assert answer.status == 400


async def test_a_large_body_is_refused(issuer: JwkIssuer) -> None:
    """However the server read it."""
    under_test = CallsUnderTest(issuer, limits=CallLimits(body_max_bytes=100))
    body = b'{"data": {"cursor": "' + b"x" * 100 + b'"}}'
    for kept, size_bytes in ((body, None), (b"", len(body))):
        answer = await under_test.calls.answer(
            LIST, "POST", under_test.headers(), kept, size_bytes=size_bytes
        )
        assert json.loads(answer.body)["error"]["status"] == "INVALID_ARGUMENT"
        assert b"may have 100" in answer.body


async def test_services_ask_for_relationships_and_nothing_else(
    issuer: JwkIssuer, google: Issuer
) -> None:
    """They act for nobody: no inbox, no message, no follow is theirs."""
    under_test = CallsUnderTest(issuer, services=google)
    headers = {**JSON, "authorization": f"Bearer {google.key.token()}"}
    body = json.dumps({"data": {"viewer": "u1", "target": "u2"}}).encode()
    statuses = {
        name: (await under_test.calls.answer(name, "POST", headers, body)).status
        for name in CALLABLES
    }
    assert [name for name, status in statuses.items() if status == 200] == [RELATIONSHIP]
    assert set(statuses.values()) == {200, 403}
    assert [caller.uid for caller in under_test.memory.callers] == [ACCOUNT]


async def test_one_caller_in_a_loop_is_slowed_down_alone(issuer: JwkIssuer) -> None:
    """Others go on; what was refused reached no handler."""
    under_test = CallsUnderTest(issuer, calls_per_minute=3)
    for _ in range(3):
        await under_test.result(LIST)
    assert await under_test.error(LIST) == (429, "RESOURCE_EXHAUSTED")
    await under_test.result(LIST, uid="u2")
    assert len(under_test.memory.callers) == 4


async def test_a_call_ends_at_its_deadline(issuer: JwkIssuer) -> None:
    """A client that waits for ever calls again, and then there are two."""
    limits = CallLimits(read_deadline_s=0.001, write_deadline_s=60)
    under_test = CallsUnderTest(issuer, limits=limits)
    await under_test.result("sqlGatewayFollowEdgeUpsert", {"target": "u2"})
    under_test.memory.gate.clear()
    assert await under_test.error(LIST) == (504, "DEADLINE_EXCEEDED")
    assert under_test.calls.counts.under_way_count == 0


async def test_too_many_calls_at_a_time_are_refused_at_once(issuer: JwkIssuer) -> None:
    """Those that wait in line would all end at their deadline."""
    under_test = CallsUnderTest(issuer, limits=CallLimits(calls_max_count=2))
    under_test.memory.gate.clear()
    waiting = [asyncio.create_task(under_test.result(LIST)) for _ in range(2)]
    for _ in waiting:
        await under_test.memory.arrived.get()
    assert await under_test.error(LIST) == (503, "UNAVAILABLE")
    under_test.memory.gate.set()
    await asyncio.gather(*waiting)
    await under_test.result(LIST)


async def test_one_users_slow_calls_leave_room_for_others(issuer: JwkIssuer) -> None:
    """A list that is long to read, asked for again and again, is one user's trouble."""
    under_test = CallsUnderTest(issuer, limits=CallLimits(user_calls_max_count=2))
    under_test.memory.gate.clear()
    waiting = [asyncio.create_task(under_test.result(LIST)) for _ in range(2)]
    for _ in waiting:
        await under_test.memory.arrived.get()
    assert await under_test.error(LIST) == (429, "RESOURCE_EXHAUSTED")
    waiting.append(asyncio.create_task(under_test.result(LIST, uid="u2")))
    await under_test.memory.arrived.get()
    under_test.memory.gate.set()
    await asyncio.gather(*waiting)
    await under_test.result(LIST)


@pytest.mark.parametrize("uid", [None, "u1"])
async def test_what_was_sent_is_read_once_it_is_known_who_calls(
    issuer: JwkIssuer, uid: str | None
) -> None:
    """To read it takes time that nobody else is answered in."""
    under_test = CallsUnderTest(issuer, calls_per_minute=1)
    await under_test.result(LIST)
    headers = under_test.headers(uid)
    answer = await under_test.calls.answer(LIST, "POST", headers, b'{"data": [')
    assert answer.status == (401 if uid is None else 429)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (SqlUnavailable(SECRET), (503, "UNAVAILABLE")),
        (SourceUnavailable(SECRET), (503, "UNAVAILABLE")),
        (DatabaseRefused(SECRET), (500, "INTERNAL")),
        (ValueError(SECRET), (500, "INTERNAL")),
        (TimeoutError(SECRET), (500, "INTERNAL")),
        (CallRefused("ABORTED", "Try again."), (409, "ABORTED")),
        (CallRefused("NONSENSE", "x"), (500, "INTERNAL")),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_a_handlers_error_is_one_that_sdks_know(
    under_test: CallsUnderTest, fault: Exception, status: tuple[int, str]
) -> None:
    """And its words, which may name servers, passwords or data, stay here."""
    under_test.memory.faults.append(fault)
    with capture_logs() as logs:
        answer = await under_test.answer(LIST)
    assert (answer.status, json.loads(answer.body)["error"]["status"]) == status
    assert SECRET.encode() not in answer.body
    events = {500: ["gateway.call_failed"], 503: ["gateway.call_unavailable"]}
    assert [log["event"] for log in logs] == events.get(status[0], [])


async def test_an_outage_is_logged_once_with_its_cause(under_test: CallsUnderTest) -> None:
    """Not once a call, and not never: whoever is woken must learn which database is away."""
    away = SourceUnavailable("Firestore does not answer (planted)")
    under_test.memory.faults.extend([away] * 3)
    with capture_logs() as logs:
        for _ in range(3):
            assert (await under_test.error(LIST))[1] == "UNAVAILABLE"
    [log] = logs
    assert (log["event"], log["error"], log["times"]) == (
        "gateway.call_unavailable",
        "Firestore does not answer (planted)",
        1,
    )
    assert under_test.calls.counts.failed_count == 3


async def test_the_log_has_no_words_of_others_errors(under_test: CallsUnderTest) -> None:
    """A driver's, or a library's, may quote the document that it stumbled over."""
    inner = ValueError(SECRET)
    fault = DatabaseRefused("SQL refused it (planted)")
    fault.__cause__ = inner
    under_test.memory.faults.append(fault)
    with capture_logs() as logs:
        await under_test.error(LIST)
    [log] = logs
    assert SECRET not in str(log)
    kinds = [(each["kind"], each.get("words")) for each in log["trace"]]
    assert kinds == [("DatabaseRefused", "SQL refused it (planted)"), ("ValueError", None)]
    assert any("memory.py" in place for place in log["trace"][0]["at"])


async def test_who_could_not_prove_who_they_are_is_logged(under_test: CallsUnderTest) -> None:
    """With the reason, and nothing of the token."""
    token = under_test.issuer.signer.sign(user_claims(expires_in_s=-60))
    with capture_logs() as logs:
        await under_test.answer(LIST, uid=None, authorization=f"Bearer {token}")
    (log,) = logs
    assert (log["event"], log["status"]) == ("gateway.call_refused", "UNAUTHENTICATED")
    assert "expired" in log["reason"]
    assert token not in str(log)


async def test_every_call_is_observed(under_test: CallsUnderTest) -> None:
    """Latency is promised by callable, source and outcome."""
    await under_test.result(LIST)
    await under_test.result("sqlGatewayFollowEdgeUpsert", {"target": "u2"})
    await under_test.error(LIST, uid=None)
    await under_test.error("sqlGatewayNothing")
    seen = [(call.name, call.status, call.source) for call in under_test.observer.calls]
    assert seen == [
        (LIST, CallStatus.OK, Served.SQL),
        ("sqlGatewayFollowEdgeUpsert", CallStatus.OK, None),
        (LIST, CallStatus.UNAUTHENTICATED, None),
    ]
    assert all(call.duration_ms >= 0 for call in under_test.observer.calls)
    counts = under_test.calls.counts
    assert (counts.answered_count, counts.refused_count, counts.failed_count) == (2, 2, 0)


async def test_a_stream_that_was_asked_for_has_the_result(under_test: CallsUnderTest) -> None:
    """And the error, when it comes to that."""
    answer = await under_test.answer(LIST, accept="text/event-stream")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.startswith(b'data: {"result":{')
    answer = await under_test.answer(LIST, uid=None, accept="text/event-stream")
    assert answer.status == 200
    assert answer.body.startswith(b'data: {"error":{"status":"UNAUTHENTICATED"')


ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-firebase-appcheck",
}


async def test_web_apps_are_let_in_by_origin(issuer: JwkIssuer) -> None:
    """The browser asks first, and reads the answer only when it names the app's origin."""
    under_test = CallsUnderTest(issuer, origins=[ORIGIN])
    asked = await under_test.calls.answer(LIST, "OPTIONS", PREFLIGHT, b"")
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, ORIGIN)
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert (
        asked.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    )
    answered = await under_test.answer(LIST, origin=ORIGIN)
    assert answered.headers["access-control-allow-origin"] == ORIGIN
    refused = await under_test.answer(LIST, uid=None, origin=ORIGIN)
    assert refused.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", ORIGIN + ".evil.com"])
async def test_other_web_apps_are_not_let_in(issuer: JwkIssuer, origin: str) -> None:
    """No answer names them, so no browser lets them read one."""
    under_test = CallsUnderTest(issuer, origins=[ORIGIN])
    for answer in (
        await under_test.calls.answer(LIST, "OPTIONS", {**PREFLIGHT, "origin": origin}, b""),
        await under_test.answer(LIST, origin=origin),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "origin"


async def test_web_apps_are_shut_out_where_none_are_named(under_test: CallsUnderTest) -> None:
    """Closed unless it is opened."""
    asked = await under_test.calls.answer(LIST, "OPTIONS", PREFLIGHT, b"")
    assert (asked.status, asked.headers) == (204, {})


async def test_a_header_that_is_none_is_not_echoed(issuer: JwkIssuer) -> None:
    """What a browser is told is made of letters alone."""
    under_test = CallsUnderTest(issuer, origins=["*"])
    odd = {**PREFLIGHT, "access-control-request-headers": "a\r\nset-cookie: b"}
    asked = await under_test.calls.answer(LIST, "OPTIONS", odd, b"")
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-headers" not in asked.headers


def test_reads_and_writes_have_deadlines_of_their_own() -> None:
    """A transaction may take longer than a list."""
    limits = replace(CallLimits(), read_deadline_s=1, write_deadline_s=2)
    deadlines = {name: limits.deadline_s(spec.kind) for name, spec in CALLABLES.items()}
    assert deadlines[LIST] == deadlines[RELATIONSHIP] == 1
    assert deadlines["sqlGatewayDmSend"] == deadlines["sqlGatewayBlockDelete"] == 2


async def test_who_calls_without_a_token_does_not_fill_the_log(
    under_test: CallsUnderTest,
) -> None:
    """Anybody can, at any rate."""
    with capture_logs() as logs:
        for _ in range(5):
            await under_test.error(LIST, uid=None)
    assert len(logs) == 1
