"""Provisioning and looking after the PostgreSQL bus.  See `storemirror.bus.postgres`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Final

from storemirror.bus.port import (
    TOPIC,
    DeadLetter,
    ExpiryAction,
    SubscriptionStats,
    TopicSpec,
)
from storemirror.bus.postgres_session import Session, message_of, properties_json, sweep
from storemirror.bus.rules import (
    SECOND_US,
    duration_us,
    refuse_bad_topic,
    refuse_second_acknowledgement,
    replacement_of,
    storable,
)
from storemirror.errors import BusRefused, DeadLetterUnknown
from storemirror.sql.postgres.connection import BUS, Connection, Database, translated_errors

#: Run in order of their names; each may be run again.
_SCRIPTS: Final = tuple(
    script.read_bytes()
    for script in sorted(
        (resources.files("storemirror.bus") / "postgres_sql").iterdir(), key=lambda path: path.name
    )
    if script.name.endswith(".sql")
)

#: Names what the scripts install, so that a provisioning that changes nothing runs none of them.
_SCRIPTS_DIGEST: Final = hashlib.sha256(b"".join(_SCRIPTS)).hexdigest()

#: Two at once would trip over each other's CREATE.
_LOCK_PROVISIONING: Final = "SELECT pg_advisory_xact_lock(hashtextextended('storemirror.bus', 0))"
_HAS_INSTALLATION: Final = "SELECT to_regclass('bus.installation') IS NOT NULL"
_INSTALLED: Final = "SELECT script_digest FROM bus.installation"
_PUT_INSTALLATION: Final = """
    INSERT INTO bus.installation (script_digest) VALUES (%s)
    ON CONFLICT (is_only_row) DO UPDATE SET script_digest = EXCLUDED.script_digest
"""
_PUT_TOPIC: Final = """
    INSERT INTO bus.topic (name, duplicate_window_us) VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET duplicate_window_us = EXCLUDED.duplicate_window_us
    RETURNING topic_id
"""
_PUT_SUBSCRIPTION: Final = """
    WITH put AS (
        INSERT INTO bus.subscription (topic_id, name, lock_duration_us, max_delivery_count,
                                      time_to_live_us, drops_expired)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (topic_id, name) DO UPDATE
            SET lock_duration_us = EXCLUDED.lock_duration_us,
                max_delivery_count = EXCLUDED.max_delivery_count,
                time_to_live_us = EXCLUDED.time_to_live_us,
                drops_expired = EXCLUDED.drops_expired
        RETURNING subscription_id
    )
    INSERT INTO bus.low_water (subscription_id) SELECT subscription_id FROM put
    ON CONFLICT (subscription_id) DO NOTHING
"""
_PEEK: Final = """
    SELECT message_id, body, content_type, properties::text, sequence_number, reason, description,
           delivery_count, enqueued_at_us, dead_lettered_at_us, acknowledged_reason
    FROM bus.dead_letter
    WHERE subscription_id = (bus.find_subscription(%s, %s)).subscription_id
      AND sequence_number > %s AND (%s OR acknowledged_reason IS NULL)
    ORDER BY sequence_number LIMIT %s
"""
_ACKNOWLEDGE: Final = """
    UPDATE bus.dead_letter SET acknowledged_reason = %s
    WHERE subscription_id = (bus.find_subscription(%s, %s)).subscription_id
      AND sequence_number = %s AND acknowledged_reason IS NULL
    RETURNING sequence_number
"""
_REMOVE: Final = """
    DELETE FROM bus.dead_letter
    WHERE subscription_id = (bus.find_subscription(%s, %s)).subscription_id
      AND sequence_number = ANY (%b::bigint[])
    RETURNING sequence_number
