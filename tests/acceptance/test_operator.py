"""A deployment's life through its commands, each a process of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from storemirror.clock import SystemClock, datetime_from_us
from storemirror.event.value import encode_fields
from storemirror.source.port import Write
from storemirror.source.relay import TriggerRelay
from storemirror.sql.postgres.connection import MIRROR, Database
from tests.acceptance.conftest import Operator

pytestmark = pytest.mark.postgres

CONVERSATION = "conversations/c1"
MESSAGE = "conversations/c1/messages/m1"


async def write_documents(operator: Operator, *writes: Write) -> None:
    """Write as the app does, and let the triggers publish."""
    async with operator.parts() as parts:
        store = await parts.embedded_store()
        await store.commit(writes)
        relay = TriggerRelay(
            store, parts.model, await parts.publisher(), SystemClock(), source=parts.source
        )
        while await store.pending_count():
            await relay.relay_batch()


def _now() -> datetime:
    return datetime_from_us(SystemClock().now_us())


def conversation() -> Write:
    """A conversation of two people."""
    fields = {
        "title": {"stringValue": "hello"},
        "createdAt": encode_fields({"t": _now()})["t"],
        "participantIds": encode_fields({"p": ["ada", "bob"]})["p"],
    }
    return Write(path=CONVERSATION, fields=fields)


def message(**extra: object) -> Write:
    """A message in it."""
    fields = encode_fields({"senderId": "ada", "body": "hi", "sentAt": _now(), **extra})
    return Write(path=MESSAGE, fields=fields)


async def damage(operator: Operator, statement: bytes, row_count: int = 1) -> None:
    """Change rows by hand, past every procedure."""
    database = Database(operator.environment["STOREMIRROR_SQL_DSN"], MIRROR)
    await database.open()
    async with database.connection() as conn:
        assert (await conn.execute(statement)).rowcount == row_count
    await database.aclose()


async def test_documents_become_rows_and_the_check_is_clean(deployed: Operator) -> None:
    """The main job, by its commands: drain, then check."""
    await write_documents(deployed, conversation(), message())
    drained = await deployed.runs("drain")
    assert drained.status == 0, drained.err
    assert drained.json()["applied"] == 2
    assert drained.json()["is_drained"] is True
    checked = await deployed.runs("check", "--json")
    assert checked.status == 0, checked.err
    assert checked.json()["checks"]["messages"]["document_count"] == 1


async def test_a_row_damaged_by_hand_is_named_and_mended(deployed: Operator) -> None:
    """Same version, other contents: only a comparison of contents can find it."""
    await write_documents(deployed, conversation(), message())
    await deployed.runs("drain")
    await damage(deployed, b"UPDATE storemirror.dm_message SET body = 'forged'")
    found = await deployed.runs("check")
    assert found.status == 1
    assert MESSAGE in found.out
    assert "body" in found.out
    assert "forged" not in found.out + found.err
    assert (await deployed.runs("check", "--repair")).status == 1
    assert (await deployed.runs("drain")).json()["repaired"] == 1
    assert (await deployed.runs("check")).status == 0


async def test_one_repair_sends_more_than_is_listed(deployed: Operator) -> None:
    """A statement by hand damages thousands of rows, and each check reads all of Firestore."""
    messages = [replace(message(), path=f"{CONVERSATION}/messages/n{n:03}") for n in range(120)]
    await write_documents(deployed, conversation(), *messages)
    await deployed.runs("drain")
    await damage(deployed, b"UPDATE storemirror.dm_message SET body = 'forged'", row_count=120)
    repaired = await deployed.runs("check", "--repair")
    # The roll-up in the conversation, its preview, is one more.
    assert "and 21 more" in repaired.out
    assert "sent again: 121; run the check once more" in repaired.out
    assert (await deployed.runs("drain")).json()["repaired"] == 120
    assert (await deployed.runs("check")).status == 0


async def test_a_backlog_that_does_not_drain_ends_the_check_with_3(deployed: Operator) -> None:
    """Could not compare is not the same as differs."""
    await write_documents(deployed, conversation(), message())
    ended = await deployed.runs("check", "--drain-seconds", "0.2")
    assert ended.status == 3
    assert "drain" in ended.err


async def test_a_document_that_does_not_fit_is_a_dead_letter_with_a_way_out(
    deployed: Operator,
) -> None:
    """Its neighbours are applied; it is listed with a reason, and comes back once mended."""
    await write_documents(deployed, conversation(), message(body=7))
    drained = (await deployed.runs("drain")).json()
    assert drained["applied"] == 1
    assert drained["dead_lettered"] == 1
    listed = (await deployed.runs("dlq", "list", "--json")).json()
    assert [letter["path"] for letter in listed] == [MESSAGE]
    number = str(listed[0]["number"])
    shown = await deployed.runs("dlq", "show", number)
    assert "MappingFailed" in shown.out
    assert "body" in shown.out
    assert (await deployed.runs("dlq", "resubmit", number)).status == 0
    assert (await deployed.runs("drain")).json()["dead_lettered"] == 1
    again = (await deployed.runs("dlq", "list", "--json")).json()
    number = str(again[0]["number"])
    assert (await deployed.runs("dlq", "ack", number, "--reason", "test data")).status == 0
    assert "acknowledged" in (await deployed.runs("dlq", "list")).out
    assert (await deployed.runs("bus", "status", "--json")).json()["dead_letter_count"] == 0


async def test_a_number_that_no_dead_letter_has_is_refused(deployed: Operator) -> None:
    """Nothing is changed by a slip of the finger."""
    ended = await deployed.runs("dlq", "resubmit", "12345")
    assert ended.status == 9
    assert "12345" in ended.err


async def test_the_master_switch_is_off_by_default(deployed: Operator) -> None:
    """Off, writer and drainer say so and touch nothing."""
    await write_documents(deployed, conversation())
    for command in ("writer", "drain"):
        ended = await deployed.runs(command, USE_SQL_DM_WRITE_MIRROR="false")
        assert ended.status == 7
        assert "USE_SQL_DM_WRITE_MIRROR" in ended.err
    assert (await deployed.runs("bus", "status", "--json")).json()["depth"] == 1
