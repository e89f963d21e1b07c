"""A deployment on Service Bus through its commands, and what they say when Azure says no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.conftest import Operator
from tests.acceptance.test_clear_ends import assert_clear
from tests.acceptance.test_operator import (
    MESSAGE,
    conversation,
    message,
    write_documents,
)
from tests.acceptance.test_up import running, until
from tests.standins.servicebus import StandIn, running_standin
from tests.standins.servicebus.faults import BUSY, QUOTA, TOO_LARGE

pytestmark = pytest.mark.postgres


@dataclass(frozen=True)
class Namespace:
    """A deployment, and the namespace that its bus is in."""

    operator: Operator
    standin: StandIn

    async def deploy(self) -> None:
        """Install and provision, in this process."""
        async with self.operator.parts() as parts:
            await (await parts.schema()).apply()
            await (await parts.bus_admin()).provision(parts.topic())

    async def depth(self) -> int:
        """Count what waits, in this process."""
        async with self.operator.parts() as parts:
            return (await (await parts.bus_admin()).stats(parts.subscription)).depth

    async def letters(self) -> Any:
        return (await self.operator.runs("dlq", "list", "--json")).json()

    async def drained(self) -> Any:
        ended = await self.operator.runs("drain")
        assert ended.status == 0, ended.err
        return ended.json()


@pytest.fixture
async def namespace(operator: Operator) -> AsyncIterator[Namespace]:
    """A deployment whose bus is Service Bus: nothing is installed or provisioned."""
    with running_standin() as standin:
        environment = {
            **operator.environment,
            "STOREMIRROR_BUS_KIND": "servicebus",
            "SERVICEBUS_CONNECTION_STRING": standin.connection_string(),
            "SERVICEBUS_EMULATOR_MANAGEMENT": standin.management_endpoint,
        }
        yield Namespace(Operator(environment, operator.folder), standin)


async def test_documents_become_rows_over_service_bus(namespace: Namespace) -> None:
    """The main job by its commands: provision, backfill, a writer for a while, check."""
    operator = namespace.operator
    await namespace.deploy()
    again = await operator.runs("bus", "provision")
    assert (again.status, again.err) == (0, "")
    assert "realtime-mirror has the subscriptions sql-writer, monitoring" in again.out
    await write_documents(operator, conversation())
    filled = await operator.runs("backfill", "--yes", "--json")
    assert filled.status == 0, filled.err
    found = (await operator.runs("bus", "status", "--json")).json()
    assert (found["depth"], found["locked_count"], found["completed_count"]) == (2, None, None)
    assert found["oldest_age_s"] > 0
    assert (await operator.runs("check", "--drain-seconds", "0.2")).status == 3

    async def is_empty() -> bool:
        return await namespace.depth() == 0

    async with running(operator, "writer") as writer:
        await until(is_empty)
        status, _, log = await writer.stop()
    assert (status, "writer.stopped" in log) == (0, True), log
    checked = await operator.runs("check", "--json")
    assert checked.status == 0, checked.out + checked.err
    assert checked.json()["checks"]["conversations"]["row_count"] == 1


async def test_a_dead_letter_is_looked_after_over_service_bus(namespace: Namespace) -> None:
    """Listed, shown, sent again, accepted and purged as on every bus."""
    operator = namespace.operator
    await namespace.deploy()
    await write_documents(operator, conversation(), message(body=7))
    drained = await namespace.drained()
    assert (drained["applied"], drained["dead_lettered"], drained["is_drained"]) == (1, 1, True)
    (letter,) = await namespace.letters()
    assert (letter["path"], letter["reason"]) == (MESSAGE, "MappingFailed")
    assert letter["last_seen"] is None, "Service Bus does not tell"
    shown = await operator.runs("dlq", "show", str(letter["number"]))
    assert "declared text, found integer" in shown.out
    assert (await operator.runs("dlq", "resubmit", str(letter["number"]))).status == 0
    assert await namespace.depth() == 1
    slip = await operator.runs("dlq", "resubmit", str(letter["number"]))
    assert_clear(slip, status=9, says=f"there is no dead letter {letter['number']}")


async def test_a_dead_letter_is_accepted_and_purged_over_service_bus(namespace: Namespace) -> None:
    """Neither is forgotten: the one keeps its reason, the other is in doubt until it is checked."""
    operator = namespace.operator
    await namespace.deploy()
    await write_documents(operator, message(body=7))
    assert (await namespace.drained())["dead_lettered"] == 1
    (again,) = await namespace.letters()
    accept = ("dlq", "ack", str(again["number"]), "--reason", "test data")
    assert (await operator.runs(*accept)).status == 0
    assert "test data" in (await operator.runs(*accept)).err, "it was acknowledged before"
    listed = await operator.runs("dlq", "list")
    assert f"{again['number']}  MappingFailed  {MESSAGE} (acknowledged)" in listed.out
    purged = await operator.runs("dlq", "purge", "--yes", "--json")
    assert purged.json() == {"purged_count": 1, "gone_before_count": 0}
    unverified = (await operator.runs("dlq", "unverified", "--json")).json()
    assert [mark["path"] for mark in unverified["unverified"]] == [MESSAGE]


async def test_a_document_too_large_for_a_message_is_mirrored(namespace: Namespace) -> None:
    """Firestore takes a mebibyte, the standard tier a quarter of it."""
    await namespace.deploy()
    await write_documents(namespace.operator, conversation(), message(body="x" * 300_000))
    assert (await namespace.drained())["applied"] == 2


#: By the command: what it says is tried.
COMMANDS = {
    "bus status": "cannot count subscription 'sql-writer' of topic 'realtime-mirror'",
    "dlq list": "cannot look at the dead letters of subscription 'sql-writer' of topic 'realtime-",
    "drain": "cannot count subscription 'sql-writer' of topic 'realtime-mirror'",
    "writer": "cannot receive from subscription 'sql-writer' of topic 'realtime-mirror'",
    "backfill --yes": "cannot count subscription 'sql-writer' of topic 'realtime-mirror'",
}
MANAGING = ("bus status", "backfill --yes")


async def assert_all_refused(
    operator: Operator, says: str, *commands: str, of_managing: str | None = None, **more: str
) -> None:
    """Run commands side by side, and see that each says what it tried, and what is wrong."""
    ended = await asyncio.gather(*(operator.runs(*name.split(), **more) for name in commands))
    for name, finished in zip(commands, ended, strict=True):
        assert finished.status == 5, (name, finished.err)
        error = finished.err[finished.err.index("error: ") :]
        wanted = of_managing if of_managing and name in MANAGING else says
        assert COMMANDS[name] in error, name
        assert wanted in error, (name, error)
        assert "\nnext:" in error
        assert "Traceback" not in finished.err
        assert "<" not in error, "the answer's XML is for machines"


async def test_what_is_not_provisioned_is_said_with_the_command_that_does(
    namespace: Namespace,
) -> None:
    """The first thing that goes wrong on the first day."""
    async with namespace.operator.parts() as parts:
        await (await parts.schema()).apply()
    says = "there is no such topic or subscription: run `storemirror bus provision` first"
    await assert_all_refused(namespace.operator, says, *COMMANDS)


async def test_a_key_that_was_replaced_is_said_to_be_refused(namespace: Namespace) -> None:
    """Somebody rotated it; nothing that the error says may be part of the key."""
    await namespace.deploy()
    text = namespace.standin.connection_string(key="d3Jvbmc=")
    says = "the namespace did not accept the credential: see that key or identity are this"
    await assert_all_refused(namespace.operator, says, *COMMANDS, SERVICEBUS_CONNECTION_STRING=text)


async def test_a_missing_right_is_said_with_the_least_role(namespace: Namespace) -> None:
    """Whoever grants it, at night, should not have to grant Owner."""
    await namespace.deploy()
    sender = namespace.standin.connection_string("Sender")
    least = "the identity has no right to it; the least role is Azure Service Bus Data "
    await assert_all_refused(
        namespace.operator,
        f"{least}Receiver (in a shared access policy: Listen)",
        "bus status",
        "writer",
        of_managing=f"{least}Owner (in a shared access policy: Manage)",
        SERVICEBUS_CONNECTION_STRING=sender,
    )


async def test_a_namespace_that_cannot_be_reached_is_said_to_be_out_of_reach(
    namespace: Namespace,
) -> None:
    """A wrong name and a private network look alike; the writer would wait for ever."""
    text = (
        "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=x;SharedAccessKey=eA==;"
        "UseDevelopmentEmulator=true"
    )
    await assert_all_refused(
        namespace.operator,
        "in 127.0.0.1:1: Service Bus did not answer",
        "bus status",
        "dlq list",
        SERVICEBUS_CONNECTION_STRING=text,
        SERVICEBUS_EMULATOR_MANAGEMENT="127.0.0.1:1",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("geheim", "SERVICEBUS_CONNECTION_STRING is no connection string"),
        (
            "Endpoint=sb://h/;SharedAccessKeyName=x;SharedAccessKey=geheim;EntityPath=other",
            "SERVICEBUS_CONNECTION_STRING is for 'other' alone",
        ),
        ("", "bus.connection_string is not set"),
    ],
    ids=["none", "another topic's", "not set"],
)
async def test_a_wrong_connection_string_is_refused_before_anything_is_opened(
    namespace: Namespace, text: str, says: str
) -> None:
    """Half of a secret must not end up in a log."""
    ended = await namespace.operator.runs("dlq", "list", SERVICEBUS_CONNECTION_STRING=text)
    assert_clear(ended, status=4, says=says)
    assert "geheim" not in ended.err


REFUSALS = {
    QUOTA: "the quota is used up: let the writer drain the topic, or raise its size",
    TOO_LARGE: "the message is larger than the namespace's tier takes: 256 KB on Standard",
    BUSY: "Service Bus is busy; where that lasts, the namespace's tier is too small",
}


async def test_a_topic_that_does_not_take_a_message_loses_no_dead_letter(
    namespace: Namespace,
) -> None:
    """A dead letter is completed only after what replaces it is on the bus."""
    await namespace.deploy()
    await write_documents(namespace.operator, message(body=7))
    await namespace.drained()
    (letter,) = await namespace.letters()
    number = str(letter["number"])
    resubmit, accept = ("dlq", "resubmit", number), ("dlq", "ack", number, "--reason", "known")
    for condition, command in zip(REFUSALS, (resubmit, resubmit, accept), strict=True):
        namespace.standin.faults.refuse_sends(condition, 2)
        ended = await namespace.operator.runs(*command)
        namespace.standin.faults.refuse_no_more()
        assert_clear(ended, status=5, says=REFUSALS[condition])
        assert "cannot publish to topic 'realtime-mirror'" in ended.err
        assert f"dead letter {number} stays where it was" in ended.err
    assert await namespace.letters() == [letter]


async def test_a_full_topic_ends_a_backfill_that_goes_on_later(namespace: Namespace) -> None:
    """What was read before is not paid for again."""
    await namespace.deploy()
    async with namespace.operator.parts() as parts:
        await (await parts.embedded_store()).commit([conversation()])
    namespace.standin.faults.refuse_sends(QUOTA)
    ended = await namespace.operator.runs("backfill", "--yes")
    assert ended.status == 5
    assert "the quota is used up" in ended.err
    assert (await namespace.operator.runs("backfill", "--yes")).status == 0
    assert await namespace.depth() == 1
