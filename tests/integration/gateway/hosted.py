"""A gateway in memory: its calls by themselves, or on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from storemirror.gateway.app import GatewayApp, serve
from storemirror.gateway.auth import Identity, IdentityRules
from storemirror.gateway.callables import CallableSpec, Handlers
from storemirror.gateway.calls import CallLimits, Calls
from storemirror.gateway.cors import Origins
from storemirror.gateway.port import Served
from storemirror.gateway.protocol import Answer, CallStatus
from storemirror.gateway.rate import Rate
from storemirror.serving import BodyRoom
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.gateway.memory import MemoryHandlers
from tests.integration.receiver.hosted import HOST, ForwardClock
from tests.integration.receiver.issuer import Issuer
from tests.support.node import PROJECT

JSON = {"content-type": "application/json"}


@dataclass
class Observed:
    """One call, as the observer was told of it."""

    name: str
    status: CallStatus
    source: Served | None
    duration_ms: float


class Observer:
    def __init__(self) -> None:
        self.calls: list[Observed] = []

    def answered(
        self,
        spec: CallableSpec[Any, Any],
        *,
        status: CallStatus,
        source: Served | None,
        duration_ms: float,
    ) -> None:
        self.calls.append(Observed(spec.name, status, source, duration_ms))


class CallsUnderTest:
    """Calls over handlers in memory, and whoever signs tokens for them."""

    def __init__(
        self,
        issuer: JwkIssuer,
        *,
        services: Issuer | None = None,
        emulated: bool = False,
        calls_per_minute: int = 1_000,
        origins: Collection[str] = (),
        limits: CallLimits | None = None,
        handlers: Handlers | None = None,
    ) -> None:
        self.issuer = issuer
        self.services = services
        self.memory = MemoryHandlers()
        self.observer = Observer()
        self.clock = ForwardClock()
        rules = IdentityRules(
            project=PROJECT,
            keys_url=issuer.url,
            is_emulated=emulated,
            services=None if services is None else services.rules,
        )
        self.calls = Calls(
            handlers or self.memory,
            identity=Identity(rules, self.clock, app_check=None),
            rate=Rate(calls_per_minute, self.clock),
            origins=Origins(origins),
            limits=limits or CallLimits(),
            clock=self.clock,
            observer=self.observer,
        )

    def headers(self, uid: str | None = "u1", **others: str) -> Mapping[str, str]:
        """The headers of a signed-in user's call; None: nobody is signed in."""
        if uid is None:
            return {**JSON, **others}
        token = self.issuer.signer.sign(user_claims(uid))
        return {**JSON, "authorization": f"Bearer {token}", **others}

    async def answer(
        self, name: str, data: object = None, uid: str | None = "u1", **headers: str
    ) -> Answer:
        body = json.dumps({"data": data}).encode()
        return await self.calls.answer(name, "POST", self.headers(uid, **headers), body)

    async def result(self, name: str, data: object = None, uid: str = "u1") -> Any:
        """Call, and give the result; an error fails the test."""
        answer = await self.answer(name, data, uid)
        return json.loads(answer.body)["result"]

    async def error(
        self, name: str, data: object = None, uid: str | None = "u1"
    ) -> tuple[int, str]:
        """Call, and give HTTP status and code of the error; a result fails the test."""
        answer = await self.answer(name, data, uid)
        return answer.status, json.loads(answer.body)["error"]["status"]


@contextlib.asynccontextmanager
async def on_port(calls: Calls, *, room: BodyRoom | None = None) -> AsyncIterator[int]:
    """Serve the calls; gives the port."""
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(GatewayApp(calls, room=room), HOST, 0, stop, on_listening=listening.set_result)
    )
    try:
        yield await listening
    finally:
        stop.set()
        await serving
