"""The whole gateway on real databases: documents, mirror, bus; a writer where a test wants one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from storemirror.check.result import CheckSettings
from storemirror.check.run import run_check
from storemirror.config import load_settings
from storemirror.gateway.auth import USER_ISSUER
from storemirror.gateway.protocol import Answer
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.wiring import Parts
from storemirror.wiring.gateway import Gateway, opened_gateway
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.support.node import PROJECT
from tests.support.proxy import Proxy

JSON = {"content-type": "application/json"}
NewDatabase = Callable[[], Awaitable[str]]
#: A machine that is busy must not make the other side answer.
UNHURRIED = {
    "STOREMIRROR_GATEWAY_MIRROR_TIMEOUT_S": "30",
    "STOREMIRROR_GATEWAY_SQL_TIMEOUT_S": "30",
    "STOREMIRROR_GATEWAY_FIRESTORE_TIMEOUT_S": "30",
    "STOREMIRROR_GATEWAY_READ_DEADLINE_S": "60",
    "STOREMIRROR_GATEWAY_WRITE_DEADLINE_S": "60",
}


class CallFailed(Exception):
    """A callable gave no result."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class GatewayWorld:
    """A gateway that is open, and what stands behind it."""

    def __init__(
        self, parts: Parts, gateway: Gateway, issuer: JwkIssuer, environment: Mapping[str, str]
    ) -> None:
        self.environment = environment
        self.parts = parts
        self.gateway = gateway
        self.issuer = issuer

    async def answer(self, uid: str, name: str, data: object) -> Answer:
        """Call as a signed-in user."""
        project = self.environment["STOREMIRROR_FIRESTORE_PROJECT"]
        claims = user_claims(uid, iss=f"{USER_ISSUER}{project}", aud=project)
        token = self.issuer.signer.sign(claims)
        headers = {**JSON, "authorization": f"Bearer {token}"}
        body = json.dumps({"data": data}).encode()
        return await self.gateway.calls.answer(name, "POST", headers, body)

    async def call(self, uid: str, name: str, **data: object) -> Any:
        """Call as a signed-in user; CallFailed without a result."""
        answer = json.loads((await self.answer(uid, name, data)).body)
        if "error" in answer:
            raise CallFailed(answer["error"]["status"], answer["error"]["message"])
        return answer["result"]

    async def store(self) -> EmbeddedDocumentStore:
        """Give the documents."""
        return await self.parts.embedded_store()

    async def settled(self) -> Mapping[str, int]:
        """Let the writer apply what waits; gives its counters."""
        store, admin = await self.store(), await self.parts.bus_admin()

        async def is_empty() -> bool:
            # In this order: what is published meanwhile is seen on the bus.
            if await store.pending_count():
                return False
            return (await admin.stats(self.parts.subscription)).depth == 0

        relay, writer = await self.parts.relay(), await self.parts.writer()
        stop = asyncio.Event()
        tasks = [asyncio.create_task(relay.run(stop)), asyncio.create_task(writer.run(stop))]
        try:
            async with asyncio.timeout(60):
                while not await is_empty():
                    await self.parts.clock.sleep(0.01)
        finally:
            stop.set()
            await asyncio.gather(*tasks)
        return writer.stats.counters()

    async def is_clean(self) -> bool:
        """Compare both sides in full."""
        pending = await self.parts.pending()
        # Where nobody can tell what is on its way, a busy machine may take long to bring it.
        settings = CheckSettings() if pending else CheckSettings(grace_s=90.0)
        found = await run_check(
            store=await self.parts.store(),
            mirror=await self.parts.mirror(),
            model=self.parts.model,
            bus_admin=await self.parts.bus_admin(),
            subscription=self.parts.subscription,
            pending=pending,
            clock=self.parts.clock,
            settings=settings,
        )
        return found.is_clean


@contextlib.asynccontextmanager
async def running_gateway(
    new_database: NewDatabase,
    issuer: JwkIssuer,
    more: Mapping[str, str] | None = None,
    *,
    documents_proxy: Proxy | None = None,
    sql_proxy: Proxy | None = None,
) -> AsyncIterator[GatewayWorld]:
    """
    Lend a gateway on databases of its own, with the schema installed.

    Args:
        new_database: makes an empty database.
        issuer: signs tokens.
        more: settings, as variables.
        documents_proxy: leads to the documents; None: nothing stands between.
        sql_proxy: leads to the mirror, likewise.
    """
    documents, sql = await new_database(), await new_database()
    environment = {
        "STOREMIRROR_FIRESTORE_PROJECT": PROJECT,
        "STOREMIRROR_DOCUMENTS_DSN": _led(documents, documents_proxy),
        "STOREMIRROR_BUS_DSN": await new_database(),
        "STOREMIRROR_SQL_DSN": _led(sql, sql_proxy),
        "STOREMIRROR_GATEWAY_AUTH_KEYS_URL": issuer.url,
        "STOREMIRROR_GATEWAY_DUAL_WRITE": "true",
        "USE_SQL_DM_WRITE_MIRROR": "true",
        **(more or {}),
    }
    async with Parts(load_settings(None, environment)) as parts:
        await (await parts.schema()).apply()
        await (await parts.bus_admin()).provision(parts.topic())
        async with opened_gateway(parts) as gateway:
            yield GatewayWorld(parts, gateway, issuer, environment)


@contextlib.asynccontextmanager
async def another_gateway(
    world: GatewayWorld, settings: Mapping[str, str]
) -> AsyncIterator[GatewayWorld]:
    """Lend a second gateway on the same databases, with other settings, as variables."""
    environment = {**world.environment, **settings}
    async with (
        Parts(load_settings(None, environment)) as parts,
        opened_gateway(parts) as gateway,
    ):
        yield GatewayWorld(parts, gateway, world.issuer, environment)


def _led(dsn: str, proxy: Proxy | None) -> str:
    return dsn if proxy is None else proxy.dsn(dsn)
