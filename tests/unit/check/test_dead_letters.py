"""A dead letter is of the document that its body is about, whatever its properties say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import Message, Rejection, SubscriptionSpec, TopicSpec
from storemirror.check.dead_letters import DeadLetters
from storemirror.clock import SystemClock
from tests.unit.apply.test_dead_letters import OTHER, PATH, a_message

SUBSCRIPTION = "sql-writer"


async def dead_lettered(*messages: Message, acknowledged: str = "") -> MemoryBus:
    """A bus on which these are dead letters; that of the message `acknowledged` is acknowledged."""
    bus = MemoryBus(SystemClock())
    await bus.admin().provision(TopicSpec(subscriptions=(SubscriptionSpec(name=SUBSCRIPTION),)))
    await bus.publisher().publish(messages)
    consumer = bus.consumer(SUBSCRIPTION)
    for delivery in await consumer.receive(10, max_wait_s=0.0):
        rejection = Rejection(delivery=delivery, reason="MappingFailed", description="d")
        await consumer.dead_letter([rejection])
        if delivery.message.message_id == acknowledged:
            await bus.admin().acknowledge(SUBSCRIPTION, delivery.sequence_number, reason="known")
    return bus


@pytest.mark.parametrize("properties", [{}, {"path": PATH, "version": "20"}], ids=["none", "ours"])
async def test_the_body_names_the_version(properties: dict[str, str]) -> None:
    """A relay may have lost the properties; the writer refused the body."""
    bus = await dead_lettered(a_message(properties=properties))
    letters = DeadLetters(bus.admin(), SUBSCRIPTION, is_acknowledged=False)
    assert await letters.has(PATH, 20)
    assert not await letters.has(PATH, 22)


async def test_forged_properties_excuse_no_other_document() -> None:
    """Else whoever can publish could hide a loss from the check."""
    bus = await dead_lettered(a_message(properties={"path": OTHER, "version": "20"}))
    letters = DeadLetters(bus.admin(), SUBSCRIPTION, is_acknowledged=False)
    assert not await letters.has(OTHER, 20)


async def test_only_acknowledged_ones_are_accepted() -> None:
    """A loss that nobody looked at is no accepted loss."""
    other = replace(a_message(OTHER), message_id="e2")
    bus = await dead_lettered(a_message(), other, acknowledged="e2")
    letters = DeadLetters(bus.admin(), SUBSCRIPTION, is_acknowledged=True)
    assert await letters.has(OTHER, 20)
    assert not await letters.has(PATH, 20)
