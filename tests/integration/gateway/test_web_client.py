"""The TypeScript example of client teams, on the real gateway, Firestore and Auth emulators."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.hosted import on_port
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import (
    UNHURRIED,
    GatewayWorld,
    another_gateway,
    running_gateway,
)
from tests.support.emulator import DeliveringEmulator, delivering_emulator
from tests.support.emulator_process import free_port
from tests.support.node import (
    COMPILER,
    EXAMPLE,
    INSTALL_LINE,
    NODE,
    PROJECT,
    ROOT,
    check_types,
    laid_out,
    run_script,
)

# Two emulators start, and the machine may be busy.
pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

NewDatabase = Callable[[], Awaitable[str]]
LIST = "sqlGatewayDmListMessages"
SEND = "sqlGatewayDmSend"
GOLDEN = ROOT / "tests" / "golden" / "callables-v1"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[DeliveringEmulator]:
    """One a test, with the example's security rules."""
    with delivering_emulator(tmp_path / "emulator.log") as running:
        running.load_rules((EXAMPLE / "firestore.rules").read_text(), PROJECT)
        yield running


@contextlib.asynccontextmanager
async def gateway_over(
    emulator: DeliveringEmulator,
    auth_emulator: str,
    new_database: NewDatabase,
    issuer: JwkIssuer,
) -> AsyncIterator[GatewayWorld]:
    """Lend a gateway that serves SQL and writes into the emulator, which delivers to triggers."""
    settings = {
        **UNHURRIED,
        "STOREMIRROR_DOCUMENTS_KIND": "firestore",
        "FIRESTORE_EMULATOR_HOST": emulator.host,
        "FIREBASE_AUTH_EMULATOR_HOST": auth_emulator,
        "STOREMIRROR_TRIGGERS_PORT": str(emulator.receiver_port),
        "STOREMIRROR_GATEWAY_READ_MODE": "sql",
        # What waits on the bus is to be asked for by token, not by its age.
        "STOREMIRROR_GATEWAY_MAX_LAG_S": "3600",
    }
    async with running_gateway(new_database, issuer, settings) as world:
        stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
        triggers = asyncio.create_task(
            world.parts.serve_triggers(stop, on_listening=listening.set_result)
        )
        try:
            await listening
            await asyncio.to_thread(emulator.register, world.parts.model, PROJECT)
            yield world
        finally:
            stop.set()
            await triggers


async def told(
    world: GatewayWorld,
    script: str,
    emulator: DeliveringEmulator,
    auth_emulator: str,
    folder: Path,
    more: Mapping[str, str] | None = None,
) -> Any:
    """What a script has to tell."""
    async with on_port(world.gateway.calls) as port:
        variables = {
            "GATEWAY": f"http://127.0.0.1:{port}",
            "NOBODY": f"http://127.0.0.1:{free_port()}",
            "AUTH": f"http://{auth_emulator}",
            "FIRESTORE": f"http://{emulator.host}",
            "PROJECT": PROJECT,
            **(more or {}),
        }
        return await run_script(script, folder, variables)


async def test_screens_show_what_everybody_sends(
    emulator: DeliveringEmulator,
    auth_emulator: str,
    new_database: NewDatabase,
    issuer: JwkIssuer,
    tmp_path: Path,
) -> None:
    """Sent through the gateway, by an older client, or offline: every screen has it (issue 7)."""
    async with gateway_over(emulator, auth_emulator, new_database, issuer) as world:
        stop, writer = asyncio.Event(), await world.parts.writer()
        writing = asyncio.create_task(writer.run(stop))
        try:
            found = await told(world, "web_client.mjs", emulator, auth_emulator, tmp_path / "app")
            assert await world.is_clean()
        finally:
            stop.set()
            await writing
    judge_screens(found)
    judge_pages(found["pages"])
    judge_refusals(found)


def judge_screens(found: Any) -> None:
    """What was shown, newest first."""
    assert found["chosen"] == [
        "FirestoreMessagesRepository",
        "GatewayMessagesRepository",
        "OfflineMessagesRepository",
    ]
    assert found["a message is seen"] == ["one"]
    assert found["sent twice"] == ["two", "one"]
    assert found["token handed back"] == "sql"
    before = ["from an older client", "five", "four", "three", "two", "one"]
    assert found["an older client's message is seen"] == before
    assert found["while offline"]["alice"] == ["and another", "written offline", *before]
    assert found["while offline"]["bob"] == before
    for screen in found["back online"].values():
        assert sorted(screen[:2]) == ["and another", "written offline"]
        assert screen[2:] == before
    assert sorted(found["mirrored"]) == [["off1", True], ["off2", True]]
    assert found["a signal that is no token"] == ["INVALID_ARGUMENT", "all the same"]
    assert found["errors on screens"] == []


