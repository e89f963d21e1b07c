"""What publisher, consumer and admin of the PostgreSQL bus share: calls, upkeep, wake-up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import msgspec

from storemirror.bus.port import Message
from storemirror.bus.waiting import News
from storemirror.clock import Clock
from storemirror.errors import BusRefused, BusUnavailable
from storemirror.sql.postgres.connection import BUS, Database, psycopg, translated_errors

#: Schema, table or function missing: SQLSTATEs of a bus that was never provisioned.
_UNPROVISIONED_STATES: Final = ("3F000", "42P01", "42883", "42704")
#: Least time between two rounds of upkeep.
UPKEEP_INTERVAL_S: Final = 1.0
#: Upkeep rests at least so many times as long as it took: dead rows that a held snapshot keeps
#: make it slow, and it must not take the database away from its users.
_REST_FACTOR: Final = 10.0
#: Rows of a kind that one statement of upkeep deals with.
_SWEEP_PAGE: Final = 2_000
#: Pages of one round, so that it ends.
_SWEEP_PAGE_COUNT: Final = 25
_RECONNECT_INTERVAL_S: Final = 1.0

_PROPERTIES = msgspec.json.Decoder(dict[str, str])


class Session:
    """Calls the bus's functions on one topic."""

    def __init__(self, database: Database, topic: str) -> None:
        """Hold on to the database; it stays the caller's to close."""
        self._database = database
        self.topic = topic

    async def rows(
        self, statement: LiteralString, parameters: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        """
        Run one statement as a transaction of its own and give its rows.

        Raises:
            BusUnavailable: done or not is unknown.
            BusRefused: nothing was done.
        """
        try:
            with translated_errors(BUS):
                await self._database.open()
            async with self._database.connection() as conn:
                cursor = conn.cursor(binary=True)
                await cursor.execute(statement, parameters)
                return await cursor.fetchall()
        except BusRefused as exc:
            cause = exc.__cause__
            if isinstance(cause, psycopg.Error) and cause.sqlstate in _UNPROVISIONED_STATES:
                raise BusRefused(
                    f"the bus's database has no topic {self.topic!r}: "
                    "run `storemirror bus provision` first "
                    f"({exc})"
                ) from cause
            raise

    async def listen(self, news: News, clock: Clock) -> None:
        """Tell `news` of every arrival, on a connection of its own, until cancelled."""
        while True:
            with contextlib.suppress(BusUnavailable, BusRefused):
                await self._listen_once(news)
            await clock.sleep(_RECONNECT_INTERVAL_S)

    async def _listen_once(self, news: News) -> None:
        """Listen until the connection breaks."""
        with translated_errors(BUS):
            await self._database.open()
        async with self._database.connection() as conn:
            await conn.execute("LISTEN storemirror_bus")
            news.tell()
            try:
                async for notify in conn.notifies():
                    if notify.payload == self.topic:
                        news.tell()
            finally:
                # The pool lends this connection to others afterwards.
                with contextlib.suppress(psycopg.Error):
                    await conn.execute("UNLISTEN *")


class Upkeep:
    """Sweeps a topic and moves its marks, in the background, while somebody uses the bus."""

    def __init__(self, session: Session, clock: Clock) -> None:
        """Plan the first round at once."""
        self._session = session
        self._clock = clock
        self._due_at_s = clock.monotonic_s()
        self._round: asyncio.Task[None] | None = None

    def start_if_due(self) -> None:
        """Start a round if it is time and none is running."""
        is_running = self._round is not None and not self._round.done()
        if not is_running and self._clock.monotonic_s() >= self._due_at_s:
            self._round = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Do one round and plan the next."""
        began_at_s = self._clock.monotonic_s()
        # Whoever uses the bus meets the same trouble and reports it; the next round tries again.
        with contextlib.suppress(BusUnavailable, BusRefused):
            await sweep(self._session)
            await self._session.rows("SELECT bus.advance_low_water(%s)", (self._session.topic,))
        ended_at_s = self._clock.monotonic_s()
        rest_s = max(UPKEEP_INTERVAL_S, _REST_FACTOR * (ended_at_s - began_at_s))
        self._due_at_s = ended_at_s + rest_s

    async def aclose(self) -> None:
        """Let a running round end."""
        if self._round is not None:
            await self._round


async def sweep(session: Session) -> None:
    """Drop or dead-letter what is expired or exhausted, and forget old ids, as far as one round."""
    for _ in range(_SWEEP_PAGE_COUNT):
        rows = await session.rows("SELECT bus.sweep(%s, %s)", (session.topic, _SWEEP_PAGE))
        if not rows[0][0]:
            return


def properties_json(properties: Mapping[str, str]) -> str:
    """Write application properties as a JSON object."""
    return msgspec.json.encode(properties).decode() if properties else "{}"


def message_of(message_id: str, body: bytes, content_type: str, properties: str) -> Message:
    """Read a message from its columns."""
    return Message(
        message_id=message_id,
        body=body,
        content_type=content_type,
        properties=_PROPERTIES.decode(properties),
    )
