"""`storemirror up`: one process from the trigger's delivery to the row, on real databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from google.events.cloud.firestore import DocumentEventData  # type: ignore[import-untyped]

from storemirror.clock import EPOCH, SystemClock
from storemirror.sql.postgres.connection import MIRROR, Database, psycopg, sql
from storemirror.sql.postgres.server import EmbeddedServer
from tests.acceptance.conftest import Operator, going_command
from tests.acceptance.test_operator import conversation, message
from tests.integration.receiver.hosted import call
from tests.support.deliveries import HEADERS, NAME, PATH, fill_image

pytestmark = pytest.mark.postgres

_CLOCK = SystemClock()
A_MESSAGE = {"senderId": "u1", "body": "hi", "sentAt": EPOCH}
#: Deliveries come over HTTP where documents are in Firestore; nothing is read there unless a row's
#: past was purged, so that nobody need listen.
FIRESTORE = {
    "STOREMIRROR_DOCUMENTS_KIND": "firestore",
    "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",
    "STOREMIRROR_TRIGGERS_PORT": "0",
}


class Up:
    """A running `storemirror up`, or another command that goes on."""

    def __init__(self, process: asyncio.subprocess.Process, operator: Operator) -> None:
        self._process = process
        self._operator = operator
        self.lines: list[str] = []

    async def first_line(self) -> str:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        if not line:
            raise AssertionError((await self.ended())[2])
        return line

    async def deliver(self, port: int, number: int) -> int:
        """Deliver a write of a message, as Eventarc does; gives the answer's status."""
        data = DocumentEventData.pb()()
        fill_image(data.value, A_MESSAGE, 20 + number, name=f"{NAME}{number}")
        path = f"{PATH}{number}"
        headers = {
            **HEADERS,
            "Ce-Id": f"d{number}",
            "Ce-Subject": f"documents/{path}",
            "Ce-Document": path,
        }
        return (await call(port, "POST", "/", headers, data.SerializeToString())).status

    async def ended(self) -> tuple[int, list[str], str]:
        """Wait for the end; gives status, lines of standard output, and standard error."""
        out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode().splitlines(), err.decode()

    async def stop(self) -> tuple[int, list[str], str]:
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def row_count(self) -> int:
        return len(await rows(self._operator, b"SELECT FROM storemirror.dm_message"))


@contextlib.asynccontextmanager
async def running(operator: Operator, command: str = "up", **variables: str) -> AsyncIterator[Up]:
    """Start `storemirror up`, or another; it is killed at the end, if it has not ended."""
    environment = {**operator.environment, **variables}
    async with going_command(command, environment=environment, folder=operator.folder) as process:
        yield Up(process, operator)


