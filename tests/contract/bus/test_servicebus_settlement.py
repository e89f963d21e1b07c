"""What Service Bus alone does to settlements: links that are gone between two of them."""

from __future__ import annotations

import pytest

from storemirror.errors import BusUnavailable, SettledInPart
from tests.contract.bus.servicebus_under_test import ServiceBusUnderTest
from tests.contract.bus.under_test import WRITER, messages, receive_now
from tests.standins.servicebus.faults import BUSY


async def test_what_was_settled_before_the_connection_failed_is_not_called_lost(
    servicebus_bus: ServiceBusUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never comes again, and whoever counts would look for it for ever (issue 5)."""
    bus, standin = servicebus_bus, servicebus_bus.standin
    assert standin is not None
    publisher, consumer = bus.publisher(), bus.consumer()
    await publisher.publish(messages(20))
    held = await receive_now(consumer, 20)
    while len(held) < 20:
        held += await receive_now(consumer, 20)

    async def away(_: int) -> None:
        raise BusUnavailable("away")

    standin.faults.refuse_settlements(BUSY, 5)
    with monkeypatch.context() as patched:
        patched.setattr(consumer, "_link", away)
        with pytest.raises(SettledInPart) as failed:
            await consumer.complete(held)
    assert len(failed.value.unsettled) == 5
    # In parts and more than once, as whoever wraps a consumer may have it.
    settled = [d for d in held if d.sequence_number not in failed.value.unsettled]
    assert await consumer.abandon(settled) == []
    assert await consumer.complete(held) == []
    assert (await bus.admin.stats(WRITER)).depth == 0
