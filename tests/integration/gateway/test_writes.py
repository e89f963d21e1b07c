"""What writes do once, twice, and after the client wrote Firestore itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from storemirror.clock import datetime_from_us
from storemirror.event.value import encode_fields
from storemirror.gateway.wire import PARTICIPANTS_MAX_COUNT
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import TransactionBody, Write
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import CallFailed, GatewayWorld, running_gateway
from tests.support.long_keys import CONVERSATION_LENGTH, MESSAGE_LENGTH, declared_with_long_keys

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
MESSAGES = "sqlGatewayDmListMessages"
SEND = "sqlGatewayDmSend"
ROOM = "c1"
PATH = f"conversations/{ROOM}"


@pytest.fixture
async def world(new_database: NewDatabase, issuer: JwkIssuer) -> AsyncIterator[GatewayWorld]:
    """Ann and Ben share a conversation; SQL alone serves."""
    settings = {"STOREMIRROR_GATEWAY_READ_MODE": "sql-only"}
    async with running_gateway(new_database, issuer, settings) as opened:
        opening = {"conversationId": ROOM, "participantIds": ["ben"]}
        await opened.call("ann", "sqlGatewayDmOpenConversation", **opening)
        yield opened


async def write(world: GatewayWorld, path: str, fields: Mapping[str, object] | None) -> None:
    """Write Firestore as a client does."""
    encoded = None if fields is None else encode_fields(fields)
    await (await world.store()).commit([Write(path=path, fields=encoded)])


def a_message(body: str = "own") -> dict[str, object]:
    return {"senderId": "ann", "body": body, "sentAt": datetime_from_us(1_000_000)}


async def ids(world: GatewayWorld) -> list[str]:
    page = await world.call("ann", MESSAGES, conversationId=ROOM)
    return [item["messageId"] for item in page["items"]]


async def test_a_repeated_send_sends_one_message(world: GatewayWorld) -> None:
    """A phone that lost the answer calls again."""
    first, again = [
        await world.call("ann", SEND, conversationId=ROOM, messageId="m1", body="hi")
        for _ in range(2)
    ]
    assert first["token"] == again["token"]
    assert first["message"] == again["message"]
    assert await ids(world) == ["m1"]


@pytest.mark.parametrize(
    ("who", "body"), [("ann", "other"), ("ben", "hi")], ids=["contents", "sender"]
)
async def test_another_message_of_the_same_id_is_refused(
    world: GatewayWorld, who: str, body: str
) -> None:
    """It would overwrite what was said."""
    await world.call("ann", SEND, conversationId=ROOM, messageId="m1", body="hi")
    with pytest.raises(CallFailed) as refused:
        await world.call(who, SEND, conversationId=ROOM, messageId="m1", body=body)
    assert refused.value.status == "ALREADY_EXISTS"


async def test_what_the_client_wrote_itself_is_mirrored(world: GatewayWorld) -> None:
    """Written, changed and deleted: SQL shows each, before any trigger."""
    call = {"mode": "mirror", "conversationId": ROOM, "messageId": "m1"}
    for fields, body in ((a_message(), "own"), (a_message("new"), "new"), (None, None)):
        await write(world, f"{PATH}/messages/m1", fields)
        answer = await world.call("ann", SEND, **call)
        assert answer["mirrored"] is True
        assert (answer["message"] and answer["message"]["body"]) == body
        page = await world.call("ben", MESSAGES, conversationId=ROOM, after=answer["token"])
        assert [item["body"] for item in page["items"]] == ([] if body is None else [body])


async def test_a_mirrored_write_is_a_duplicate_when_its_trigger_comes(world: GatewayWorld) -> None:
    """Both have the same event id; a delete that was only observed has one of its own."""
    await write(world, f"{PATH}/messages/m1", a_message())
    await world.call("ann", SEND, mode="mirror", conversationId=ROOM, messageId="m1")
    counters = await world.settled()
    assert counters["applied"] == 0
    await write(world, f"{PATH}/messages/m1", None)
    await world.call("ann", SEND, mode="mirror", conversationId=ROOM, messageId="m1")
    counters = await world.settled()
    assert (counters["applied"], counters["stale"]) == (0, 1)
    assert await world.is_clean()


async def test_to_mirror_what_never_was_leaves_nothing_behind(world: GatewayWorld) -> None:
    """Each call would leave a tombstone, and a line of audit, for a user who calls in a loop."""
    for _ in range(2):
        answer = await world.call(
            "ann", SEND, mode="mirror", conversationId=ROOM, messageId="never"
        )
        # For all that SQL knows it was, and its events are on their way.
        assert (answer["mirrored"], answer["message"], answer["token"]) == (False, None, None)
    edge = await world.call("ann", "sqlGatewayFollowEdgeUpsert", mode="mirror", target="nobody")
    assert (edge["exists"], edge["token"]) == (False, None)
    mirror, model = await world.parts.mirror(), world.parts.model
    assert await mirror.row(model["DmMessage"], (ROOM, "never")) is None
    assert await mirror.row(model["FollowEdge"], ("ann", "nobody")) is None


async def test_to_take_away_what_is_not_there_is_mirrored_unless_sql_shows_it(
    world: GatewayWorld,
) -> None:
    """An app would wait for an event that never comes (issue 7)."""
    gone = await world.call("ann", "sqlGatewayFollowEdgeDelete", target="nobody")
    assert (gone["mirrored"], gone["token"]) == (True, None)
    # The client takes away itself what SQL shows: its deletion waits on the bus.
    await world.call("ann", "sqlGatewayFollowEdgeUpsert", target="ben")
    await write(world, "users/ann/following/ben", None)
    late = await world.call("ann", "sqlGatewayFollowEdgeDelete", target="ben")
    assert (late["mirrored"], late["token"]) == (False, None)
    await world.settled()
    again = await world.call("ann", "sqlGatewayFollowEdgeDelete", target="ben")
    assert (again["mirrored"], again["token"]) == (True, None)


async def test_nobody_mirrors_another_conversation(world: GatewayWorld) -> None:
    """Else a stranger could make SQL read, and learn what exists."""
    await write(world, f"{PATH}/messages/m1", a_message())
    for room in (ROOM, "none"):
        with pytest.raises(CallFailed) as refused:
            await world.call("eve", SEND, mode="mirror", conversationId=room, messageId="m1")
        assert refused.value.status == "NOT_FOUND"


async def test_an_edge_the_client_wrote_itself_is_mirrored(world: GatewayWorld) -> None:
    """Follow and block, there and gone."""
    for name, kind in (
        ("sqlGatewayFollowEdgeUpsert", "following"),
        ("sqlGatewayBlockUpsert", "blocks"),
    ):
        for fields in ({"createdAt": datetime_from_us(1)}, None):
            await write(world, f"users/ann/{kind}/ben", fields)
            answer = await world.call("ann", name, mode="mirror", target="ben")
            assert (answer["mirrored"], answer["exists"]) == (True, fields is not None)
    await world.settled()
    assert await world.is_clean()


async def test_what_an_app_keeps_beside_its_columns_stays(world: GatewayWorld) -> None:
    """An edit and a mark change what they are about."""
    await write(world, f"{PATH}/messages/m1", a_message() | {"mood": "fine"})
    await world.call("ann", "sqlGatewayDmEdit", conversationId=ROOM, messageId="m1", body="new")
    read = await (await world.store()).get(f"{PATH}/messages/m1")
    assert read.document is not None
    assert read.document.fields["mood"] == {"stringValue": "fine"}
    assert read.document.fields["body"] == {"stringValue": "new"}


async def test_an_edit_that_changes_nothing_writes_nothing(world: GatewayWorld) -> None:
    """Not even the time of the edit."""
    await world.call("ann", SEND, conversationId=ROOM, messageId="m1", body="hi")
    answer = await world.call(
        "ann", "sqlGatewayDmEdit", conversationId=ROOM, messageId="m1", body="hi"
    )
    assert answer["message"]["editedAt"] is None


async def test_a_mark_of_what_was_read_only_moves_forward(world: GatewayWorld) -> None:
    """Two devices mark in any order; and nobody has read the future."""
    marks = [
        (await world.call("ann", "sqlGatewayDmMarkRead", conversationId=ROOM, readAt=moment))[
            "lastReadAt"
        ]
        for moment in ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z")
    ]
    assert marks[:2] == ["2026-01-02T00:00:00.000000Z"] * 2
    assert "2026-01-02" < marks[2] < "2999"


async def test_opening_a_conversation_again_changes_nothing(world: GatewayWorld) -> None:
    """The same id and people; with others the id is taken."""
    opening = {"conversationId": ROOM, "participantIds": ["ben", "ann"]}
    again = await world.call("ann", "sqlGatewayDmOpenConversation", **opening)
    assert again["wasCreated"] is False
    with pytest.raises(CallFailed) as refused:
        await world.call(
            "eve", "sqlGatewayDmOpenConversation", conversationId=ROOM, participantIds=["ben"]
        )
    assert refused.value.status == "ALREADY_EXISTS"


async def test_a_delete_that_was_only_seen_has_no_token_unless_sql_took_it(
    new_database: NewDatabase, issuer: JwkIssuer
) -> None:
    """Its version is none that an event will bring: a read would wait for it for ever."""
    settings = {"STOREMIRROR_GATEWAY_DUAL_WRITE": "false"}
    async with running_gateway(new_database, issuer, settings) as world:
        opening = {"conversationId": ROOM, "participantIds": ["ben"]}
        await world.call("ann", "sqlGatewayDmOpenConversation", **opening)
        await write(world, f"{PATH}/messages/m1", a_message())
        await write(world, f"{PATH}/messages/m1", None)
        seen = {"mode": "mirror", "conversationId": ROOM, "messageId": "m1"}
        answer = await world.call("ann", SEND, **seen)
        assert (answer["mirrored"], answer["token"]) == (False, None)


async def test_messages_that_went_leave_a_cursor_for_what_is_newer(world: GatewayWorld) -> None:
    """The page is empty; who polls with its cursor must see what comes."""
    for number in range(3):
        message = {"conversationId": ROOM, "messageId": f"m{number}", "body": "hi"}
        await world.call("ann", SEND, **message)
    first = await world.call("ann", MESSAGES, conversationId=ROOM, pageSize=2)
    await world.call("ann", "sqlGatewayDmDelete", conversationId=ROOM, messageId="m0")
    empty = await world.call("ann", MESSAGES, conversationId=ROOM, cursor=first["older"])
    assert (empty["items"], empty["hasNewer"]) == ([], True)
    back = await world.call("ann", MESSAGES, conversationId=ROOM, cursor=empty["newer"])
    assert [item["messageId"] for item in back["items"]] == ["m2"]


async def test_no_id_is_made_that_another_database_could_not_have(world: GatewayWorld) -> None:
    """SQL Server would set it aside, and dead letters stop a rollout."""
    for message_id in ("m ", "m\n", "m\u0007"):
        with pytest.raises(CallFailed) as refused:
            await world.call("ann", SEND, conversationId=ROOM, messageId=message_id, body="hi")
        assert refused.value.status == "INVALID_ARGUMENT"


async def test_without_dual_write_the_event_path_brings_everything(
    new_database: NewDatabase, issuer: JwkIssuer
) -> None:
    """The switch is off for most at first."""
    settings = {"STOREMIRROR_GATEWAY_DUAL_WRITE": "false", "STOREMIRROR_GATEWAY_READ_MODE": "sql"}
    async with running_gateway(new_database, issuer, settings) as world:
        opening = {"conversationId": ROOM, "participantIds": ["ben"]}
        opened = await world.call("ann", "sqlGatewayDmOpenConversation", **opening)
        sent = await world.call("ann", SEND, conversationId=ROOM, body="hi")
        assert (opened["mirrored"], sent["mirrored"]) == (False, False)
        page = await world.call("ann", MESSAGES, conversationId=ROOM, after=sent["token"])
        assert page["source"] == "firestore"
        await world.settled()
        page = await world.call("ann", MESSAGES, conversationId=ROOM, after=sent["token"])
        assert page["source"] == "sql"


async def test_openings_and_sends_have_rates_of_their_own(
    new_database: NewDatabase, issuer: JwkIssuer
) -> None:
    """A user could fill anybody's inbox within the rate for everything (issue 7)."""
    rates = {
        "STOREMIRROR_GATEWAY_OPENS_PER_MINUTE": "2",
        "STOREMIRROR_GATEWAY_SENDS_PER_MINUTE": "1",
    }
    sent = {"conversationId": ROOM, "messageId": "m1", "body": "hi"}
    async with running_gateway(new_database, issuer, rates) as world:

        async def open_as(uid: str) -> None:
            opening = {"conversationId": ROOM, "participantIds": ["ann", "ben"]}
            await world.call(uid, "sqlGatewayDmOpenConversation", **opening)

        for _ in range(2):
            await open_as("ann")
        with pytest.raises(CallFailed, match="RESOURCE_EXHAUSTED"):
            await open_as("ann")
        await open_as("ben")
        await world.call("ann", SEND, **sent)
        with pytest.raises(CallFailed, match="RESOURCE_EXHAUSTED"):
            await world.call("ann", SEND, **sent)
        page = await world.call("ann", MESSAGES, conversationId=ROOM)
        assert [item["messageId"] for item in page["items"]] == ["m1"]