async def rows(operator: Operator, query: bytes) -> list[tuple[Any, ...]]:
    """Read the mirror past every adapter."""
    database = Database(operator.environment["STOREMIRROR_SQL_DSN"], MIRROR, max_size=1)
    await database.open()
    try:
        return await database.fetch(query)
    finally:
        await database.aclose()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds; the time is bounded by `running`."""
    while not await holds():
        await _CLOCK.sleep(0.05)


async def count_is(up: Up, count: int) -> None:
    async def holds() -> bool:
        return await up.row_count() == count

    await until(holds)


def port_of(line: str) -> int:
    assert line.startswith("listening on 127.0.0.1:"), line
    return int(line.rpartition(":")[2])


async def set_reachable(postgres: EmbeddedServer, dsn: str, *, is_reachable: bool) -> None:
    """Let a database be connected to, or cut it off from everybody."""
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    admin = Database(postgres.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()
    async with admin.connection() as conn:
        allowed = sql.SQL("true" if is_reachable else "false")
        await conn.execute(
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
                sql.Identifier(str(name)), allowed
            )
        )
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
    await admin.aclose()


async def test_deliveries_become_rows_and_all_is_settled_at_the_end(deployed: Operator) -> None:
    """The whole of a small deployment is this one command."""
    async with running(deployed, **FIRESTORE, STOREMIRROR_UP_DRAIN_INTERVAL_S="1") as up:
        port = port_of(await up.first_line())
        statuses = [await up.deliver(port, n) for n in range(5)]
        assert statuses == [204] * 5
        drained = json.loads(await up.first_line())
        assert {"received", "applied", "depth", "is_drained"} <= drained.keys()
        await count_is(up, 5)
        status, lines, err = await up.stop()
    assert status == 0, err
    told = json.loads(lines[-1])
    assert told["triggers"]["published_count"] == 5
    assert told["drain_count"] >= 1
    waiting = (await deployed.runs("bus", "status", "--json")).json()
    assert (waiting["depth"], waiting["dead_letter_count"]) == (0, 0)


async def test_an_outage_of_bus_and_sql_does_not_end_it(
    deployed: Operator, postgres: EmbeddedServer
) -> None:
    """What was promised to the caller is applied when the databases are back."""
    bus, mirror = (deployed.environment[f"STOREMIRROR_{n}_DSN"] for n in ("BUS", "SQL"))
    async with running(deployed, **FIRESTORE) as up:
        port = port_of(await up.first_line())
        assert await up.deliver(port, 0) == 204
        await count_is(up, 1)
        await set_reachable(postgres, mirror, is_reachable=False)
        assert await up.deliver(port, 1) == 204
        await set_reachable(postgres, bus, is_reachable=False)
        assert await up.deliver(port, 2) == 503
        await set_reachable(postgres, bus, is_reachable=True)

        async def is_taken() -> bool:
            return await up.deliver(port, 2) == 204

        await until(is_taken)
        await set_reachable(postgres, mirror, is_reachable=True)
        await count_is(up, 3)
        status, _, err = await up.stop()
    assert status == 0, err


async def test_with_the_embedded_store_it_relays_and_needs_no_google(deployed: Operator) -> None:
    """The same command on a laptop without an account."""
    async with deployed.parts() as parts:
        await (await parts.embedded_store()).commit([conversation(), message()])
    async with running(deployed) as up:
        assert "embedded" in await up.first_line()
        await count_is(up, 1)
        status, lines, err = await up.stop()
    assert status == 0, err
    assert json.loads(lines[-1])["triggers"]["published_count"] == 2
    assert (await deployed.runs("check")).status == 0


async def test_with_the_gateway_it_answers_calls_in_the_same_process(deployed: Operator) -> None:
    """Everything in one process on a laptop; signed out, a call is refused (issue 7)."""
    gateway = {"STOREMIRROR_UP_WITH_GATEWAY": "true", "STOREMIRROR_GATEWAY_PORT": "0"}
    async with running(deployed, **gateway) as up:
        said = {await up.first_line() for _ in range(2)}
        [address] = [line for line in said if line.startswith("answering calls on ")]
        port = int(address.rpartition(":")[2])
        assert (await call(port, "GET", "/healthz", {}, b"")).status == 200
        headers = {"content-type": "application/json"}
        answer = await call(port, "POST", "/sqlGatewayDmListConversations", headers, b'{"data":{}}')
        assert answer.status == 401
        status, lines, err = await up.stop()
    assert status == 0, err
    [line] = json.loads(lines[-1])["gateway"]["latency"][:1]
    assert (line["callable"], line["outcome"]) == (
        "sqlGatewayDmListConversations",
        "UNAUTHENTICATED",
    )


async def test_what_the_gateway_lacks_is_said_before_anything_starts(deployed: Operator) -> None:
    """A gateway without identities must not run unseen beside the writer."""
    ended = await deployed.runs(
        "up",
        STOREMIRROR_UP_WITH_GATEWAY="true",
        STOREMIRROR_FIRESTORE_PROJECT="shop",
        FIREBASE_AUTH_EMULATOR_HOST="127.0.0.1:9099",
    )
    assert ended.status == 4
    assert "anybody could call as anybody" in ended.err


async def test_a_port_that_is_taken_is_named_and_nothing_is_received(deployed: Operator) -> None:
    """Two of them on one machine: the second must not mirror unseen and unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await deployed.runs("up", **(FIRESTORE | {"STOREMIRROR_TRIGGERS_PORT": port}))
    assert ended.status == 4
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.err
    assert "Traceback" not in ended.err


async def test_switched_off_it_says_so_and_receives_nothing(deployed: Operator) -> None:
    """The master switch is for all of it."""
    ended = await deployed.runs("up", USE_SQL_DM_WRITE_MIRROR="false")
    assert ended.status == 7
    assert "USE_SQL_DM_WRITE_MIRROR" in ended.err


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, ("firestore.project", "documents.dsn", "bus.dsn", "sql.dsn")),
        (
            {**FIRESTORE, "STOREMIRROR_TRIGGERS_HOST": "0.0.0.0"},
            ("firestore.project", "bus.dsn", "sql.dsn", "triggers.audience"),
        ),
    ],
    ids=["embedded", "firestore"],
)
async def test_everything_that_is_missing_is_said_at_once(
    operator: Operator, variables: Mapping[str, str], missing: tuple[str, ...]
) -> None:
    """Mending one setting a start is how an afternoon is lost."""
    bare = Operator({"USE_SQL_DM_WRITE_MIRROR": "true"}, operator.folder)
    ended = await bare.runs("up", **variables)
    assert ended.status == 4
    assert [name for name in missing if name not in ended.err] == []


async def test_what_no_waiting_can_help_ends_the_whole(operator: Operator) -> None:
    """Without a topic nothing can ever be received: it ends, with what to run."""
    assert (await operator.runs("schema", "apply")).status == 0
    ended = await operator.runs("up")
    assert ended.status == 5
    assert "storemirror bus provision" in ended.err
    assert "Traceback" not in ended.err
