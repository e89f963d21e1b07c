"""Looking after a topic on Service Bus.  See `storemirror.bus.servicebus`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from azure.core.exceptions import ResourceNotFoundError
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from storemirror.bus.port import TOPIC, DeadLetter, SubscriptionStats, TopicSpec
from storemirror.bus.rules import SECOND_US, refuse_bad_topic
from storemirror.bus.servicebus_dead_letters import DeadLetters
from storemirror.bus.servicebus_errors import Role, translated_errors
from storemirror.bus.servicebus_message import enqueued_at_us
from storemirror.bus.servicebus_namespace import Namespace
from storemirror.bus.servicebus_provision import acknowledged_name, provision
from storemirror.bus.servicebus_publish import ServiceBusPublisher
from storemirror.clock import Clock
from storemirror.errors import BusRefused


class ServiceBusAdmin:
    """Makes one topic, and looks after it."""

    def __init__(self, namespace: Namespace, clock: Clock, *, topic: str = TOPIC) -> None:
        """
        Name the topic; nothing is opened before the first call.

        Args:
            namespace: stays the caller's to close.
            clock: tells the age of messages; enqueue times are the service's.
            topic: need not exist yet.
        """
        self._namespace = namespace
        self._clock = clock
        self._topic = topic
        self._administration: ServiceBusAdministrationClient | None = None
        self._publisher = ServiceBusPublisher(namespace, topic=topic)
        #: At the oldest message, the last one.
        self._look: asyncio.Task[int | None] | None = None
        self._dead_letters = DeadLetters(namespace, clock, self._publisher, topic=topic)

    def _entities(self) -> ServiceBusAdministrationClient:
        if self._administration is None:
            self._administration = self._namespace.administration_client()
        return self._administration

    async def provision(self, topic: TopicSpec) -> None:
        """
        See `BusAdmin.provision`.

        A subscription that `topic` does not name is left as it is.  Each has a companion that
        keeps what was acknowledged.

        Raises:
            BusRefused: something differs that cannot be changed once it is there; all else was
                brought to `topic`.
        """
        if topic.name != self._topic:
            raise BusRefused(f"this admin looks after {self._topic!r}, not {topic.name!r}")
        refuse_bad_topic(topic)
        operation = self._namespace.operation(f"provision topic {topic.name!r}", Role.MANAGE)
        with translated_errors(operation):
            differences = await provision(self._entities(), topic)
        if differences:
            listed = "".join(f"\n  {difference}" for difference in differences)
            raise BusRefused(
                f"topic {topic.name!r} in {self._namespace.host} is provisioned but for what "
                f"Service Bus lets nobody change afterwards:{listed}\n"
                "Drain it, delete it, and provision it anew; or name another topic"
            )

    async def stats(self, subscription: str) -> SubscriptionStats:
        """See `BusAdmin.stats`.  The service counts neither locks nor completions."""
        operation = self._namespace.operation(
            f"count subscription {subscription!r} of topic {self._topic!r}", Role.MANAGE
        )
        with translated_errors(operation):
            found = await self._entities().get_subscription_runtime_properties(
                self._topic, subscription
            )
            acknowledged = await self._acknowledged_count(subscription)
        oldest_us = await self._oldest_us(subscription) if found.active_message_count else None
        return SubscriptionStats(
            subscription=subscription,
            depth=found.active_message_count or 0,
            locked_count=None,
            dead_letter_count=found.dead_letter_message_count or 0,
            acknowledged_count=acknowledged,
            completed_count=None,
            oldest_age_s=self._age_s(oldest_us),
            oldest_enqueued_at_us=oldest_us,
        )

    async def oldest_age_s(self, subscription: str) -> float | None:
        """
        See `BusAdmin.oldest_age_s`.  By a look at one message, which takes Listen alone.

        Who is called off leaves the look to its end: it may take longer than a caller has time to
        open the way to it, which then is open for the next one.
        """
        if self._look is not None:
            await asyncio.wait({self._look})
        self._look = asyncio.create_task(self._oldest_us(subscription))
        return self._age_s(await asyncio.shield(self._look))

    def _age_s(self, enqueued_us: int | None) -> float | None:
        if enqueued_us is None:
            return None
        return max(0, self._clock.now_us() - enqueued_us) / SECOND_US

    async def _acknowledged_count(self, subscription: str) -> int:
        try:
            found = await self._entities().get_subscription_runtime_properties(
                self._topic, acknowledged_name(subscription)
            )
        except ResourceNotFoundError:
            # One that drops what expires has no companion.
            return 0
        return found.active_message_count or 0

    async def _oldest_us(self, subscription: str) -> int | None:
        browsed = await self._dead_letters.browse(subscription, start=1, limit=1)
        return enqueued_at_us(browsed[0]) if browsed else None

    async def peek_dead_letters(
        self,
        subscription: str,
        *,
        limit: int,
        after_sequence_number: int = 0,
        with_acknowledged: bool = True,
    ) -> list[DeadLetter]:
        """See `BusAdmin.peek_dead_letters`.  When each was set aside the service does not tell."""
        return await self._dead_letters.peek(
            subscription,
            limit=limit,
            after=after_sequence_number,
            with_acknowledged=with_acknowledged,
        )

    async def resubmit(self, subscription: str, sequence_number: int, *, run: str) -> str:
        """See `BusAdmin.resubmit`."""
        return await self._dead_letters.resubmit(subscription, sequence_number, run=run)

    async def acknowledge(self, subscription: str, sequence_number: int, *, reason: str) -> None:
        """See `BusAdmin.acknowledge`."""
        await self._dead_letters.acknowledge(subscription, sequence_number, reason=reason)

    async def remove_dead_letters(
        self, subscription: str, sequence_numbers: Sequence[int]
    ) -> list[int]:
        """See `BusAdmin.remove_dead_letters`."""
        return await self._dead_letters.remove(subscription, sequence_numbers)

    async def purge(self, subscription: str) -> int:
        """See `BusAdmin.purge`.  Received and completed, page by page."""
        return await self._dead_letters.purge(subscription)

    async def aclose(self) -> None:
        """See `BusAdmin.aclose`.  The namespace stays open."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})
        await asyncio.gather(self._dead_letters.aclose(), self._publisher.aclose())
        administration, self._administration = self._administration, None
        if administration is not None:
            await administration.close()
