"""What the contract suite does not ask of the memory bus: that its size does not slow it."""

from __future__ import annotations

from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, TopicSpec
from storemirror.clock import SystemClock


async def test_a_hundred_thousand_messages_pass_in_pages() -> None:
    """Benchmarks run over it; one scan a call would take minutes here."""
    bus = MemoryBus(SystemClock())
    await bus.admin().provision(TopicSpec())
    publisher, consumer = bus.publisher(), bus.consumer(SUBSCRIPTION_SQL_WRITER)
    numbers = range(100_000)
    await publisher.publish(
        [Message(message_id=f"e{number}", body=b"", content_type="") for number in numbers]
    )
    received = 0
    while deliveries := await consumer.receive(2_000, max_wait_s=0.0):
        await consumer.abandon([one for one in deliveries if one.delivery_count == 1])
        received += len(deliveries) - len(
            await consumer.complete([one for one in deliveries if one.delivery_count == 2])
        )
    assert received == 200_000
    stats = await bus.admin().stats(SUBSCRIPTION_SQL_WRITER)
    assert (stats.depth, stats.completed_count) == (0, 100_000)
