"""
The demo's traffic over Service Bus, with every fault of its wire, a writer killed, and poison.

Half a minute in `make test`, five minutes in `make soak`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message
from storemirror.config import load_settings
from storemirror.demo.run import Demo, DemoOptions, DemoProgress
from storemirror.wiring import Parts
from tests.standins.servicebus import StandIn, running_standin
from tests.standins.servicebus.faults import BUSY
from tests.support.soak import Scale

#: Seconds for which the app writes.
LIVE_S: Final = 20
SOAKING_LIVE_S: Final = 290
RATE_PER_S: Final = 40.0
#: Writes of the app from one fault to the next: about two seconds.
WRITES_PER_FAULT: Final = 70
#: Each loss of locks costs what is held a delivery; of ten a message has seven left.
MAX_LOCK_LOSSES: Final = 3

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(600),
    # The SDK leaves the socket of a connection that broke while it opened to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Trouble:
    """Lets the faults strike one by one, then drawn at random, two at a time."""

    def __init__(self, standin: StandIn, seed: int) -> None:
        self.counts: dict[str, int] = {}
        self._standin = standin
        self._random = random.Random(seed)
        self._struck_count = 0
        self._faults: Mapping[str, Callable[[], object]] = {
            "drop": standin.drop_connections,
            "detach": standin.detach_links,
            "silent detach": lambda: standin.detach_links(None),
            "busy": lambda: standin.faults.refuse_sends(BUSY, 2),
            "unsettled": lambda: standin.faults.refuse_settlements(BUSY, 5),
            "lock lost": standin.lose_locks,
            "freeze": standin.freeze,
        }
        self._round: Iterator[str] = iter(self._faults)

    def show(self, progress: DemoProgress) -> None:
        """Strike as often as the app has written enough, as long as it writes."""
        while progress.phase == "live" and progress.written > self._due_at:
            self._struck_count += 1
            first = next(self._round, None)
            names = [first] if first is not None else self._random.sample(list(self._faults), 2)
            for name in names:
                self._strike(name)

    @property
    def _due_at(self) -> int:
        return WRITES_PER_FAULT * (self._struck_count + 1)

    def _strike(self, name: str) -> None:
        if name == "lock lost" and self.counts.get(name, 0) >= MAX_LOCK_LOSSES:
            return
        self.counts[name] = self.counts.get(name, 0) + 1
        self._standin.call(self._faults[name])


async def test_the_demo_over_service_bus_ends_with_both_sides_equal(
    new_database: Callable[[], Awaitable[str]], tmp_path: Path, scale: Scale
) -> None:
    """Whatever the wire does, nothing is lost and nothing but poison is set aside (issue 5)."""
    live_s = scale.of(LIVE_S, soaking=SOAKING_LIVE_S)
    documents, mirror = await new_database(), await new_database()
    with running_standin() as standin:
        environment = {
            **os.environ,
            "STOREMIRROR_FIRESTORE_PROJECT": "demo",
            "STOREMIRROR_DOCUMENTS_DSN": documents,
            "STOREMIRROR_SQL_DSN": mirror,
            "STOREMIRROR_BUS_KIND": "servicebus",
            "SERVICEBUS_CONNECTION_STRING": standin.connection_string(),
            "SERVICEBUS_EMULATOR_MANAGEMENT": standin.management_endpoint,
            "USE_SQL_DM_WRITE_MIRROR": "true",
        }
        options = DemoOptions(
            events=round(live_s * RATE_PER_S), rate_per_s=RATE_PER_S, seed=7, port=0
        )
        trouble = Trouble(standin, seed=7)
        async with Parts(load_settings(None, environment)) as parts:
            demo = Demo(options, parts, environment, tmp_path, trouble.show)
            result = await demo.run(asyncio.Event())
            await _poison_is_set_aside_alone(parts)
    gc.collect()
    assert result.faults == ()
    assert (result.settled, result.mismatches) == (result.published, 0)
    assert len(trouble.counts) == 7, trouble.counts


async def _poison_is_set_aside_alone(parts: Parts) -> None:
    """After the run, what can be no event is set aside, and what is beside it applied."""
    publisher, admin = await parts.publisher(), await parts.bus_admin()
    poison = Message(message_id="poison", body=b"nonsense", content_type="application/json")
    await publisher.publish([poison])
    drained = await parts.drain(max_duration_s=60.0)
    assert (drained.dead_lettered, drained.depth) == (1, 0)
    (letter,) = await admin.peek_dead_letters(SUBSCRIPTION_SQL_WRITER, limit=10)
    assert (letter.message.message_id, letter.reason) == ("poison", "EnvelopeInvalid")
