"""A TCP proxy that cuts connections, delays what passes, and falls silent, when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from storemirror.clock import SystemClock

_CHUNK_BYTES = 65_536


class Proxy:
    """Passes bytes between clients and one server on 127.0.0.1.  Make it with `proxy_to`."""

    def __init__(self, server_port: int) -> None:
        """Name the server; nothing is opened."""
        self.port = 0
        #: How long each piece waits before it passes, seconds.
        self.delay_s = 0.0
        #: Cut the connection once these bytes went from a client to the server: it has them, and
        #: the client never hears what came of them.
        self.cut_after: bytes | None = None
        #: How many connections were cut.
        self.cut_count = 0
        self._server_port = server_port
        self._clock = SystemClock()
        self._is_passing = asyncio.Event()
        self._is_passing.set()
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()

    def dsn(self, dsn: str) -> str:
        """Give an address of the server's, led through this proxy."""
        parts = urlsplit(dsn)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        for writer in self._writers:
            self.cut_count += 1
            writer.transport.abort()
        self._writers.clear()

    def refuse(self, *, refuses: bool) -> None:
        """Take no new connection, or take them again; those there are stay."""
        self._refuses = refuses

    def silence(self, *, is_silent: bool) -> None:
        """Keep connections open and let nothing pass, as a router does that has lost its way."""
        if is_silent:
            self._is_passing.clear()
        else:
            self._is_passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:  # the server is away: the client must see that, not us
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        pipes = {
            asyncio.create_task(self._pass(reader, far_writer, is_upward=True)),
            asyncio.create_task(self._pass(far_reader, writer, is_upward=False)),
        }
        self._pipes |= pipes
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        self._writers -= {writer, far_writer}
        for end in (writer, far_writer):
            end.transport.abort()
        await asyncio.wait(pipes)
        self._pipes -= pipes

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_upward: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_CHUNK_BYTES):
                await self._clock.sleep(self.delay_s)
                await self._is_passing.wait()
                writer.write(piece)
                await writer.drain()
                if is_upward and self.cut_after is not None and self.cut_after in piece:
                    self.cut_after = None
                    self.cut_count += 1
                    return

    async def aclose(self) -> None:
        """Cut everything and wait until it has ended."""
        self.refuse(refuses=True)
        self.silence(is_silent=False)
        self.cut()
        while self._pipes:
            await asyncio.wait(self._pipes)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def proxy_to(server_port: int) -> AsyncIterator[Proxy]:
    """Lend a proxy to a port of 127.0.0.1, on a port of its own."""
    proxy = Proxy(server_port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
        await server.wait_closed()
