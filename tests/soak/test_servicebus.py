"""
The demo's traffic and poison over Service Bus, with every fault of its wire, and a writer killed.

Half a minute in `make test`, five minutes in `make soak`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, Publisher
from storemirror.check.result import CheckSettings
from storemirror.check.run import run_check
from storemirror.config import load_settings
from storemirror.demo.run import Demo, DemoOptions, DemoProgress
from storemirror.errors import BusUnavailable
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
#: Says that nothing strikes any more.
LAST: Final = -1
#: Each loss of locks costs what is held a delivery; of ten a message has seven left.
MAX_LOCK_LOSSES: Final = 3

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(600),
    # The SDK leaves the socket of a connection that broke while it opened to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Trouble:
    """Lets the faults strike one by one, then all at once, then drawn at random, two at a time."""

    def __init__(self, standin: StandIn, seed: int) -> None:
        self.counts: dict[str, int] = {}
        #: How often the writer was killed and started again.
        self.restart_count = 0
        #: Numbers of the strikes; the last is `LAST`.
        self.struck: asyncio.Queue[int] = asyncio.Queue()
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
        one_by_one = [[name] for name in self._faults]
        self._round: Iterator[list[str]] = iter([*one_by_one, list(self._faults)])

    def show(self, progress: DemoProgress) -> None:
        """Strike as often as the app has written enough, as long as it writes."""
        self.restart_count = progress.restarts
        while progress.phase == "live" and progress.written > self._due_at:
            self._struck_count += 1
            drawn = self._random.sample(list(self._faults), 2)
            for name in next(self._round, drawn):
                self._strike(name)
            self.struck.put_nowait(self._struck_count)

    @property
    def has_struck_all(self) -> bool:
        """Tell whether each fault struck alone, and all at once."""
        return self._struck_count > len(self._faults) and self.counts.keys() == self._faults.keys()

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
            poisoning = asyncio.create_task(_poison(parts, trouble))
            result = await demo.run(asyncio.Event())
            trouble.struck.put_nowait(LAST)
            poison_ids = await poisoning
            await _poison_alone_was_set_aside(parts, poison_ids)
    gc.collect()
    assert trouble.has_struck_all, trouble.counts
    assert trouble.restart_count == 1, "the writer was killed, and started again"
    assert (result.settled, result.mismatches) == (result.published, 0)


async def _poison(parts: Parts, trouble: Trouble) -> list[str]:
    """Publish what can be no event after each strike, into its midst; gives the ids."""
    publisher, message_ids = await parts.publisher(), list[str]()
    while (number := await trouble.struck.get()) != LAST:
        message_ids.append(f"poison-{number}")
        poison = Message(
            message_id=message_ids[-1], body=b"nonsense", content_type="application/json"
        )
        while not await _is_published(publisher, poison):
            pass
    return message_ids


async def _is_published(publisher: Publisher, message: Message) -> bool:
    """Publish as whoever publishes must: what the bus did not confirm is published again."""
    try:
        await publisher.publish([message])
    except BusUnavailable:
        return False
    return True


async def _poison_alone_was_set_aside(parts: Parts, poison_ids: Sequence[str]) -> None:
    """See that all of it was, and nothing else; once it is accepted, the check is clean."""
    drained = await parts.drain(max_duration_s=60.0)
    assert (drained.resubmitted, drained.depth) == (0, 0)
    admin = await parts.bus_admin()
    letters = await admin.peek_dead_letters(SUBSCRIPTION_SQL_WRITER, limit=1_000)
    assert {letter.reason for letter in letters} == {"EnvelopeInvalid"}
    assert sorted(letter.message.message_id for letter in letters) == sorted(poison_ids)
    for letter in letters:
        await admin.acknowledge(SUBSCRIPTION_SQL_WRITER, letter.sequence_number, reason="planted")
    store = await parts.embedded_store()
    found = await run_check(
        store=store,
        mirror=await parts.mirror(),
        model=parts.model,
        bus_admin=admin,
        subscription=parts.subscription,
        pending=store.pending_count,
        clock=parts.clock,
        settings=CheckSettings(),
    )
    assert found.is_clean
