"""A trigger receiver in a process of its own, which kills itself around a publication."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storemirror import loop
from storemirror.bus.port import Message, PublishResult
from storemirror.bus.postgres import PostgresPublisher
from storemirror.clock import SystemClock
from storemirror.model.load import load_model
from storemirror.source.receiver import create_trigger_receiver, serve
from storemirror.sql.postgres.connection import BUS, Database
from tests.support.deliveries import SOURCE

HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class ReceiverOrders:
    """What a receiver process is to do."""

    bus: str
    #: Gets the port once it listens.
    report: Path
    #: "accepted": a delivery is taken, nothing is published; "published": nothing is answered.
    dies_when: str | None = None


class _DyingPublisher:
    """The real publisher, in a process that dies before or after it."""

    def __init__(self, publisher: PostgresPublisher, dies_when: str | None) -> None:
        self._publisher = publisher
        self._dies_when = dies_when

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        self._die_if("accepted")
        result = await self._publisher.publish(messages)
        self._die_if("published")
        return result

    def _die_if(self, moment: str) -> None:
        if self._dies_when == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    async def aclose(self) -> None:
        await self._publisher.aclose()


async def take_deliveries(orders: ReceiverOrders) -> None:
    """Take deliveries until SIGTERM."""
    stop, clock = asyncio.Event(), SystemClock()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = Database(orders.bus, BUS)
    await database.open()
    publisher = PostgresPublisher(database, clock)
    app = create_trigger_receiver(
        publisher=_DyingPublisher(publisher, orders.dies_when),
        model=load_model(),
        source=SOURCE,
        clock=clock,
        callers=None,
    )

    def tell(port: int) -> None:
        half = orders.report.with_suffix(".half")
        half.write_text(str(port))
        half.rename(orders.report)

    await serve(app, HOST, 0, stop, on_listening=tell)
    await publisher.aclose()
    await database.aclose()


def run_receiver(orders: ReceiverOrders) -> None:
    """Be the receiver; where the process begins."""
    loop.run(take_deliveries(orders))
