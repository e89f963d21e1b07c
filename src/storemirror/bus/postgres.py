"""
The bus on PostgreSQL, for a laptop or a small team: publisher, consumer and admin.

A message is one row in `bus.queue` for every subscription, gone when it is settled; the SQL is in
`postgres_sql/`.  What shaped it:

- **Wake-up.**  A publisher sends NOTIFY after its commit, at most one every few milliseconds: one
  in each publishing transaction costs four fifths of the throughput.  Consumers poll as well, so
  a wake-up may get lost.
- **Low-water mark.**  Dead rows below the oldest message make each look slower, above all while
  another session holds a snapshot and VACUUM can remove none.  So a look begins at a mark, which
  may pass no number that a transaction in flight can still insert; `bus.advance_low_water` says
  why it does not.  The mark is below every message that exists, locked ones included, so a lock
  that is abandoned or runs out needs no look below it.
- **Upkeep.**  Whoever publishes or consumes also sweeps the whole topic about once a second, so
  that a subscription without a reader (monitoring) does not grow without bound.
- **Clock.**  Locks, ages and expiry go by the database's clock; this machine's only paces waiting.
"""

from __future__ import annotations

from storemirror.bus.postgres_admin import PostgresBusAdmin
from storemirror.bus.postgres_consume import PostgresConsumer
from storemirror.bus.postgres_publish import PostgresPublisher
from storemirror.clock import Clock
from storemirror.sql.postgres.connection import Database

__all__ = ["PostgresBus", "PostgresBusAdmin", "PostgresConsumer", "PostgresPublisher"]


class PostgresBus:
    """Makes publishers, consumers and admins on one database, which stays the caller's."""

    def __init__(self, database: Database) -> None:
        """Hold on to the database, of kind `BUS`."""
        self._database = database

    def publisher(self, clock: Clock, *, topic: str) -> PostgresPublisher:
        """Make a publisher."""
        return PostgresPublisher(self._database, clock, topic=topic)

    def consumer(self, clock: Clock, *, subscription: str, topic: str) -> PostgresConsumer:
        """Make a consumer."""
        return PostgresConsumer(self._database, clock, subscription=subscription, topic=topic)

    def admin(self, clock: Clock, *, topic: str) -> PostgresBusAdmin:
        """Make an admin."""
        return PostgresBusAdmin(self._database, topic=topic)
