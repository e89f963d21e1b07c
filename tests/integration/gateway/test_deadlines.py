"""The deadline of a write: before Firestore has spoken it ends the call, after that the wait."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from storemirror.clock import datetime_from_us
from storemirror.event.value import encode_fields
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import Write
from storemirror.sql.port import SqlMirror
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import CallFailed, GatewayWorld, running_gateway

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
DEADLINE_S = 20.0
MESSAGES = "sqlGatewayDmListMessages"
SEND = "sqlGatewayDmSend"
ROOM = "c1"
#: Every write, in both modes: what it is, its callable, its request.
CALLS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "open": ("sqlGatewayDmOpenConversation", {"conversationId": "c2", "participantIds": ["cid"]}),
    "send": (SEND, {"conversationId": ROOM, "messageId": "new", "body": "hi"}),
    "send/mirror": (SEND, {"mode": "mirror", "conversationId": ROOM, "messageId": "own"}),
    "edit": ("sqlGatewayDmEdit", {"conversationId": ROOM, "messageId": "m1", "body": "other"}),
    "delete": ("sqlGatewayDmDelete", {"conversationId": ROOM, "messageId": "m2"}),
    "read": ("sqlGatewayDmMarkRead", {"conversationId": ROOM}),
    "follow": ("sqlGatewayFollowEdgeUpsert", {"target": "new"}),
    "follow/mirror": ("sqlGatewayFollowEdgeUpsert", {"mode": "mirror", "target": "own"}),
    "unfollow": ("sqlGatewayFollowEdgeDelete", {"target": "old"}),
    "unfollow/mirror": ("sqlGatewayFollowEdgeDelete", {"mode": "mirror", "target": "older"}),
    "block": ("sqlGatewayBlockUpsert", {"target": "new"}),
    "block/mirror": ("sqlGatewayBlockUpsert", {"mode": "mirror", "target": "own"}),
    "unblock": ("sqlGatewayBlockDelete", {"target": "old"}),
    "unblock/mirror": ("sqlGatewayBlockDelete", {"mode": "mirror", "target": "older"}),
}


@pytest.fixture
async def world(new_database: NewDatabase, issuer: JwkIssuer) -> AsyncIterator[GatewayWorld]:
    """Whatever the calls need to be there is there, on both sides; what clients wrote is not."""
    settings = {
        "STOREMIRROR_GATEWAY_READ_MODE": "sql-only",
        "STOREMIRROR_GATEWAY_WRITE_DEADLINE_S": str(DEADLINE_S),
        "STOREMIRROR_GATEWAY_MIRROR_TIMEOUT_S": "60",
    }
    async with running_gateway(new_database, issuer, settings) as opened:
        opening = {"conversationId": ROOM, "participantIds": ["ben"]}
        await opened.call("ann", "sqlGatewayDmOpenConversation", **opening)
        for name in ("m1", "m2"):
            await opened.call("ann", SEND, conversationId=ROOM, messageId=name, body="hi")
        for target in ("old", "older"):
            for name in ("sqlGatewayFollowEdgeUpsert", "sqlGatewayBlockUpsert"):
                await opened.call("ann", name, target=target)
        message = {"senderId": "ann", "body": "own", "sentAt": datetime_from_us(1_000_000)}
        edge = {"createdAt": datetime_from_us(1_000_000)}
        await _write(opened, f"conversations/{ROOM}/messages/own", message)
        await _write(opened, "users/ann/following/own", edge)
        await _write(opened, "users/ann/blocks/own", edge)
        await _write(opened, "users/ann/following/older", None)
        await _write(opened, "users/ann/blocks/older", None)
        yield opened


async def _write(world: GatewayWorld, path: str, fields: Mapping[str, object] | None) -> None:
    encoded = None if fields is None else encode_fields(fields)
    await (await world.store()).commit([Write(path=path, fields=encoded)])


class LoopTime:
    """The loop's time, which a test moves on: then timers are due, and nobody has waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        self._loop = loop = asyncio.get_running_loop()
        self._time_s, self._call_later = loop.time, loop.call_later
        #: When they are due, and the call.  uvloop's timers go by a time that nobody can move.
        self._timers: dict[int, tuple[float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        monkeypatch.setattr(loop, "time", self._now_s)
        monkeypatch.setattr(loop, "call_later", self._later)
        monkeypatch.setattr(loop, "call_at", self._at)

    def move_on(self, duration_s: float) -> None:
        self._ahead_s += duration_s
        for due_s, call in [*self._timers.values()]:
            if due_s <= self._now_s():
                self._loop.call_soon(call)

    def _now_s(self) -> float:
        return self._time_s() + self._ahead_s

    def _at(self, due_s: float, *called: Any, **context: Any) -> asyncio.TimerHandle:
        return self._later(due_s - self._now_s(), *called, **context)

    def _later(
        self, delay_s: float, callback: Callable[..., object], *arguments: Any, **context: Any
    ) -> asyncio.TimerHandle:
        number = next(self._numbers)

        def call() -> None:
            if self._timers.pop(number, None) is not None and not handle.cancelled():
                callback(*arguments)

        handle = self._call_later(delay_s, call, **context)
        self._timers[number] = self._now_s() + delay_s, call
        return handle


@pytest.fixture
async def loop_time(monkeypatch: pytest.MonkeyPatch) -> LoopTime:
    return LoopTime(monkeypatch)


class Silence:
    """One side that says nothing any more, each call after it has come there."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[None] = asyncio.Queue()

    async def falls(self) -> None:
        self.arrived.put_nowait(None)
        await asyncio.Event().wait()


async def _answers(world: GatewayWorld, silence: Silence, time: LoopTime) -> dict[str, Any]:
    """Make every call at once, let the deadline come, and give what each was told."""

    async def told(name: str, data: Mapping[str, object]) -> Any:
        try:
            return await world.call("ann", name, **data)
        except CallFailed as failed:
            return failed.status

    calls = [asyncio.create_task(told(*call)) for call in CALLS.values()]
    for _ in calls:
        await silence.arrived.get()
    time.move_on(DEADLINE_S)
    return dict(zip(CALLS, await asyncio.gather(*calls), strict=True))


async def test_a_write_that_is_committed_succeeds_however_little_time_is_left(
    world: GatewayWorld, loop_time: LoopTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told that it took too long, a client would show as failed what everybody reads (issue 7)."""
    silence, mirror = Silence(), await world.parts.mirror()
    with monkeypatch.context() as patched:
        patched.setattr(type(mirror), "apply", lambda *_, **__: silence.falls())
        answers = await _answers(world, silence, loop_time)
    assert {name: answer["mirrored"] for name, answer in answers.items()} == dict.fromkeys(
        CALLS, False
    )
    assert answers["send"]["message"]["body"] == "hi"
    await world.settled()
    assert await world.is_clean()


async def test_a_write_that_is_being_committed_may_be_written(
    world: GatewayWorld, loop_time: LoopTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told so, and calls again: one message, and one of everything (issue 7)."""
    silence = Silence()
    transact, get = EmbeddedDocumentStore.transact, EmbeddedDocumentStore.get

    async def unheard(store: EmbeddedDocumentStore, body: Any) -> Any:
        await transact(store, body)
        await silence.falls()

    async def unread(store: EmbeddedDocumentStore, path: str) -> Any:
        # The conversation that mode `mirror` looks at first is still there to be read.
        if path == f"conversations/{ROOM}":
            return await get(store, path)
        return await silence.falls()

    with monkeypatch.context() as patched:
        patched.setattr(EmbeddedDocumentStore, "transact", unheard)
        patched.setattr(EmbeddedDocumentStore, "get", unread)
        answers = await _answers(world, silence, loop_time)
    assert answers == dict.fromkeys(CALLS, "DEADLINE_EXCEEDED")
    for name, data in CALLS.values():
        if name == "sqlGatewayDmDelete":
            with pytest.raises(CallFailed, match="NOT_FOUND"):
                await world.call("ann", name, **data)
        else:
            await world.call("ann", name, **data)
    page = await world.call("ben", MESSAGES, conversationId=ROOM)
    assert sorted(item["messageId"] for item in page["items"]) == ["m1", "m2", "new", "own"]
    await world.settled()
    assert await world.is_clean()


async def test_sql_is_not_asked_where_no_time_is_left(
    world: GatewayWorld, loop_time: LoopTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was known with the deadline itself: the answer is a success all the same."""
    transact = EmbeddedDocumentStore.transact

    async def late(store: EmbeddedDocumentStore, body: Any) -> Any:
        done = await transact(store, body)
        loop_time.move_on(DEADLINE_S)
        return done

    async def asked(*_: object, **__: object) -> None:
        pytest.fail("SQL was asked")

    mirror: SqlMirror = await world.parts.mirror()
    monkeypatch.setattr(EmbeddedDocumentStore, "transact", late)
    monkeypatch.setattr(type(mirror), "apply", asked)
    sent = await world.call("ann", SEND, conversationId=ROOM, messageId="new", body="hi")
    assert (sent["mirrored"], sent["message"]["body"]) == (False, "hi")
