"""A TCP proxy that cuts connections, delays what passes, and falls silent, when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from storemirror.clock import SystemClock
from storemirror.sql.sqlserver.address import is_sqlserver, target_of

_CHUNK_BYTES = 65_536
#: Host and port.
Place = tuple[str, int]


@dataclass
class _Asked:
    """What a client has sent on one connection since it last heard of the server."""

    byte_count: int = 0


class Proxy:
    """Passes bytes between clients and some servers.  Make it with `proxy_to`."""

    def __init__(self) -> None:
        """Have no connection yet."""
        #: Host and port of a server -> port of 127.0.0.1 that leads to it.
        self.ports: dict[Place, int] = {}
        #: How long each piece waits before it passes, seconds.
        self.delay_s = 0.0
        #: Cut the connection once these bytes went from a client to the server: it has them, and
        #: the client never hears what came of them.
        self.cut_after: bytes | None = None
        #: Cut the connection in place of the answer to so many bytes: the server has done what it
        #: was asked to, whatever the words, and the client never hears of it.
        self.cut_answer_to: int | None = None
        #: How many connections were cut.
        self.cut_count = 0
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
        host, _ = place = place_of(dsn)
        query = parts.query
        if is_sqlserver(dsn) and not re.search(r"trust_server|encrypt=no|host_name_in", query):
            # The certificate is still the server's, and so is the name in it.
            query = "&".join(filter(None, [query, f"host_name_in_certificate={host}"]))
        netloc = f"{user}@127.0.0.1:{self.ports[place]}"
        return urlunsplit(parts._replace(netloc=netloc, query=query))

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

    async def _serve(
        self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*place)
        except OSError:  # the server is away: the client must see that, not us
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        asked = _Asked()
        pipes = {
            asyncio.create_task(self._pass(reader, far_writer, asked, is_upward=True)),
            asyncio.create_task(self._pass(far_reader, writer, asked, is_upward=False)),
        }
        self._pipes |= pipes
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        self._writers -= {writer, far_writer}
        for end in (writer, far_writer):
            end.transport.abort()
        await asyncio.wait(pipes)
        self._pipes -= pipes

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: _Asked,
        *,
        is_upward: bool,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_CHUNK_BYTES):
                await self._clock.sleep(self.delay_s)
                await self._is_passing.wait()
                if not is_upward and self._cuts_answer(asked):
                    return
                asked.byte_count = asked.byte_count + len(piece) if is_upward else 0
                writer.write(piece)
                await writer.drain()
                if is_upward and self.cut_after is not None and self.cut_after in piece:
                    self.cut_after = None
                    self.cut_count += 1
                    return

    def _cuts_answer(self, asked: _Asked) -> bool:
        if self.cut_answer_to is None or asked.byte_count < self.cut_answer_to:
            return False
        self.cut_answer_to = None
        self.cut_count += 1
        return True

    async def aclose(self) -> None:
        """Cut everything and wait until it has ended."""
        self.refuse(refuses=True)
        self.silence(is_silent=False)
        self.cut()
        while self._pipes:
            await asyncio.wait(self._pipes)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def proxy_to(*dsns: str) -> AsyncIterator[Proxy]:
    """Lend a proxy to the servers of these addresses, each on a port of its own."""
    proxy = Proxy()
    servers = {
        place: await asyncio.start_server(functools.partial(proxy._serve, place), "127.0.0.1", 0)
        for place in {place_of(dsn) for dsn in dsns}
    }
    for place, server in servers.items():
        proxy.ports[place] = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        for server in servers.values():
            server.close()
        await proxy.aclose()
        for server in servers.values():
            await server.wait_closed()


def place_of(dsn: str) -> Place:
    """
    Give host and port that an address of either dialect names.

    >>> place_of("mssql://me:secret@db/shop"), place_of("postgresql://me@127.0.0.1:5432/a")
    (('db', 1433), ('127.0.0.1', 5432))
    """
    if is_sqlserver(dsn):
        target = target_of(dsn)
        return target.host, target.port
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