async def test_ids_may_be_as_long_as_they_are_declared(
    new_database: NewDatabase, issuer: JwkIssuer, tmp_path: Path
) -> None:
    """Chosen by the app, in both modes; one that is longer is refused (issue 7)."""
    settings = {
        "STOREMIRROR_GATEWAY_READ_MODE": "sql-only",
        "STOREMIRROR_MODEL_FILES": str(declared_with_long_keys(tmp_path)),
        "STOREMIRROR_MODEL_WITH_BUILTIN": "false",
    }
    room, name = "r" * CONVERSATION_LENGTH, "é" * MESSAGE_LENGTH
    async with running_gateway(new_database, issuer, settings) as world:
        opening = {"conversationId": room, "participantIds": ["ben"]}
        await world.call("ann", "sqlGatewayDmOpenConversation", **opening)
        for body, message_id in (("one", name), ("two", "short")):
            call = {"conversationId": room, "messageId": message_id, "body": body}
            assert (await world.call("ann", SEND, **call))["mirrored"] is True
        own = name[:-1] + "2"
        await write(world, f"conversations/{room}/messages/{own}", a_message())
        call = {"mode": "mirror", "conversationId": room, "messageId": own}
        token = (await world.call("ann", SEND, **call))["token"]
        call = {"conversationId": room, "messageId": name, "body": "new"}
        await world.call("ann", "sqlGatewayDmEdit", **call)
        page = await world.call("ben", MESSAGES, conversationId=room, pageSize=2, after=token)
        assert [item["messageId"] for item in page["items"]] == ["short", name]
        older = await world.call("ben", MESSAGES, conversationId=room, cursor=page["older"])
        assert [item["messageId"] for item in older["items"]] == [own]
        for call in (
            {"conversationId": room, "messageId": name + "1", "body": "hi"},
            {"mode": "mirror", "conversationId": room, "messageId": name + "1"},
        ):
            with pytest.raises(CallFailed, match=f"1 to {MESSAGE_LENGTH} characters"):
                await world.call("ann", SEND, **call)


