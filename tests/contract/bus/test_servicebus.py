"""What Service Bus alone does: faults of the wire, limits, words of its errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from azure.core.exceptions import ClientAuthenticationError

from storemirror.bus.port import PublishResult, Rejection
from storemirror.bus.servicebus import (
    Namespace,
    ServiceBus,
    ServiceBusAddress,
    ServiceBusAdmin,
    ServiceBusConsumer,
    ServiceBusPublisher,
)
from storemirror.bus.servicebus_errors import Operation, Role, translated
from storemirror.clock import SystemClock
from storemirror.errors import BusRefused, BusUnavailable, ConfigError, MessageRefused
from storemirror.event.envelope import Reference, decode_event
from tests.contract.bus.servicebus_under_test import ServiceBusUnderTest
from tests.contract.bus.under_test import (
    MONITORING,
    TOPIC_SPEC,
    WRITER,
    a_message,
    ids,
    messages,
    receive_now,
)
from tests.integration.apply.pipe import SOURCE, a_chat_message, message_of
from tests.standins.servicebus import StandIn
from tests.standins.servicebus.faults import BUSY, QUOTA, TOO_LARGE


@pytest.fixture
def bus(servicebus_bus: ServiceBusUnderTest) -> ServiceBusUnderTest:
    return servicebus_bus


@pytest.fixture
def standin(bus: ServiceBusUnderTest) -> StandIn:
    assert bus.standin is not None
    return bus.standin


async def receive_all(consumer: ServiceBusConsumer, count: int) -> list[str]:
    """Receive and complete until so many have come; a bus in trouble may give them twice."""
    seen: set[str] = set()
    while len(seen) < count:
        try:
            deliveries = await consumer.receive(500, max_wait_s=0.5)
            await consumer.complete(deliveries)
        except BusUnavailable:
            continue
        seen.update(ids(deliveries))
    return sorted(seen)


# Faults of the wire

FAULTS: dict[str, Callable[[StandIn], object]] = {
    "drop": lambda standin: standin.drop_connections(),
    "detach": lambda standin: standin.detach_links(),
    "silent detach": lambda standin: standin.detach_links(None),
    "freeze": lambda standin: standin.freeze(),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_consumer_survives_what_the_wire_does(
    fault: str, bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """Service Bus restarts its nodes while it is in use; nobody restarts the writer for it."""
    publisher, consumer = bus.publisher(), bus.consumer(answer_timeout_s=2.0)
    await publisher.publish(messages(20))
    held = await receive_now(consumer, 5)
    standin.call(lambda: FAULTS[fault](standin))
    assert await receive_all(consumer, 15) == [f"e{number:05}" for number in range(5, 20)]
    assert await consumer.complete(held) == [], "their locks lasted, on whatever connection"
    assert (await bus.admin.stats(WRITER)).depth == 0


async def test_a_waiting_consumer_notices_a_link_that_hangs_in_silence(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """The SDK itself would receive nothing, for ever, without an error (issue 5)."""
    publisher, consumer = bus.publisher(), bus.consumer(answer_timeout_s=2.0)
    assert await receive_now(consumer) == []
    standin.faults.ignores_flow = True
    await publisher.publish(messages(1))
    with pytest.raises(BusUnavailable, match="no answer to a drain"):
        await consumer.receive(10, max_wait_s=0.1)
    standin.faults.ignores_flow = False
    assert await receive_all(consumer, 1) == ["e00000"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_publisher_survives_what_the_wire_does(
    fault: str, bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """A publisher that does not know publishes again; the ids are recognised."""
    publisher = ServiceBusPublisher(bus.namespace, send_timeout_s=2.0)
    await publisher.publish(messages(3))
    standin.call(lambda: FAULTS[fault](standin))
    is_published = False
    while not is_published:
        with contextlib.suppress(BusUnavailable):
            await publisher.publish(messages(6))
            is_published = True
    await publisher.aclose()
    assert ids(await receive_now(bus.consumer())) == [f"e{number:05}" for number in range(6)]


async def test_a_busy_service_is_asked_again_and_nothing_is_published_twice(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """Busy is the service's way to slow down who is too fast."""
    publisher = bus.publisher()
    standin.faults.refuse_sends(BUSY, 2)
    with pytest.raises(BusUnavailable, match="Service Bus is busy"):
        await publisher.publish(messages(2))
    await publisher.publish(messages(2))
    assert ids(await receive_now(bus.consumer())) == ["e00000", "e00001"]