def judge_pages(pages: Any) -> None:
    """Both repositories page alike, field by field."""
    by_gateway = pages["GatewayMessagesRepository"]
    assert by_gateway == pages["FirestoreMessagesRepository"]
    bodies = [[message["body"] for message in page["items"]] for page in by_gateway]
    assert bodies == [["five", "four"], ["three", "two"], ["one"], ["three", "two"], []]
    assert [page["hasOlder"] for page in by_gateway] == [True, True, False, True, False]


def judge_refusals(found: Any) -> None:
    """Nobody else gets in, neither by the gateway nor by Firestore."""
    assert found["a stranger's screen"] == ["permission-denied"]
    assert found["refused"] == {
        "a stranger's page": "functions/not-found",
        "a stranger's message": "permission-denied",
        "another's name": "permission-denied",
        "another title": "permission-denied",
    }
    assert found["sent by the blocked"] == ["functions/permission-denied", "permission-denied"]
    assert found["nobody listens"] == "functions/internal"


async def test_screens_show_what_sql_does_not_have_yet(
    emulator: DeliveringEmulator,
    auth_emulator: str,
    new_database: NewDatabase,
    issuer: JwkIssuer,
    tmp_path: Path,
) -> None:
    """The signal carries the token: without it everybody else's page would lack the message."""
    not_mirrored = {"STOREMIRROR_GATEWAY_DUAL_WRITE": "false"}
    async with (
        gateway_over(emulator, auth_emulator, new_database, issuer) as world,
        another_gateway(world, not_mirrored) as behind,
        on_port(world.gateway.calls) as port,
    ):
        # No writer runs: what the triggers tell waits on the bus.
        found = await told(
            behind,
            "web_client_behind.mjs",
            emulator,
            auth_emulator,
            tmp_path / "app",
            {"MIRRORING": f"http://127.0.0.1:{port}"},
        )
    assert found["SQL knows"] == ["known to SQL"]
    assert found["bob's screen"] == ["two", "one", "known to SQL"]
    assert found["alice's page"] == found["bob's screen"]
    sent = [call["result"] for call in found["calls"] if call["name"] == SEND]
    assert [result["mirrored"] for result in sent] == [False, False]
    pages = [call for call in found["calls"] if call["name"] == LIST]
    assert {page["result"]["source"] for page in pages if "after" not in page["data"]} == {"sql"}
    tokens = {result["token"] for result in sent}
    by_token = [page["result"] for page in pages if page["data"].get("after") in tokens]
    assert {result["source"] for result in by_token} == {"firestore"}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, where `tsc` finds the modules."""
    if not (NODE.exists() and COMPILER.exists()):
        pytest.skip(INSTALL_LINE)
    laid_out(tmp_path / "app")
    return tmp_path / "app" / EXAMPLE.name


async def test_the_types_are_right(example: Path) -> None:
    """What a client team copies compiles under the strictest settings; a slip is found."""
    assert await check_types(example) == ""
    (example / "slip.ts").write_text(
        'import { messagesRepository } from "./index.ts";\nmessagesRepository({}, "yes");\n'
    )
    assert "slip.ts(2," in await check_types(example)


async def test_the_types_are_those_of_the_golden_answers(example: Path) -> None:
    """A field too many or too few in either is an error of the compiler's."""
    lines = ['import type { Callables } from "./callables.ts";']
    for number, golden in enumerate(golden_answers(LIST, SEND)):
        answer = json.dumps(golden["answer"]["result"])
        kind = f'Callables["{golden["callable"]}"][1]'
        lines.append(f"export const answer{number}: {kind} = {answer};")
    assert len(lines) > 4
    (example / "golden.ts").write_text("\n".join(lines))
    assert await check_types(example) == ""
    renamed = "\n".join(lines).replace("editedAt", "changedAt")
    (example / "golden.ts").write_text(renamed)
    assert "changedAt" in await check_types(example)


def golden_answers(*names: str) -> Iterator[Any]:
    """The golden calls of some callables that were answered."""
    for file in sorted(GOLDEN.glob("*.json")):
        golden = json.loads(file.read_text())
        if golden["callable"] in names and golden["status"] == 200:
            yield golden