async def test_a_crowd_cannot_be_written_to(world: GatewayWorld) -> None:
    """Every other participant is a billed read at each send, and a client can add any number."""
    people = ["ann", *(f"user-{number}" for number in range(PARTICIPANTS_MAX_COUNT + 1))]
    crowd = {"participantIds": people, "createdAt": datetime_from_us(1_000_000)}
    await write(world, "conversations/crowd", crowd)
    with pytest.raises(CallFailed) as refused:
        await world.call("ann", SEND, conversationId="crowd", messageId="m1", body="hi")
    assert refused.value.status == "FAILED_PRECONDITION"
    await write(world, "conversations/crowd", {**crowd, "participantIds": people[:-1]})
    sent = await world.call("ann", SEND, conversationId="crowd", messageId="m1", body="hi")
    assert sent["message"]["body"] == "hi"


async def test_a_send_again_after_an_edit_sends_no_second_one(world: GatewayWorld) -> None:
    """The queue of a phone that was offline, after an edit on another one."""
    message = {"conversationId": ROOM, "messageId": "m1", "body": "helo"}
    await world.call("ann", SEND, **message)
    edited = {"conversationId": ROOM, "messageId": "m1", "body": "hello"}
    await world.call("ann", "sqlGatewayDmEdit", **edited)
    again = await world.call("ann", SEND, **message)
    assert again["message"]["body"] == "hello"
    assert await ids(world) == ["m1"]
    with pytest.raises(CallFailed) as refused:
        await world.call("ben", SEND, **message)
    assert refused.value.status == "ALREADY_EXISTS"


