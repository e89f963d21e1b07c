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

    def consumer(self, clock: Clock, *, subscription: str, topic: str) -> ServiceBusConsumer:
        """Make a consumer."""
        self._namespace.refuse_other_topic(topic)
        return ServiceBusConsumer(self._namespace, clock, subscription=subscription, topic=topic)

    def admin(self, clock: Clock, *, topic: str) -> ServiceBusAdmin:
        """Make an admin."""
        self._namespace.refuse_other_topic(topic)
        return ServiceBusAdmin(self._namespace, clock, topic=topic)

    async def aclose(self) -> None:
        """Let go of the identity; what was made is closed by who made it."""
        await self._namespace.aclose()
