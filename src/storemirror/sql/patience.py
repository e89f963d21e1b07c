"""
For how long a change of the schema stands in the way of others, and what is said when it gave up.

A table is altered once nobody uses it.  Whoever waits for that has everybody queue behind it who
comes later, readers too: so it waits for a few seconds, lets them pass, and tries again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from storemirror.clock import Clock
from storemirror.errors import SchemaLocked
from storemirror.sql.plan import SchemaPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPatience:
    """How often a change of the schema is tried, and how long each lock of it is waited for."""

    #: Less than the gateway gives a read: what queues behind the change is late, and answered.
    wait_s: float = 2.0
    #: Between two tries, for what has queued behind the change.
    pause_s: float = 4.0
    try_count: int = 10
    #: For older transactions to end, before an index is whole that is built beside another one: of
    #: this wait nobody notices anything, and giving up costs the whole build.
    build_wait_s: float = 3_600.0

    @property
    def wait_ms(self) -> int:
        """Give how long a lock is waited for, as servers take it."""
        return round(self.wait_s * 1_000)

    @property
    def build_wait_ms(self) -> int:
        """Give `build_wait_s` as servers take it."""
        return round(self.build_wait_s * 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """A session that has one of the schema's tables, or the writers' lock."""

    #: The server's number of it: a PID, or an SPID.
    session_id: int
    #: What the session calls itself; empty: nothing.
    application: str

    def __str__(self) -> str:
        """Give number and name.

        >>> str(LockHolder(session_id=7, application="pg_dump"))
        'session 7 (pg_dump)'
        """
        return f"session {self.session_id} ({self.application or 'without a name'})"


@dataclass(slots=True)
class Deployment:
    """One `schema apply`, over all its tries."""

    on_planned: Callable[[SchemaPlan], None] | None
    is_told: bool = False
    #: Whether tables and procedures were changed, and committed.
    has_changed: bool = False

    def tell(self, plan: SchemaPlan) -> None:
        """Tell the first try's plan: the others do what is left of it."""
        if self.on_planned is not None and not self.is_told:
            self.on_planned(plan)
        self.is_told = True

    def locked(self, holders: Sequence[LockHolder] | None, patience: LockPatience) -> SchemaLocked:
        """
        Say that a lock was not given in time; the try was rolled back.

        Args:
            holders: the oldest first; empty: they have let go by now.  None: the server
                tells it to users with more rights alone.
            patience: what was waited.
        """
        what_is = (
            "tables and procedures are changed, and what comes after that was not"
            if self.has_changed
            else "nothing was changed"
        )
        return SchemaLocked(
            f"the schema is in use: a lock was not given in {patience.wait_s:g} s, at"
            f" {patience.try_count} tries; {_told(holders)}; {what_is}"
        )

    def not_built(
        self, holders: Sequence[LockHolder] | None, patience: LockPatience
    ) -> SchemaLocked:
        """Say that an index was not whole in time, so that it cannot take another one's place."""
        return SchemaLocked(
            "the index that is to take another one's place cannot be used before every older"
            f" transaction has ended, and in {patience.build_wait_s:g} s they did not;"
            f" {_told(holders)}; nothing was changed, and the index will be built anew"
        )


async def patiently(
    body: Callable[[], Awaitable[None]], patience: LockPatience, clock: Clock
) -> None:
    """Do it once nobody stands in the way; `SchemaLocked` of the last try when somebody does."""

    # The library awaits what is declared with `async` alone.
    async def attempt() -> None:
        await body()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(SchemaLocked),
        wait=wait_fixed(patience.pause_s),
        stop=stop_after_attempt(patience.try_count),
        sleep=clock.sleep,
        reraise=True,
    )
    await retrying(attempt)


def _told(holders: Sequence[LockHolder] | None) -> str:
    if holders is None:
        return (
            "the server does not say who has it: the right VIEW SERVER STATE is missing (in Azure"
            " SQL Database VIEW DATABASE STATE), or this is Babelfish, which tells nobody"
        )
    if not holders:
        return "whoever had it has let go by now"
    return f"it is in the hands of {', '.join(map(str, holders))}"
