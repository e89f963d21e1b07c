"""
How many events a second a bus carries, and how long one takes.

usage: python -m bench.bus [--events N] [--seconds S] [--rounds R]
Prints one JSON object a line.

Three carriers in one run: Service Bus through our adapter, Service Bus through its SDK alone in the
best pattern found (batches out, several receivers, settlements gathered), and the bus on
PostgreSQL.  Adapter and SDK take turns, the first of a round last in the next, so that what else
the machine does strikes both alike; the shares are the medians of the rounds.

Service Bus is the stand-in of the tests, in a process of its own, so that what is measured is the
client; a real namespace adds its own latency and its tier's limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import MessageSizeExceededError

from storemirror import loop
from storemirror.bus.port import (
    SUBSCRIPTION_SQL_WRITER,
    TOPIC,
    Consumer,
    Message,
    Publisher,
    SubscriptionSpec,
    TopicSpec,
)
from storemirror.bus.postgres import PostgresBus
from storemirror.bus.servicebus import ServiceBus, ServiceBusAddress
from storemirror.clock import SystemClock
from storemirror.sql.postgres.connection import BUS, Database
from storemirror.sql.postgres.server import ServerSettings, running_server

BODY: Final = b"x" * 700
PAGE: Final = 500
RECEIVERS: Final = 3
#: Messages that the SDK alone settles together: with 500 it reached half as many a second.
SDK_PAGE: Final = 50
#: Events a second of the trickle.
TRICKLE_RATE: Final = 200
SPEC: Final = TopicSpec(subscriptions=(SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER),))
CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a carrier did with a backlog, events a second."""

    published_per_s: int
    consumed_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Publication to reception at a trickle."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


def messages(count: int, prefix: str) -> list[Message]:
    """Make messages as large as a chat message's event."""
    return [
        Message(
            message_id=f"{prefix}{number}",
            body=BODY,
            content_type="application/cloudevents+json; charset=utf-8",
            properties={"type": "storemirror.document.written.v1", "entity": "DmMessage"},
        )
        for number in range(count)
    ]


async def consumed(consumer: Consumer, count: int) -> float:
    """Receive and complete so many, receiving while the last are settled; gives seconds."""
    began_s = CLOCK.monotonic_s()
    settling: list[asyncio.Task[object]] = []
    received = 0
    while received < count:
        deliveries = await consumer.receive(2 * PAGE, max_wait_s=1.0)
        received += len(deliveries)
        settling.append(asyncio.create_task(consumer.complete(deliveries)))
        if len(settling) > RECEIVERS:
            await settling.pop(0)
    await asyncio.gather(*settling)
    return CLOCK.monotonic_s() - began_s


async def latencies_ms(publisher: Publisher, consumer: Consumer, seconds: float) -> list[float]:
    """Publish one at a time, at a steady rate; gives publication to reception of each."""
    sent_at_s: dict[str, float] = {}
    found: list[float] = []
    count = round(seconds * TRICKLE_RATE)

    async def publish() -> None:
        began_s = CLOCK.monotonic_s()
        for number, message in enumerate(messages(count, "t")):
            await CLOCK.sleep(max(0.0, began_s + number / TRICKLE_RATE - CLOCK.monotonic_s()))
            sent_at_s[message.message_id] = CLOCK.monotonic_s()
            await publisher.publish([message])

    publishing = asyncio.create_task(publish())
    while len(found) < count:
        deliveries = await consumer.receive(PAGE, max_wait_s=1.0)
        now_s = CLOCK.monotonic_s()
        found += [1000 * (now_s - sent_at_s[d.message.message_id]) for d in deliveries]
        await consumer.complete(deliveries)
    await publishing
    return found


async def latencies_of(publisher: Publisher, consumer: Consumer, seconds: float) -> Latencies:
    """Measure a trickle through one of our buses."""
    await publisher.publish(messages(1, "warm"))
    await consumed(consumer, 1)
    times = statistics.quantiles(await latencies_ms(publisher, consumer, seconds), n=100)
    return Latencies(
        p50_ms=round(times[49], 2), p95_ms=round(times[94], 2), p99_ms=round(times[98], 2)
    )


async def flooded(publisher: Publisher, consumer: Consumer, events: int, prefix: str) -> Rates:
    """Measure a backlog in and out through one of our buses."""
    page = messages(events, prefix)
    began_s = CLOCK.monotonic_s()
    for start in range(0, events, PAGE):
        await publisher.publish(page[start : start + PAGE])
    published_s = CLOCK.monotonic_s() - began_s
    return Rates(
        published_per_s=round(events / published_s),
        consumed_per_s=round(events / await consumed(consumer, events)),
    )