"""
#: Messages that are removed in one transaction.
_PURGE_PAGE: Final = 2_000


class PostgresBusAdmin:
    """Makes one topic, and looks after it."""

    def __init__(self, database: Database, *, topic: str = TOPIC) -> None:
        """
        Name the topic; nothing is opened before the first call.

        Args:
            database: of kind `BUS`; stays the caller's to close.
            topic: need not exist yet.
        """
        self._database = database
        self._session = Session(database, topic)

    async def provision(self, topic: TopicSpec) -> None:
        """
        See `BusAdmin.provision`.

        A subscription that `topic` does not name is left as it is: its messages are somebody's.
        """
        if topic.name != self._session.topic:
            raise BusRefused(f"this admin looks after {self._session.topic!r}, not {topic.name!r}")
        refuse_bad_topic(topic)
        with translated_errors(BUS):
            await self._database.open()
        async with self._database.transaction() as conn:
            await conn.execute(_LOCK_PROVISIONING)
            await _install(conn)
            cursor = await conn.execute(
                _PUT_TOPIC, (topic.name, duration_us(topic.duplicate_window_s))
            )
            ((topic_id,),) = await cursor.fetchall()
            for spec in topic.subscriptions:
                ttl_s = spec.time_to_live_s
                await conn.execute(
                    _PUT_SUBSCRIPTION,
                    (
                        topic_id,
                        spec.name,
                        duration_us(spec.lock_duration_s),
                        spec.max_delivery_count,
                        None if ttl_s is None else duration_us(ttl_s),
                        spec.on_expiry is ExpiryAction.DROP,
                    ),
                )

    async def stats(self, subscription: str) -> SubscriptionStats:
        """See `BusAdmin.stats`.  Sweeps first, so that it counts what is really there."""
        await sweep(self._session)
        rows = await self._session.rows(
            "SELECT * FROM bus.stats(%s, %s)", (self._session.topic, subscription)
        )
        depth, locked, oldest_us, open_count, acknowledged, completed, now_us = rows[0]
        return SubscriptionStats(
            subscription=subscription,
            depth=depth,
            locked_count=locked,
            dead_letter_count=open_count,
            acknowledged_count=acknowledged,
            completed_count=completed,
            oldest_age_s=None if oldest_us is None else (now_us - oldest_us) / SECOND_US,
            oldest_enqueued_at_us=oldest_us,
        )

    async def oldest_age_s(self, subscription: str) -> float | None:
        """See `BusAdmin.oldest_age_s`."""
        return (await self.stats(subscription)).oldest_age_s

    async def peek_dead_letters(
        self,
        subscription: str,
        *,
        limit: int,
        after_sequence_number: int = 0,
        with_acknowledged: bool = True,
    ) -> list[DeadLetter]:
        """See `BusAdmin.peek_dead_letters`."""
        topic, after = self._session.topic, after_sequence_number
        rows = await self._session.rows(
            _PEEK, (topic, subscription, after, with_acknowledged, limit)
        )
        return [
            DeadLetter(
                message=message_of(*row[:4]),
                sequence_number=row[4],
                reason=row[5],
                description=row[6],
                delivery_count=row[7],
                enqueued_at_us=row[8],
                dead_lettered_at_us=row[9],
                acknowledged_reason=row[10],
            )
            for row in rows
        ]

    async def resubmit(self, subscription: str, sequence_number: int, *, run: str) -> str:
        """See `BusAdmin.resubmit`.  Refused when the replacement's id was accepted before."""
        letter = await self._find(subscription, sequence_number)
        replacement = replacement_of(letter, run=run)
        rows = await self._session.rows(
            "SELECT bus.resubmit(%s, %s, %s, %s, %s)",
            (
                self._session.topic,
                subscription,
                sequence_number,
                replacement.message_id,
                properties_json(replacement.properties),
            ),
        )
        match rows[0][0]:
            case "resubmitted":
                return replacement.message_id
            case "seen":
                raise BusRefused(
                    f"message id {replacement.message_id!r} was accepted before: choose another "
                    f"run than {run!r}; dead letter {sequence_number} stays"
                )
            case _:
                raise _unknown(subscription, sequence_number)

    async def acknowledge(self, subscription: str, sequence_number: int, *, reason: str) -> None:
        """See `BusAdmin.acknowledge`."""
        rows = await self._session.rows(
            _ACKNOWLEDGE, (storable(reason), self._session.topic, subscription, sequence_number)
        )
        if not rows:
            refuse_second_acknowledgement(await self._find(subscription, sequence_number))
            raise _unknown(subscription, sequence_number)

    async def _find(self, subscription: str, sequence_number: int) -> DeadLetter:
        letters = await self.peek_dead_letters(
            subscription, limit=1, after_sequence_number=sequence_number - 1
        )
        if not letters or letters[0].sequence_number != sequence_number:
            raise _unknown(subscription, sequence_number)
        return letters[0]

    async def remove_dead_letters(
        self, subscription: str, sequence_numbers: Sequence[int]
    ) -> list[int]:
        """See `BusAdmin.remove_dead_letters`."""
        rows = await self._session.rows(
            _REMOVE, (self._session.topic, subscription, list(sequence_numbers))
        )
        return sorted(number for (number,) in rows)

    async def purge(self, subscription: str) -> int:
        """See `BusAdmin.purge`.  A page a transaction, so that consumers go on meanwhile."""
        count = 0
        ((until_us,),) = await self._session.rows("SELECT bus.now_us()", ())
        while True:
            rows = await self._session.rows(
                "SELECT bus.purge(%s, %s, %s, %s)",
                (self._session.topic, subscription, _PURGE_PAGE, until_us),
            )
            gone_count = int(rows[0][0])
            count += gone_count
            # Until a look finds nothing would be for ever while somebody publishes.
            if gone_count < _PURGE_PAGE:
                return count

    async def aclose(self) -> None:
        """See `BusAdmin.aclose`.  The database stays open."""


async def _install(conn: Connection) -> None:
    """Run the scripts, unless exactly these have been run: they lock what publishers use."""
    ((is_there,),) = await (await conn.execute(_HAS_INSTALLATION)).fetchall()
    if is_there and await (await conn.execute(_INSTALLED)).fetchall() == [(_SCRIPTS_DIGEST,)]:
        return
    for script in _SCRIPTS:
        await conn.execute(script)
    await conn.execute(_PUT_INSTALLATION, (_SCRIPTS_DIGEST,))


def _unknown(subscription: str, sequence_number: int) -> DeadLetterUnknown:
    return DeadLetterUnknown(f"{subscription}: there is no dead letter {sequence_number}")
