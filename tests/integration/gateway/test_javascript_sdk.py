"""Firebase's own JavaScript SDK calls the gateway, signed in by the Auth emulator."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from storemirror.gateway.calls import Calls
from storemirror.gateway.port import ReadMode
from tests.integration.gateway.hosted import CallsUnderTest, on_port
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import UNHURRIED, another_gateway, running_gateway
from tests.support.node import PROJECT, run_script

NewDatabase = Callable[[], Awaitable[str]]
#: Texts that say nothing to whoever compares them: whether there is one is what counts.
OPAQUE = ("token", "older", "newer", "conversationId")
OF_THE_SOURCE = ("source", "asOf")


async def told_by_the_sdk(
    calls: Calls,
    auth_emulator: str,
    folder: Path,
    *,
    run: str,
    style: str = "domain",
    readers: Mapping[ReadMode, int] | None = None,
) -> Any:
    """
    The story of `story.mjs`, step by step.

    Args:
        calls: answer.
        auth_emulator: its host:port.
        folder: of the test's own.
        run: names its users apart from those of others.
        style: how callables are found.
        readers: ports of gateways that are asked each read too.
    """
    others = {mode.value: f"http://127.0.0.1:{port}" for mode, port in (readers or {}).items()}
    async with on_port(calls) as port:
        return await run_script(
            "story.mjs",
            folder / run,
            {
                "GATEWAY": f"http://127.0.0.1:{port}",
                "AUTH": f"http://{auth_emulator}",
                "PROJECT": PROJECT,
                "STYLE": style,
                "RUN": run,
                "READERS": json.dumps(others),
            },
        )


@pytest.mark.parametrize("style", ["domain", "emulator"])
async def test_the_sdk_finds_calls_and_understands_the_gateway(
    issuer: JwkIssuer, auth_emulator: str, tmp_path: Path, style: str
) -> None:
    """It is the transport of web apps, Flutter's among them; it finds callables in two ways."""
    under_test = CallsUnderTest(issuer, emulated=True)
    told = await told_by_the_sdk(
        under_test.calls, auth_emulator, tmp_path, run=f"memory-{style}", style=style
    )
    judge(told)
    assert under_test.calls.counts.failed_count == 0


@pytest.mark.postgres
async def test_the_sdk_is_told_the_same_in_every_read_mode(
    new_database: NewDatabase, issuer: JwkIssuer, auth_emulator: str, tmp_path: Path
) -> None:
    """Field by field, whichever side answers: that is what lets a team move cohort by cohort."""
    told: dict[ReadMode, Any] = {}
    for mode in ReadMode:
        settings = {
            **UNHURRIED,
            "STOREMIRROR_GATEWAY_READ_MODE": mode.value,
            "FIREBASE_AUTH_EMULATOR_HOST": auth_emulator,
        }
        async with running_gateway(new_database, issuer, settings) as world:
            calls = world.gateway.calls
            told[mode] = await told_by_the_sdk(calls, auth_emulator, tmp_path, run=mode.value)
            assert calls.counts.failed_count == 0
        judge(told[mode])
    assert {mode: sources_in(steps) for mode, steps in told.items()} == {
        ReadMode.FIRESTORE: {"firestore"},
        ReadMode.SHADOW: {"firestore"},
        ReadMode.SQL: {"sql"},
        ReadMode.SQL_ONLY: {"sql"},
    }
    alike = {mode: comparable(steps) for mode, steps in told.items()}
    for mode in ReadMode:
        assert alike[mode] == alike[ReadMode.FIRESTORE], mode


@pytest.mark.postgres
@pytest.mark.timeout(600)
async def test_every_read_mode_answers_alike_over_googles_emulator(
    new_database: NewDatabase,
    issuer: JwkIssuer,
    auth_emulator: str,
    emulator_host: str,
    tmp_path: Path,
) -> None:
    """The same reads of the same documents: equal to the letter, cursors and refusals too."""
    settings = {
        **UNHURRIED,
        "STOREMIRROR_DOCUMENTS_KIND": "firestore",
        "FIRESTORE_EMULATOR_HOST": emulator_host,
        # The Auth emulator has one project; a database of its own keeps others' documents out.
        "STOREMIRROR_FIRESTORE_DATABASE": f"story-{secrets.token_hex(8)}",
        "FIREBASE_AUTH_EMULATOR_HOST": auth_emulator,
    }
    async with contextlib.AsyncExitStack() as stack:
        world = await stack.enter_async_context(running_gateway(new_database, issuer, settings))
        gateways = {
            mode: await stack.enter_async_context(
                another_gateway(world, {"STOREMIRROR_GATEWAY_READ_MODE": mode.value})
            )
            for mode in ReadMode
        }
        readers = {
            mode: await stack.enter_async_context(on_port(reader.gateway.calls))
            for mode, reader in gateways.items()
        }
        told = await told_by_the_sdk(
            world.gateway.calls, auth_emulator, tmp_path, run="emulator", readers=readers
        )
        # Each write was mirrored within its call: there are no triggers here.
        assert await world.is_clean()
    reads = told.pop("reads")
    judge(told)
    judge_alike(reads)
    shadow = gateways[ReadMode.SHADOW].gateway.status()["shadow"]
    assert isinstance(shadow, dict)
    assert shadow["compared"] > 0
    assert (shadow["different"], shadow.get("failed", 0)) == (0, 0)


