"""Firebase's own JavaScript SDK calls the gateway, signed in by the Auth emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.gateway.hosted import CallsUnderTest, on_port
from tests.integration.gateway.issuers import JwkIssuer
from tests.support.node import PROJECT, run_script


async def told_by_the_sdk(
    under_test: CallsUnderTest, auth_emulator: str, folder: Path, *, style: str
) -> Any:
    """The story of `story.mjs`, step by step."""
    async with on_port(under_test.calls) as port:
        return await run_script(
            "story.mjs",
            folder,
            {
                "GATEWAY": f"http://127.0.0.1:{port}",
                "AUTH": f"http://{auth_emulator}",
                "PROJECT": PROJECT,
                "STYLE": style,
                "RUN": style,
            },
        )


async def test_the_sdk_finds_calls_and_understands_the_gateway(
    issuer: JwkIssuer, auth_emulator: str, tmp_path: Path
) -> None:
    """It is the transport of web apps, Flutter's among them; both of its ways to find callables."""
    for style in ("domain", "emulator"):
        under_test = CallsUnderTest(issuer, emulated=True)
        told = await told_by_the_sdk(under_test, auth_emulator, tmp_path / style, style=style)
        judge_messages(told)
        judge_refusals(told)
        judge_follows(told)
        assert under_test.calls.counts.failed_count == 0


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
