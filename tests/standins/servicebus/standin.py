"""The service as a whole: two ports on a loop of its own, and faults on request."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from aiohttp import web

from tests.standins.servicebus.connection import Connection
from tests.standins.servicebus.entities_http import EntitiesHttp
from tests.standins.servicebus.faults import Faults
from tests.standins.servicebus.management import Policy
from tests.standins.servicebus.message import AmqpError
from tests.standins.servicebus.store import Queue, ShiftableClock, Topic

HOST: Final = "127.0.0.1"
#: Standard tier.
MAX_MESSAGE_BYTES: Final = 256 * 1024
#: How often locks and times to live are looked at by themselves.
_SWEEP_INTERVAL_S: Final = 0.05
ROOT: Final = "RootManageSharedAccessKey"
POLICIES: Final = {
    ROOT: Policy(key="cm9vdA==", rights=frozenset({"Send", "Listen", "Manage"})),
    "Sender": Policy(key="c2VuZA==", rights=frozenset({"Send"})),
    "Listener": Policy(key="bGlzdGVu", rights=frozenset({"Listen"})),
}

Result = TypeVar("Result")


class StandIn:
    """One namespace.  Its methods are for its own loop, except where they say otherwise."""

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.clock = ShiftableClock()
        self.topics: dict[str, Topic] = {}
        self.connections: set[Connection] = set()
        self.faults = Faults()
        self.policies = POLICIES
        self.max_message_bytes = max_message_bytes
        self.amqp_port = self.http_port = 0
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Listen on two free ports."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: Connection(self), HOST, 0)
        self.amqp_port = self._server.sockets[0].getsockname()[1]
        self._runner = web.AppRunner(EntitiesHttp(self).app())
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.http_port = self._runner.addresses[0][1]
        self._sweep()

    async def stop(self) -> None:
        """Break all connections, and listen no more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        self.drop_connections()
        if self._runner is not None:
            await self._runner.cleanup()

    def _sweep(self) -> None:
        for queue in self.queues():
            queue.sweep()
        assert self._loop is not None
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    # Entities

    def add_topic(self, name: str) -> Topic:
        """Make a topic."""
        topic = self.topics[name.lower()] = Topic(name, self.clock)
        return topic

    def queues(self) -> list[Queue]:
        """Give every subscription and its dead letters."""
        queues = [q for topic in self.topics.values() for q in topic.subscriptions.values()]
        return queues + [q.dead_letters for q in queues if q.dead_letters is not None]

    def find(self, address: str) -> Topic | Queue:
        """
        Give the entity at an address.

        Raises:
            AmqpError: there is none.
        """
        path = re.sub(r"^(amqps?|sb)://[^/]+/", "", address).strip("/").lower()
        if path in self.topics:
            return self.topics[path]
        for queue in self.queues():
            if queue.path.lower() == path:
                return queue
        raise AmqpError(
            "amqp:not-found", f"The messaging entity '{address}' could not be found.", 404
        )

    # Faults

    def drop_connections(self) -> None:
        """Break every connection."""
        for connection in list(self.connections):
            connection.abort()

    def freeze(self, is_frozen: bool = True) -> None:
        """Let every open connection hang in silence, or go on."""
        for connection in list(self.connections):
            connection.freeze(is_frozen)

    def detach_links(self, condition: str | None = "amqp:link:detach-forced") -> None:
        """End every link, as maintenance does; None: without saying why."""
        error = None if condition is None else AmqpError(condition, "detached on request")
        for connection in list(self.connections):
            for link in list(connection.links.values()):
                link.detach(error)

    def lose_locks(self) -> None:
        """Let every lock run out."""
        for queue in self.queues():
            queue.lose_locks()

    def advance(self, duration_s: float) -> None:
        """Put the clock forward."""
        self.clock.shift_s += duration_s
        for queue in self.queues():
            queue.sweep()

    # From other threads

    def call(self, function: Callable[[], Result]) -> Result:
        """Call something on the stand-in's loop, from another thread, and wait for it."""
        assert self._loop is not None

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def connection_string(self, policy: str = ROOT, key: str | None = None) -> str:
        """Give what a client connects with; from any thread."""
        return (
            f"Endpoint=sb://{HOST}:{self.amqp_port};SharedAccessKeyName={policy};"
            f"SharedAccessKey={key or self.policies[policy].key};UseDevelopmentEmulator=true"
        )

    @property
    def management_endpoint(self) -> str:
        """Give host and port of the management interface; from any thread."""
        return f"{HOST}:{self.http_port}"


@contextlib.contextmanager
def running_standin(*, max_message_bytes: int = MAX_MESSAGE_BYTES) -> Iterator[StandIn]:
    """Lend a stand-in that runs on a loop of its own, in a thread of its own."""
    standin = StandIn(max_message_bytes=max_message_bytes)
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        await standin.start()
        started.set()
        await stop.wait()
        await standin.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="servicebus-standin")
    thread.start()
    started.wait()
    try:
        yield standin
    finally:
        standin.call(stop.set)
        thread.join()
