"""The table of who may do what: every callable, with every kind of wrong caller."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.cursor import token_of, write_of
from storemirror.gateway.port import ReadMode, WriteToken
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


async def test_a_stranger_does_not_open_what_is_there(world: GatewayWorld) -> None:
    """Who guesses id and people must not learn that they are right, nor when it changed."""
    for people in (["ann", "ben", "dan"], ["ann", "ben", "dan", "eve"], ["ben"]):
        opening = {"conversationId": ROOM, "participantIds": people}
        told_status = await told(world, "eve", "sqlGatewayDmOpenConversation", opening)
        assert told_status in ("ALREADY_EXISTS", "PERMISSION_DENIED"), people
    opening = {"conversationId": ROOM, "participantIds": ["ann", "ben", "dan"]}
    assert await told(world, "ann", "sqlGatewayDmOpenConversation", opening) == "OK"


async def test_a_block_holds_against_new_words_of_an_old_message(world: GatewayWorld) -> None:
    """An edit reaches the one who blocked as a message does; taking it back is allowed."""
    own = {"conversationId": ROOM, "messageId": "d1"}
    await world.call("ben", "sqlGatewayBlockDelete", target="dan")
    await world.call("dan", "sqlGatewayDmSend", **own, body="hi")
    await world.call("ben", "sqlGatewayBlockUpsert", target="dan")
    for data, status in (({"body": "new"}, "PERMISSION_DENIED"), ({"body": "hi"}, "OK")):
        assert await told(world, "dan", "sqlGatewayDmEdit", {**own, **data}) == status
    assert await told(world, "dan", "sqlGatewayDmDelete", own) == "OK"


async def test_a_forged_token_tells_a_stranger_nothing(world: GatewayWorld) -> None:
    """Whatever version it names, of a conversation that is there and of one that is not."""
    again = {"conversationId": ROOM, "messageId": "m1", "body": "hi"}
    sent = await world.call("ann", "sqlGatewayDmSend", **again)
    version = write_of(sent["token"]).version
    told_of = set()
    for room in (ROOM, "none"):
        for asked in (version - 2, version, version + 2):
            path = f"conversations/{room}/messages/m1"
            after = token_of(WriteToken(path=path, version=asked))
            data = {"conversationId": room, "after": after}
            told_of.add(await told(world, "eve", "sqlGatewayDmListMessages", data))
    assert len(told_of) == 1, told_of


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