def judge_alike(reads: Any) -> None:
    """Every mode gave the same answer, each from its side."""
    names = {read["name"] for read in reads}
    assert len(names) == 3, names
    for read in reads:
        plain = {
            mode: {key: value for key, value in answer.items() if key not in OF_THE_SOURCE}
            for mode, answer in read["answers"].items()
        }
        assert set(plain) == {mode.value for mode in ReadMode}
        assert all(answer == plain["firestore"] for answer in plain.values()), read
    by_mode = {
        mode: {read["answers"][mode].get("source", "refused") for read in reads}
        for mode in ReadMode
    }
    assert by_mode == {
        ReadMode.FIRESTORE: {"firestore", "refused"},
        ReadMode.SHADOW: {"firestore", "refused"},
        ReadMode.SQL: {"sql", "refused"},
        ReadMode.SQL_ONLY: {"sql", "refused"},
    }


@pytest.mark.parametrize(
    ("field", "other"),
    [("body", "y"), ("senderId", "u2"), ("sentAt", "2026-01-03"), ("editedAt", "2026-01-01")],
)
def test_a_difference_between_modes_is_noticed(field: str, other: str) -> None:
    """What differs by itself from run to run must hide nothing else."""
    uids = {"alice": "u1", "bob": "u2"}
    message = {"body": "x", "senderId": "u1", "sentAt": "2026-01-01", "editedAt": None}
    told = {"uids": uids, "a": {"lastReadAt": "2026-01-02"}, "b": {"items": [message]}}
    changed = {**told, "b": {"items": [{**message, field: other}]}}
    assert comparable(told) != comparable(changed)


def sources_in(told: Any) -> set[str]:
    """Which sides answered."""
    return {step["source"] for step in told.values() if isinstance(step, dict) and "source" in step}


def comparable(told: Any) -> Any:
    """The story without what differs from run to run: uids by name, times by their order."""
    names = {uid: name for name, uid in told["uids"].items()}
    times = sorted(set(times_in(told)))

    def leveled(value: Any) -> Any:
        if isinstance(value, list):
            return [leveled(element) for element in value]
        if not isinstance(value, dict):
            return names.get(value, times.index(value) if value in times else value)
        return {
            key: bool(element) if key in OPAQUE else leveled(element)
            for key, element in value.items()
            if key not in OF_THE_SOURCE
        }

    return {name: leveled(step) for name, step in told.items() if name != "uids"}


def times_in(value: Any) -> Iterator[str]:
    """Every time that an answer tells, but up to when it shows all."""
    if isinstance(value, list):
        for element in value:
            yield from times_in(element)
    elif isinstance(value, dict):
        for key, element in value.items():
            if key.endswith("At") and isinstance(element, str):
                yield element
            elif key not in OF_THE_SOURCE:
                yield from times_in(element)


def judge(told: Any) -> None:
    """The story went as it should."""
    judge_messages(told)
    judge_refusals(told)
    judge_follows(told)


def judge_messages(told: Any) -> None:
    """What was sent is listed, paged, counted, changed and gone."""
    alice, bob = told["uids"]["alice"], told["uids"]["bob"]
    assert (told["opened"]["wasCreated"], told["opened again"]["wasCreated"]) == (True, False)
    sent = told["sent 3"]["message"]
    assert (sent["senderId"], sent["body"]) == (alice, "message 3")
    assert told["sent 3 again"]["message"] == sent
    (line,) = told["bob's inbox"]["items"]
    assert (line["title"], line["unreadCount"], line["unreadIsMore"]) == ("Lunch", 3, False)
    assert line["lastMessage"]["preview"] == "message 3"
    assert [other["userId"] for other in line["others"]] == [alice]
    bodies = {
        name: [message["body"] for message in told[name]["items"]]
        for name in ("first page", "second page", "back again", "what is left")
    }
    assert bodies == {
        "first page": ["message 3", "message 2"],
        "second page": ["message 1"],
        "back again": ["message 3", "message 2"],
        "what is left": ["changed 💬", "message 1"],
    }
    assert told["second page"]["older"] is None
    (line,) = told["inbox after reading"]["items"]
    assert (line["unreadCount"], line["lastReadAt"]) == (0, told["marked read"]["lastReadAt"])
    assert told["edited"]["message"]["editedAt"] is not None
    assert told["deleted"]["message"] is None
    assert bob != alice


def judge_refusals(told: Any) -> None:
    """Errors arrive with the codes that apps look at."""
    codes = {name: code for name, code in told.items() if isinstance(code, str)}
    assert codes == {
        "signed out": "functions/unauthenticated",
        "signed out again": "functions/unauthenticated",
        "edit of another's": "functions/not-found",
        "another's conversation": "functions/not-found",
        "no conversation": "functions/not-found",
        "no viewer": "functions/permission-denied",
        "no request": "functions/invalid-argument",
        "no callable": "functions/not-found",
        "sent by the blocked": "functions/permission-denied",
    }


def judge_follows(told: Any) -> None:
    """Each sees the relationship from their side."""
    edges = ("outgoing", "incoming", "outgoingBlock", "incomingBlock")
    views = {
        name: tuple(told[name][edge] for edge in edges)
        for name in ("alice's view", "bob's view", "view of the blocked")
    }
    assert views == {
        "alice's view": (True, False, False, False),
        "bob's view": (False, True, False, False),
        "view of the blocked": (False, False, False, True),
    }
    assert told["streamed"]["messages"] == []
    assert tuple(told["streamed"]["result"][edge] for edge in edges) == (False,) * 4