async def test_a_message_that_was_long_on_its_way_is_new_to_its_readers(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is of when it was written: else nobody who read meanwhile would ever see it."""
    transact, has_begun, is_over = EmbeddedDocumentStore.transact, asyncio.Event(), asyncio.Event()

    async def delayed(store: EmbeddedDocumentStore, body: TransactionBody[Any]) -> Any:
        monkeypatch.setattr(EmbeddedDocumentStore, "transact", transact)
        has_begun.set()
        await is_over.wait()
        return await transact(store, body)

    monkeypatch.setattr(EmbeddedDocumentStore, "transact", delayed)
    late = asyncio.create_task(
        world.call("ann", SEND, conversationId=ROOM, messageId="late", body="wait for me")
    )
    await has_begun.wait()
    await world.call("ben", SEND, conversationId=ROOM, messageId="quick", body="hi")
    page = await world.call("ben", MESSAGES, conversationId=ROOM)
    await world.call("ben", "sqlGatewayDmMarkRead", conversationId=ROOM)
    is_over.set()
    await late
    newer = await world.call("ben", MESSAGES, conversationId=ROOM, cursor=page["newer"])
    assert [item["messageId"] for item in newer["items"]] == ["late"]
    inbox = await world.call("ben", "sqlGatewayDmListConversations")
    assert inbox["items"][0]["unreadCount"] == 1