async def sdk_alone(connection_string: str, events: int, prefix: str) -> Rates:
    """Measure the SDK in the best pattern found, on the topic that our adapter used."""
    async with ServiceBusClient.from_connection_string(connection_string) as client:
        async with client.get_topic_sender(TOPIC) as sender:
            page = messages(events, prefix)
            began_s = CLOCK.monotonic_s()
            batch = await sender.create_message_batch()
            for message in page:
                outgoing = ServiceBusMessage(
                    message.body,
                    message_id=message.message_id,
                    content_type=message.content_type,
                    application_properties=dict(message.properties.items()),
                )
                try:
                    if len(batch) == PAGE:
                        raise MessageSizeExceededError
                    batch.add_message(outgoing)
                except MessageSizeExceededError:
                    await sender.send_messages(batch)
                    batch = await sender.create_message_batch()
                    batch.add_message(outgoing)
            await sender.send_messages(batch)
            published_s = CLOCK.monotonic_s() - began_s
        receivers = [
            client.get_subscription_receiver(TOPIC, SUBSCRIPTION_SQL_WRITER)
            for _ in range(RECEIVERS)
        ]
        for receiver in receivers:
            await receiver.__aenter__()
        began_s = CLOCK.monotonic_s()
        left = [events]
        await asyncio.gather(*(_sdk_consumed(receiver, left) for receiver in receivers))
        consumed_s = CLOCK.monotonic_s() - began_s
        for receiver in receivers:
            await receiver.close()
    return Rates(
        published_per_s=round(events / published_s),
        consumed_per_s=round(events / consumed_s),
    )


async def _sdk_consumed(receiver: ServiceBusReceiver, left: list[int]) -> None:
    while left[0] > 0:
        batch = await receiver.receive_messages(min(SDK_PAGE, left[0]), max_wait_time=1)
        left[0] -= len(batch)
        await asyncio.gather(*(receiver.complete_message(message) for message in batch))


@contextlib.asynccontextmanager
async def standin() -> AsyncIterator[tuple[str, str]]:
    """Lend a stand-in in a process of its own: connection string, management address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.standins.servicebus",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    line = (await process.stdout.readline()).decode().split()
    try:
        yield line[0], line[1]
    finally:
        process.stdin.close()
        await process.wait()


async def service_bus(
    events: int, seconds: float, rounds: int
) -> tuple[Latencies, list[Rates], list[Rates]]:
    """Measure our adapter and the SDK alone by turns; gives the rounds of each."""
    ours: list[Rates] = []
    alone: list[Rates] = []
    async with standin() as (connection_string, management):
        bus = ServiceBus(
            ServiceBusAddress(connection_string=connection_string, emulator_management=management)
        )
        admin = bus.admin(CLOCK, topic=TOPIC)
        await admin.provision(SPEC)
        publisher = bus.publisher(CLOCK, topic=TOPIC)
        consumer = bus.consumer(CLOCK, subscription=SUBSCRIPTION_SQL_WRITER, topic=TOPIC)
        latencies = await latencies_of(publisher, consumer, seconds)
        for number in range(rounds):
            for is_ours in (number % 2 == 0, number % 2 == 1):
                if is_ours:
                    ours.append(await flooded(publisher, consumer, events, f"f{number}-"))
                else:
                    alone.append(await sdk_alone(connection_string, events, f"s{number}-"))
        for made in (publisher, consumer, admin, bus):
            await made.aclose()
    return latencies, ours, alone


async def postgres(events: int, seconds: float) -> tuple[Latencies, Rates]:
    """Measure the bus on PostgreSQL, in a server of its own."""
    with running_server(ServerSettings(is_durable=True)) as server:
        database = Database(server.dsn("postgres"), BUS, max_size=8)
        bus = PostgresBus(database)
        await bus.admin(CLOCK, topic=TOPIC).provision(SPEC)
        publisher = bus.publisher(CLOCK, topic=TOPIC)
        consumer = bus.consumer(CLOCK, subscription=SUBSCRIPTION_SQL_WRITER, topic=TOPIC)
        latencies = await latencies_of(publisher, consumer, seconds)
        rates = await flooded(publisher, consumer, events, "f")
        await publisher.aclose()
        await consumer.aclose()
        await database.aclose()
    return latencies, rates


def shares(ours: Sequence[Rates], alone: Sequence[Rates]) -> dict[str, float]:
    """Give what our adapter reaches of the SDK alone: the median of the rounds' ratios.

    >>> of = lambda p, c: Rates(published_per_s=p, consumed_per_s=c)
    >>> shares([of(9, 9), of(8, 30), of(1, 8)], [of(10, 10)] * 3)
    {'published_share': 0.8, 'consumed_share': 0.9}
    """
    pairs = list(zip(ours, alone, strict=True))
    return {
        "published_share": round(
            statistics.median(o.published_per_s / a.published_per_s for o, a in pairs), 2
        ),
        "consumed_share": round(
            statistics.median(o.consumed_per_s / a.consumed_per_s for o, a in pairs), 2
        ),
    }


def tell(carrier: str, *found: Rates | Latencies) -> None:
    """Print what one carrier did."""
    figures = {name: value for part in found for name, value in asdict(part).items()}
    sys.stdout.write(json.dumps({"carrier": carrier, **figures}) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Measure all, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    latencies, ours, alone = await service_bus(given.events, given.seconds, given.rounds)
    tell("servicebus", latencies)
    for our_round, sdk_round in zip(ours, alone, strict=True):
        tell("servicebus", our_round)
        tell("servicebus, SDK alone", sdk_round)
    tell("postgres", *await postgres(given.events, given.seconds))
    sys.stdout.write(json.dumps({**shares(ours, alone), "load": os.getloadavg()[0]}) + "\n")


if __name__ == "__main__":
    loop.run(main())
