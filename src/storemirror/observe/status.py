"""One snapshot of what the mirror is doing, read by everything that shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from storemirror.bus.port import BusAdmin
from storemirror.clock import Clock, rfc3339_from_us
from storemirror.errors import DatabaseRefused, SqlUnavailable
from storemirror.sql.port import SqlMirror


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The writer's subscription at one moment."""

    #: When it was read, microseconds since the Unix epoch, by this machine's clock.
    read_at_us: int
    subscription: str
    #: Messages waiting or locked; dead letters not included.
    depth: int
    #: Of these, in the hands of a writer; None where the bus does not tell.
    locked_count: int | None
    #: Dead letters that nobody acknowledged.
    dead_letter_count: int
    acknowledged_count: int
    #: Settled for good since the subscription exists; None where the bus does not count.
    completed_count: int | None
    #: Age of the oldest message waiting or locked; None when there is none.
    oldest_age_s: float | None
    #: Documents whose dead letters were purged, and which nothing has shown right since; None when
    #: the mirror's database is not named, or did not tell.
    unverified_count: int | None

    def to_json(self) -> dict[str, object]:
        """Give the snapshot as plain JSON values."""
        return asdict(self) | {"read_at": rfc3339_from_us(self.read_at_us)}


async def read_status(
    bus_admin: BusAdmin, subscription: str, clock: Clock, *, mirror: SqlMirror | None = None
) -> Status:
    """
    Read what a subscription holds, and what of the mirror is unverified.

    An outage of the mirror's database is when one looks at the bus: it is no error here.

    Raises:
        BusRefused: there is no such subscription.
        BusUnavailable: the bus did not answer.
    """
    stats = await bus_admin.stats(subscription)
    return Status(
        read_at_us=clock.now_us(),
        subscription=subscription,
        depth=stats.depth,
        locked_count=stats.locked_count,
        dead_letter_count=stats.dead_letter_count,
        acknowledged_count=stats.acknowledged_count,
        completed_count=stats.completed_count,
        oldest_age_s=stats.oldest_age_s,
        unverified_count=await _unverified_count(mirror),
    )


async def _unverified_count(mirror: SqlMirror | None) -> int | None:
    if mirror is None:
        return None
    try:
        return await mirror.unverified_count()
    except (SqlUnavailable, DatabaseRefused):
        return None
