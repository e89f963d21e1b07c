"""
A receiver of trigger deliveries is killed; whoever delivers does it again, as Eventarc does.

It knows the bus alone: what database the mirror is in makes no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
from collections.abc import AsyncIterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from storemirror.clock import SystemClock
from storemirror.event.envelope import decode_change
from tests.faults.processes.receiver_child import ReceiverOrders, run_receiver
from tests.faults.processes.world import ended, processes, wait_for
from tests.integration.apply.pipe import Pipe, open_pipe
from tests.integration.receiver.hosted import A_MESSAGE, call
from tests.support.databases import Databases
from tests.support.deliveries import HEADERS, NAME, PATH, fill_image, told
from tests.support.soak import Scale

pytestmark = pytest.mark.postgres


class Receivers:
    """Receiver processes, one after the other."""

    def __init__(self, bus: str, folder: Path) -> None:
        """Start none."""
        self._bus = bus
        self._folder = folder
        self._numbers = itertools.count()
        self.process: BaseProcess | None = None
        self.port = 0

    async def start(self, *, dies_when: str | None = None) -> None:
        """Start one, and wait until it listens."""
        report = self._folder / f"{next(self._numbers)}.port"
        told_to = ReceiverOrders(bus=self._bus, report=report, dies_when=dies_when)
        self.process = processes.Process(target=run_receiver, args=(told_to,))
        self.process.start()

        async def listens() -> bool:
            return report.exists()

        await wait_for(listens)
        self.port = int(report.read_text())

    async def killed(self) -> int:
        """Kill it; gives its status."""
        assert self.process is not None
        self.process.kill()
        return await ended(self.process)

    async def deliver(self, number: int) -> bool:
        """Deliver a write of a message of its own, once; tells whether success was answered."""
        name, path = (text.replace("/m1", f"/m{number}") for text in (NAME, PATH))
        data = told()
        fill_image(data.value, A_MESSAGE, 20 + number, name)
        headers = {
            **HEADERS,
            "Ce-Id": f"d{number}",
            "Ce-Subject": f"documents/{path}",
            "Ce-Document": path,
        }
        with contextlib.suppress(OSError, ValueError, IndexError):
            answer = await call(self.port, "POST", "/", headers, data.SerializeToString())
            return answer.status == 204
        return False


@pytest.fixture
async def pipe(new_database: Databases) -> AsyncIterator[Pipe]:
    """A bus in the test's first database, and a mirror behind it."""
    async with open_pipe(new_database, bus="postgres") as opened:
        yield opened


@pytest.fixture
async def receivers(
    pipe: Pipe, new_database: Databases, tmp_path: Path
) -> AsyncIterator[Receivers]:
    """Receivers before the pipe's bus; the last one is killed in the end."""
    opened = Receivers(new_database.dsns[0], tmp_path)
    yield opened
    await opened.killed()


async def paths_on(pipe: Pipe) -> list[str]:
    """Give the paths of the events on the bus."""
    consumer = pipe.new_consumer()
    received = await consumer.receive(1_000, max_wait_s=0.0)
    bodies = [delivery.message.body for delivery in received]
    await consumer.complete(received)
    # Each keeps a connection: hundreds of rounds would take all that there are.
    await consumer.aclose()
    return sorted(decode_change(body, source=HEADERS["Ce-Source"]).path for body in bodies)


@pytest.mark.parametrize(("dies_when", "count"), [("accepted", 0), ("published", 1)])
async def test_a_delivery_that_was_not_answered_comes_again(
    pipe: Pipe, receivers: Receivers, dies_when: str, count: int
) -> None:
    """Published or not: the second receiver publishes it, and the bus knows it from the first."""
    await receivers.start(dies_when=dies_when)
    assert not await receivers.deliver(1)
    assert receivers.process is not None
    assert await ended(receivers.process) == -signal.SIGKILL
    assert (await pipe.stats()).depth == count
    await receivers.start()
    assert await receivers.deliver(1)
    assert await paths_on(pipe) == [PATH]


async def test_receivers_killed_at_any_moment_lose_no_delivery(
    pipe: Pipe, receivers: Receivers, scale: Scale
) -> None:
    """Many deliveries are under way when it dies."""
    dice, clock, delivered = random.Random(random.random()), SystemClock(), 0

    async def deliver_until_answered(number: int) -> None:
        while not await receivers.deliver(number):
            await clock.sleep(0.01)

    await receivers.start()
    for _ in range(scale.of(6, soaking=200)):
        numbers = range(delivered, delivered + 30)
        delivering = asyncio.gather(*map(deliver_until_answered, numbers))
        await clock.sleep(dice.random() * 0.05)
        assert await receivers.killed() == -signal.SIGKILL
        await receivers.start()
        async with asyncio.timeout(120):
            await delivering
        delivered += 30
        expected = sorted(PATH.replace("/m1", f"/m{n}") for n in numbers)
        assert await paths_on(pipe) == expected, "each of them once"
