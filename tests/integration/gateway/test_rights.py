"""The table of who may do what: every callable, with every kind of wrong caller."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.port import ReadMode
from tests.integration.gateway.issuers import JwkIssuer, JwkKey, user_claims
from tests.integration.gateway.world import JSON, CallFailed, GatewayWorld, running_gateway

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
ROOM = "c1"
#: Ann has sent m1 and m2 into c1, which she shares with Ben and with Dan; then Ben blocked Dan.
ANNS = {"conversationId": ROOM, "messageId": "m1"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One callable: what Ann sends, and what each caller is told."""

    name: str
    data: Mapping[str, object] = field(default_factory=dict)
    #: Eve takes no part in anything.
    stranger: str = "OK"
    #: Dan takes part, and Ben has blocked him.
    blocked: str = "OK"


TABLE = [
    Row(name="sqlGatewayDmListConversations"),
    Row(
        name="sqlGatewayDmListMessages",
        data={"conversationId": ROOM},
        stranger="NOT_FOUND",
    ),
    Row(
        name="sqlGatewayDmOpenConversation",
        data={"participantIds": ["ben"]},
        blocked="PERMISSION_DENIED",
    ),
    Row(
        name="sqlGatewayDmSend",
        data={"conversationId": ROOM, "body": "hi"},
        stranger="NOT_FOUND",
        blocked="PERMISSION_DENIED",
    ),
    Row(
        name="sqlGatewayDmSend",
        data={"mode": "mirror", **ANNS},
        stranger="NOT_FOUND",
    ),
    # Another's message is as if it were not there, for those in the conversation too.
    Row(
        name="sqlGatewayDmEdit",
        data={**ANNS, "body": "x"},
        stranger="NOT_FOUND",
        blocked="NOT_FOUND",
    ),
    Row(name="sqlGatewayDmDelete", data=ANNS, stranger="NOT_FOUND", blocked="NOT_FOUND"),
    Row(name="sqlGatewayDmMarkRead", data={"conversationId": ROOM}, stranger="NOT_FOUND"),
    Row(name="sqlGatewayFollowGetRelationship", data={"target": "ben"}),
    Row(
        name="sqlGatewayFollowEdgeUpsert",
        data={"target": "ben"},
        blocked="PERMISSION_DENIED",
    ),
    Row(name="sqlGatewayFollowEdgeDelete", data={"target": "ben"}),
    Row(name="sqlGatewayBlockUpsert", data={"target": "ben"}),
    Row(name="sqlGatewayBlockDelete", data={"target": "ben"}),
]


@pytest.fixture(params=[ReadMode.FIRESTORE, ReadMode.SQL_ONLY], ids=str)
async def world(
    request: pytest.FixtureRequest, new_database: NewDatabase, issuer: JwkIssuer
) -> AsyncIterator[GatewayWorld]:
    """Both sides must draw the same line."""
    settings = {"STOREMIRROR_GATEWAY_READ_MODE": request.param.value}
    async with running_gateway(new_database, issuer, settings) as opened:
        opening = {"conversationId": ROOM, "participantIds": ["ben", "dan"]}
        await opened.call("ann", "sqlGatewayDmOpenConversation", **opening)
        for message_id in ("m1", "m2"):
            sent = {"conversationId": ROOM, "messageId": message_id, "body": "hi"}
            await opened.call("ann", "sqlGatewayDmSend", **sent)
        await opened.call("ben", "sqlGatewayBlockUpsert", target="dan")
        yield opened


async def told(world: GatewayWorld, uid: str, name: str, data: Mapping[str, object]) -> str:
    """Call, and give the status."""
    try:
        await world.call(uid, name, **data)
    except CallFailed as failed:
        return failed.status
    return "OK"


def test_every_callable_is_in_the_table() -> None:
    """One that is added later must say who may call it."""
    assert {row.name for row in TABLE} == set(CALLABLES)


async def test_the_table_holds(world: GatewayWorld) -> None:
    """Stranger, blocked and rightful caller, in this order: the last one changes things."""
    for row in TABLE:
        assert await told(world, "eve", row.name, row.data) == row.stranger, row
        assert await told(world, "dan", row.name, row.data) == row.blocked, row
    for row in TABLE:
        assert await told(world, "ann", row.name, row.data) == "OK", row


async def test_not_there_and_not_yours_are_the_same_answer(world: GatewayWorld) -> None:
    """Word for word, for whoever guesses ids."""
    for name, data in (
        ("sqlGatewayDmListMessages", {}),
        ("sqlGatewayDmSend", {"body": "hi"}),
        ("sqlGatewayDmEdit", {"messageId": "m1", "body": "x"}),
        ("sqlGatewayDmDelete", {"messageId": "m1"}),
        ("sqlGatewayDmMarkRead", {}),
    ):
        theirs, nobodys = [
            await world.answer("eve", name, {"conversationId": room, **data})
            for room in (ROOM, "none")
        ]
        assert (theirs.status, theirs.body) == (nobodys.status, nobodys.body), name
    theirs, nobodys = [
        await world.answer("ben", "sqlGatewayDmDelete", {"conversationId": ROOM, "messageId": m})
        for m in ("m1", "none")
    ]
    assert (theirs.status, theirs.body) == (nobodys.status, nobodys.body)


async def test_no_callable_takes_a_token_that_is_none_of_ours(
    world: GatewayWorld, issuer: JwkIssuer
) -> None:
    """None, expired, unsigned, of another issuer, tampered with, signed by another key."""
    good = issuer.signer.sign(user_claims("ann"))
    head, _, signature = good.split(".")
    others = issuer.signer.sign(user_claims("ben"))
    tokens = {
        "none": None,
        "expired": issuer.signer.sign(user_claims("ann", expires_in_s=-60)),
        "unsigned": issuer.signer.sign(user_claims("ann"), alg="none"),
        "foreign": issuer.signer.sign(user_claims("ann", iss="https://securetoken.google.com/x")),
        "tampered": ".".join((head, others.split(".")[1], signature)),
        "other key": JwkKey("f1").sign(user_claims("ann")),
    }
    for row in TABLE:
        for kind, token in tokens.items():
            assert await _status(world, row, token) == "UNAUTHENTICATED", (row.name, kind)
    [line] = (await world.call("ann", "sqlGatewayDmListConversations"))["items"]
    assert line["lastMessage"]["messageId"] == "m2", "nothing was written"


async def test_users_name_no_viewer_but_themselves(world: GatewayWorld) -> None:
    """Who blocked whom is between the two."""
    asked = {"target": "dan", "viewer": "ben"}
    assert await told(world, "eve", "sqlGatewayFollowGetRelationship", asked) == (
        "PERMISSION_DENIED"
    )
    assert await told(world, "ben", "sqlGatewayFollowGetRelationship", asked) == "OK"


async def _status(world: GatewayWorld, row: Row, token: str | None) -> str:
    headers = {**JSON, **({} if token is None else {"authorization": f"Bearer {token}"})}
    body = json.dumps({"data": dict(row.data)}).encode()
    answer = await world.gateway.calls.answer(row.name, "POST", headers, body)
    found: Any = json.loads(answer.body)
    return str(found["error"]["status"]) if "error" in found else "OK"
