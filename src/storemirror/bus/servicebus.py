"""
The bus on Azure Service Bus, for production: publisher, consumer and admin.

What shaped it, all of it seen with the official SDK (docs/adr):

- **No sessions.**  Order never matters here, and a session would tie a conversation to a worker.
- **Credit is drained** after each reception, so that a trickle arrives in milliseconds, a flood in
  full batches, and nothing is locked for a receiver that is not receiving (`servicebus_link`).
- **One task sends.**  What concurrent callers publish goes out together, in as few batches as
  there can be.
- **Large documents** travel as path and version; the writer reads them from the store.
- **One's own subscription.**  A topic has no way to send to one subscription alone, which a
  resubmission needs: each has a filter that leaves out what is addressed to another.
- **What it does not tell**: which ids were duplicates, how many messages are locked or were
  completed, when a dead letter was set aside.  The port's `None` says so.
"""

from __future__ import annotations

from storemirror.bus.servicebus_admin import ServiceBusAdmin
from storemirror.bus.servicebus_consume import ServiceBusConsumer
from storemirror.bus.servicebus_link import ANSWER_TIMEOUT_S
from storemirror.bus.servicebus_namespace import Namespace, ServiceBusAddress
from storemirror.bus.servicebus_publish import ServiceBusPublisher
from storemirror.clock import Clock

__all__ = [
    "Namespace",
    "ServiceBus",
    "ServiceBusAddress",
    "ServiceBusAdmin",
    "ServiceBusConsumer",
    "ServiceBusPublisher",
]


class ServiceBus:
    """Makes publishers, consumers and admins in one namespace.

    ConfigError where the connection string is another topic's.
    """

    def __init__(self, address: ServiceBusAddress) -> None:
        """
        Name the namespace; nothing is opened.

        Raises:
            ConfigError: the address is none.
        """
        self._namespace = Namespace(address)

    def publisher(self, clock: Clock, *, topic: str) -> ServiceBusPublisher:
        """Make a publisher."""
        self._namespace.refuse_other_topic(topic)
        return ServiceBusPublisher(self._namespace, topic=topic)

    def consumer(
        self, clock: Clock, *, subscription: str, topic: str, lock_duration_s: float | None = None
    ) -> ServiceBusConsumer:
        """
        Make a consumer.

        Args:
            clock: for waiting.
            subscription: must have been provisioned.
            topic: likewise.
            lock_duration_s: the subscription's.  An answer is waited for no longer than a quarter
                of it: what is then asked again must still be under lock, or nobody learns whether
                it was settled.  None: long.
        """
        self._namespace.refuse_other_topic(topic)
        longest_s = ANSWER_TIMEOUT_S if lock_duration_s is None else lock_duration_s / 4
        return ServiceBusConsumer(
            self._namespace,
            clock,
            subscription=subscription,
            topic=topic,
            answer_timeout_s=min(ANSWER_TIMEOUT_S, longest_s),
        )

    def admin(self, clock: Clock, *, topic: str) -> ServiceBusAdmin:
        """Make an admin."""
        self._namespace.refuse_other_topic(topic)
        return ServiceBusAdmin(self._namespace, clock, topic=topic)

    async def aclose(self) -> None:
        """Let go of the identity; what was made is closed by who made it."""
        await self._namespace.aclose()
