"""Service Bus for the contract suite: on the stand-in, or on a namespace of Azure's."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Final

import pytest

from storemirror.bus.port import BusAdmin, Consumer, Publisher
from storemirror.bus.servicebus import (
    Namespace,
    ServiceBusAddress,
    ServiceBusAdmin,
    ServiceBusConsumer,
    ServiceBusPublisher,
)
from storemirror.clock import Clock, SystemClock
from tests.contract.bus.clocks import ClockOf
from tests.contract.bus.under_test import (
    RUNNING_MARGIN_S,
    STANDING_MARGIN_S,
    TOPIC_SPEC,
    WRITER,
)
from tests.standins.servicebus import StandIn

#: Azure's clock is not ours to put forward: what takes longer is not waited for.
MAX_WAIT_S: Final = 120.0


class ServiceBusUnderTest:
    """Service Bus; a stand-in's clock is put forward, Azure's is waited for."""

    tells_all = False

    def __init__(
        self,
        connection_string: str,
        *,
        standin: StandIn | None = None,
        management: str | None = None,
    ) -> None:
        """Name the namespace; on Azure the topic has a name that nobody else has."""
        self.standin = standin
        self.margin_s = RUNNING_MARGIN_S if standin is None else STANDING_MARGIN_S
        self.clock: Clock = SystemClock()
        if standin is not None:
            standin.clock.hold()
            self.clock = ClockOf(standin.clock.now_s)
        self.address = ServiceBusAddress(
            connection_string=connection_string, emulator_management=management
        )
        self.namespace = Namespace(self.address)
        name = TOPIC_SPEC.name if standin else f"storemirror-test-{uuid.uuid4().hex[:12]}"
        self.topic_spec = replace(TOPIC_SPEC, name=name)
        self.admin: BusAdmin = ServiceBusAdmin(self.namespace, self.clock, topic=name)
        self._made: list[Publisher | Consumer | BusAdmin] = [self.admin]

    def _named(self, topic: str) -> str:
        return self.topic_spec.name if topic == TOPIC_SPEC.name else topic

    def publisher(self, *, topic: str = TOPIC_SPEC.name) -> ServiceBusPublisher:
        """See `BusUnderTest.publisher`."""
        publisher = ServiceBusPublisher(self.namespace, topic=self._named(topic))
        self._made.append(publisher)
        return publisher

    def consumer(
        self,
        subscription: str = WRITER,
        *,
        topic: str = TOPIC_SPEC.name,
        link_count: int = 3,
        answer_timeout_s: float = 30.0,
    ) -> ServiceBusConsumer:
        """See `BusUnderTest.consumer`."""
        consumer = ServiceBusConsumer(
            self.namespace,
            SystemClock(),
            subscription=subscription,
            topic=self._named(topic),
            link_count=link_count,
            answer_timeout_s=answer_timeout_s,
        )
        self._made.append(consumer)
        return consumer

    async def let_pass(self, duration_s: float) -> None:
        """See `BusUnderTest.let_pass`."""
        if self.standin is not None:
            standin = self.standin
            await asyncio.to_thread(standin.call, lambda: standin.advance(duration_s))
        elif duration_s > MAX_WAIT_S:
            pytest.skip(f"needs real Azure to let {duration_s:.0f} seconds pass")
        else:
            await SystemClock().sleep(duration_s)

    async def delete_topic(self) -> None:
        """Take the test's topic away."""
        async with self.namespace.administration_client() as client:
            await client.delete_topic(self.topic_spec.name)

    async def aclose(self) -> None:
        """Close what was made."""
        await asyncio.gather(*(made.aclose() for made in self._made))
        await self.namespace.aclose()
