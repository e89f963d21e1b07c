"""A real mirror and a real consumer that fail when they are told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from storemirror.bus.port import Consumer, Delivery, Rejection
from storemirror.event.change import Outcome
from storemirror.sql.port import RowEvent
from storemirror.sql.postgres.mirror import PostgresMirror
from tests.integration.apply.pipe import Pipe
from tests.support.mirrors import PROJECT, STORE


class FaultyMirror(PostgresMirror):
    """Raises the errors of `probe_faults` and `apply_faults` first, one a call."""

    def __init__(self, pipe: Pipe) -> None:
        under_test = pipe.under_test
        super().__init__(under_test.database, under_test.rendering, project=PROJECT, store=STORE)
        self.probe_faults: deque[Exception] = deque()
        self.apply_faults: deque[Exception] = deque()
        #: Number of events of each call of `apply`, failed ones included.
        self.sizes: list[int] = []
        self.before_probe: Callable[[], Awaitable[None]] | None = None

    async def probe(self) -> int:
        if self.before_probe is not None:
            await self.before_probe()
        if self.probe_faults:
            raise self.probe_faults.popleft()
        return await super().probe()

    async def apply(
        self, events: Sequence[RowEvent], *, timeout_s: float | None = None
    ) -> list[Outcome]:
        self.sizes.append(len(events))
        if self.apply_faults:
            raise self.apply_faults.popleft()
        return await super().apply(events, timeout_s=timeout_s)


class FaultyConsumer:
    """Raises the errors of `faults`, by the name of the call, first."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.faults: dict[str, deque[Exception]] = {}
        #: Deliveries given by `receive`.
        self.received: list[Delivery] = []
        #: Awaited before each call, with its name.
        self.before_call: Callable[[str], Awaitable[None]] | None = None
        #: Awaited after each renewal.
        self.after_renew: Callable[[], Awaitable[None]] | None = None

    async def _strike(self, call: str) -> None:
        if self.before_call is not None:
            await self.before_call(call)
        if self.faults.get(call):
            raise self.faults[call].popleft()

    async def receive(self, max_count: int, *, max_wait_s: float) -> list[Delivery]:
        await self._strike("receive")
        deliveries = await self._consumer.receive(max_count, max_wait_s=max_wait_s)
        self.received += deliveries
        return deliveries

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        await self._strike("complete")
        return await self._consumer.complete(deliveries)

    async def abandon(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        await self._strike("abandon")
        return await self._consumer.abandon(deliveries)

    async def dead_letter(self, rejections: Sequence[Rejection]) -> list[Delivery]:
        await self._strike("dead_letter")
        return await self._consumer.dead_letter(rejections)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        await self._strike("renew")
        renewed = await self._consumer.renew(deliveries)
        if self.after_renew is not None:
            await self.after_renew()
        return renewed

    async def aclose(self) -> None:
        await self._consumer.aclose()