async def test_a_settlement_that_fails_for_some_loses_none_of_the_others(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """Repeated, the call must not call lost what the first one settled."""
    consumer = bus.consumer()
    await bus.publisher().publish(messages(5))
    deliveries = await receive_now(consumer)
    standin.faults.refuse_settlements(BUSY, 8)
    with pytest.raises(BusUnavailable, match="cannot settle 3 deliveries"):
        await consumer.complete(deliveries)
    assert await consumer.complete(deliveries) == []
    assert (await bus.admin.stats(WRITER)).depth == 0


async def test_lost_locks_are_told_and_come_again(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """Nothing that was lost may count as settled."""
    consumer = bus.consumer()
    await bus.publisher().publish(messages(5))
    deliveries = await receive_now(consumer)
    standin.call(standin.lose_locks)
    assert await consumer.renew(deliveries) == []
    assert await consumer.complete(deliveries) == deliveries
    again = await receive_now(consumer)
    assert [delivery.delivery_count for delivery in again] == [2] * 5


async def test_many_locks_are_renewed_in_few_requests(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """A request a lock falls behind the locks as soon as the processor is busy (issue 5)."""
    consumer = bus.consumer()
    await bus.publisher().publish(messages(250))
    deliveries = await receive_now(consumer)
    renewed = await consumer.renew(deliveries)
    assert ids(renewed) == ids(deliveries)
    assert standin.faults.renewal_sizes == [100, 100, 50]


async def test_a_flood_is_spread_over_several_links_and_a_trickle_is_not(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """Each link is a connection; an idle one costs the service too."""
    publisher, consumer = bus.publisher(), bus.consumer(link_count=3)
    await publisher.publish(messages(1))
    await receive_now(consumer)
    few = len(standin.connections)
    await publisher.publish(messages(1_000, "f"))
    received: list[str] = []
    while len(received) < 1_000:
        received += ids(await receive_now(consumer, 100))
    assert sorted(received) == [message.message_id for message in messages(1_000, "f")]
    assert len(standin.connections) == few + 2


# Messages


async def test_what_many_publish_at_a_time_arrives_once(bus: ServiceBusUnderTest) -> None:
    """Of a sender of the SDK that several tasks open at a time, all fail (issue 5)."""
    publisher, page = bus.publisher(), messages(50)
    results = await asyncio.gather(*(publisher.publish([message]) for message in page))
    assert [result.accepted_count for result in results] == [1] * 50
    assert ids(await receive_now(bus.consumer())) == [message.message_id for message in page]


async def test_what_does_not_fit_into_one_batch_goes_in_several(bus: ServiceBusUnderTest) -> None:
    """A relay's page holds more bytes than a message may."""
    page = [a_message(f"e{number:05}", b"x" * 60_000) for number in range(12)]
    await bus.publisher().publish(page)
    received = await receive_now(bus.consumer())
    assert [delivery.message for delivery in received] == page


async def test_an_id_too_long_for_the_wire_comes_back_whole_and_is_recognised(
    bus: ServiceBusUnderTest,
) -> None:
    """Service Bus counts UTF-16 units, of which these characters have two each."""
    publisher, long_id = bus.publisher(), "😀" * 128
    await publisher.publish([a_message(long_id)])
    await publisher.publish([a_message(long_id)])
    assert ids(await receive_now(bus.consumer())) == [long_id]


async def test_a_document_too_large_travels_as_path_and_version(bus: ServiceBusUnderTest) -> None:
    """Firestore takes a mebibyte, the standard tier a quarter of it."""
    large = message_of(a_chat_message(1, body="x" * 300_000))
    await bus.publisher().publish([message_of(a_chat_message(0)), large])
    small, referring = await receive_now(bus.consumer())
    assert small.message.properties.get("type") is None
    assert referring.message.message_id == large.message_id
    assert referring.message.properties["type"] == "storemirror.document.referenced.v1"
    event = decode_event(referring.message.body, source=SOURCE)
    assert isinstance(event, Reference)
    assert (event.path, event.version) == (
        a_chat_message(1).path,
        a_chat_message(1).version,
    )


@pytest.mark.parametrize("body_bytes", range(1_000, 1_040, 5))
async def test_batches_filled_to_the_brim_are_taken(
    body_bytes: int, bus: ServiceBusUnderTest
) -> None:
    """The SDK leaves what it writes around a batch out of its size; the service does not."""
    sent = [a_message(f"{number:0128}", bytes(body_bytes)) for number in range(300)]
    assert (await bus.publisher().publish(sent)).accepted_count == 300


async def test_what_is_too_large_and_no_document_is_refused_alone(
    bus: ServiceBusUnderTest,
) -> None:
    """Its size is named; what another caller published at the same moment goes through."""
    publisher = bus.publisher()
    results = await asyncio.gather(
        publisher.publish([a_message("large", b"x" * 300_000)]),
        publisher.publish([a_message("small")]),
        return_exceptions=True,
    )
    assert isinstance(results[0], MessageRefused)
    assert "300000 bytes" in str(results[0])
    assert ids(await receive_now(bus.consumer())) == ["small"]


async def test_a_size_that_the_service_refuses_is_blamed_on_one_caller(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """What goes in one batch with it would be set aside for its sake.  Refs #4."""
    publisher = bus.publisher()
    standin.faults.refuse_sends(TOO_LARGE, 2)
    results = await asyncio.gather(
        publisher.publish([a_message("large")]),
        publisher.publish([a_message("small")]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [MessageRefused, PublishResult]
    assert ids(await receive_now(bus.consumer())) == ["small"]


async def test_a_refusal_that_no_message_is_to_blame_for_is_none_of_a_message(
    bus: ServiceBusUnderTest, standin: StandIn
) -> None:
    """A full topic takes none: whoever set messages aside for it would set all aside.  Refs #4."""
    standin.faults.refuse_sends(QUOTA)
    with pytest.raises(BusRefused) as refused:
        await bus.publisher().publish(messages(1))
    assert not isinstance(refused.value, MessageRefused)


# Dead letters


async def test_a_run_that_was_used_swallows_no_replacement(bus: ServiceBusUnderTest) -> None:
    """The service swallows a known id without a word; the dead letter would be gone."""
    publisher, consumer = bus.publisher(), bus.consumer()
    await publisher.publish([a_message("e1")])
    (delivery,) = await receive_now(consumer)
    rejection = Rejection(delivery=delivery, reason="MappingFailed", description="")
    await consumer.dead_letter([rejection])
    await publisher.publish([a_message("e1.r1")])
    assert await bus.admin.resubmit(WRITER, delivery.sequence_number, run="r1") == "e1.r1"
    assert ids(await receive_now(consumer)) == ["e1.r1", "e1.r1"]


async def test_fetching_one_dead_letter_leaves_the_others_as_they_were(
    bus: ServiceBusUnderTest,
) -> None:
    """The service gives out the oldest first: those before it are locked, and not counted."""
    consumer = bus.consumer()
    await bus.publisher().publish(messages(30))
    deliveries = await receive_now(consumer)
    await consumer.dead_letter(
        [Rejection(delivery=d, reason="MappingFailed", description="") for d in deliveries]
    )
    before = await bus.admin.peek_dead_letters(WRITER, limit=100)
    await bus.admin.resubmit(WRITER, deliveries[25].sequence_number, run="r1")
    after = await bus.admin.peek_dead_letters(WRITER, limit=100)
    assert after == before[:25] + before[26:]


async def test_what_was_acknowledged_can_still_be_resubmitted(bus: ServiceBusUnderTest) -> None:
    """A person may have been wrong."""
    consumer = bus.consumer()
    await bus.publisher().publish([a_message("e1", b"body", path="a/b")])
    (delivery,) = await receive_now(consumer)
    await consumer.dead_letter(
        [Rejection(delivery=delivery, reason="MappingFailed", description="No such column.")]
    )
    await bus.admin.acknowledge(WRITER, delivery.sequence_number, reason="test data")
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert (letter.reason, letter.description) == ("MappingFailed", "No such column.")
    assert letter.message == a_message("e1", b"body", path="a/b")
    await bus.admin.resubmit(WRITER, delivery.sequence_number, run="r1")
    assert ids(await receive_now(consumer)) == ["e1.r1"]
    stats = await bus.admin.stats(WRITER)
    assert (stats.dead_letter_count, stats.acknowledged_count) == (0, 0)


# Provisioning


async def test_what_cannot_be_changed_afterwards_is_named(bus: ServiceBusUnderTest) -> None:
    """The rest is brought to the settings all the same."""
    writer, monitoring = TOPIC_SPEC.subscriptions
    other = replace(
        TOPIC_SPEC,
        duplicate_window_s=60.0,
        subscriptions=(replace(writer, max_delivery_count=7), monitoring),
    )
    with pytest.raises(BusRefused, match=r"window is 0:05:00, and should be 0:01:00"):
        await bus.admin.provision(other)
    assert bus.standin is not None
    assert bus.standin.topics[TOPIC_SPEC.name].subscriptions[WRITER].max_delivery_count == 7


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (replace(TOPIC_SPEC, duplicate_window_s=5.0), "20 seconds"),
        (
            replace(
                TOPIC_SPEC,
                subscriptions=(replace(TOPIC_SPEC.subscriptions[0], lock_duration_s=900.0),),
            ),
            "5 minutes",
        ),
        (
            replace(
                TOPIC_SPEC, subscriptions=(replace(TOPIC_SPEC.subscriptions[0], name="n" * 40),)
            ),
            "at most 37 characters",
        ),
    ],
    ids=["window", "lock", "name"],
)
async def test_what_service_bus_does_not_take_is_refused_with_its_limit(
    bad: object, word: str, bus: ServiceBusUnderTest
) -> None:
    """Its own words name no setting of ours."""
    with pytest.raises(BusRefused, match=word):
        await bus.admin.provision(bad)  # type: ignore[arg-type]


# Errors that a person understands


@pytest.fixture
def namespace_of(bus: ServiceBusUnderTest, standin: StandIn) -> Callable[..., Namespace]:
    """Give a maker of namespaces reached with another policy or key."""

    def make(policy: str, key: str | None = None) -> Namespace:
        return Namespace(
            ServiceBusAddress(
                connection_string=standin.connection_string(policy, key),
                emulator_management=standin.management_endpoint,
            )
        )

    return make


async def test_a_wrong_key_is_said_to_be_wrong(namespace_of: Callable[..., Namespace]) -> None:
    """Copied in part, or rotated since."""
    namespace = namespace_of("Sender", "d3Jvbmc=")
    publisher = ServiceBusPublisher(namespace)
    with pytest.raises(BusRefused, match="did not accept the credential"):
        await publisher.publish(messages(1))
    await publisher.aclose()


async def test_a_missing_right_names_the_least_role(
    bus: ServiceBusUnderTest, namespace_of: Callable[..., Namespace]
) -> None:
    """Whoever grants it should grant no more."""
    publisher = ServiceBusPublisher(namespace_of("Listener"))
    with pytest.raises(BusRefused, match="the least role is Azure Service Bus Data Sender"):
        await publisher.publish(messages(1))
    consumer = ServiceBusConsumer(namespace_of("Sender"), SystemClock(), subscription=WRITER)
    with pytest.raises(BusRefused, match="the least role is Azure Service Bus Data Receiver"):
        await receive_now(consumer)
    admin = ServiceBusAdmin(namespace_of("Listener"), SystemClock())
    with pytest.raises(BusRefused, match="the least role is Azure Service Bus Data Owner"):
        await admin.stats(WRITER)
    for made in (publisher, consumer, admin):
        await made.aclose()


async def test_the_age_of_the_oldest_takes_listen_alone(
    bus: ServiceBusUnderTest, namespace_of: Callable[..., Namespace]
) -> None:
    """The gateway asks for it, and nobody makes it the namespace's owner for that (issue 7)."""
    await bus.publisher().publish(messages(1))
    admin = ServiceBusAdmin(namespace_of("Listener"), SystemClock())
    assert await admin.oldest_age_s(WRITER) is not None
    await admin.aclose()
    admin = ServiceBusAdmin(namespace_of("Sender"), SystemClock())
    with pytest.raises(BusRefused, match="the least role is Azure Service Bus Data Receiver"):
        await admin.oldest_age_s(WRITER)
    with pytest.raises(BusRefused):
        await admin.oldest_age_s("none")
    await admin.aclose()


async def test_a_used_up_quota_says_what_to_do(bus: ServiceBusUnderTest, standin: StandIn) -> None:
    """A full topic is not mended by trying again."""
    standin.faults.refuse_sends(QUOTA)
    with pytest.raises(BusRefused, match="quota is used up"):
        await bus.publisher().publish(messages(1))


async def test_a_namespace_that_is_not_there_is_unavailable(bus: ServiceBusUnderTest) -> None:
    """A network may come back; nothing is set aside for it."""
    address = ServiceBusAddress(
        connection_string="Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=x;SharedAccessKey=eA==;"
        "UseDevelopmentEmulator=true"
    )
    namespace = Namespace(address)
    publisher = ServiceBusPublisher(namespace)
    with pytest.raises(BusUnavailable, match="did not answer"):
        await publisher.publish(messages(1))
    await publisher.aclose()


@pytest.mark.parametrize(
    "text", ["", "Endpoint", "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=x"]
)
def test_what_is_no_connection_string_is_refused_before_anything_is_opened(text: str) -> None:
    """And its words are not repeated: they may be half a secret."""
    with pytest.raises(ConfigError, match="is no connection string"):
        Namespace(ServiceBusAddress(connection_string=text))


def test_a_connection_string_of_another_topic_is_refused_by_name() -> None:
    """A topic's policy carries the topic; the SDK answers a wrong one at the first use."""
    text = "Endpoint=sb://x/;SharedAccessKeyName=x;SharedAccessKey=eA==;EntityPath=other"
    bus, clock = ServiceBus(ServiceBusAddress(connection_string=text)), SystemClock()
    with pytest.raises(ConfigError, match=r"is for 'other' alone \(EntityPath\)"):
        bus.publisher(clock, topic="realtime-mirror")
    assert bus.admin(clock, topic="other") is not None


def test_no_identity_is_said_to_be_none() -> None:
    """The namespace was not even asked: its rights are not what is to be mended."""
    operation = Operation(what="receive", namespace="contoso", role=Role.LISTEN)
    error = translated(ClientAuthenticationError("DefaultAzureCredential failed"), operation)
    assert isinstance(error, BusRefused)
    assert "no identity of Azure's was found here" in str(error)


def test_a_namespace_alone_is_reached_with_an_identity_of_azures() -> None:
    """Managed identity, federation or a developer's login: no secret to keep."""
    namespace = Namespace(ServiceBusAddress(namespace="sb://contoso.servicebus.windows.net/"))
    assert namespace.host == "contoso.servicebus.windows.net"


async def test_the_monitor_s_subscription_has_no_companion(bus: ServiceBusUnderTest) -> None:
    """Nobody acknowledges what is dropped."""
    assert bus.standin is not None
    names = sorted(bus.standin.topics[TOPIC_SPEC.name].subscriptions)
    assert names == [MONITORING, WRITER, f"{WRITER}-acknowledged"]
