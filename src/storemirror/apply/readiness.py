"""Whether events may be applied: SQL answers, the schema is ours, the clocks agree."""

from __future__ import annotations

from storemirror.apply.settle import CLOCK_TOLERANCE_US, clock_skew_us
from storemirror.clock import SECOND_US, Clock
from storemirror.errors import ClockSkewed, SwitchedOff
from storemirror.sql.port import SqlMirror


def refuse_if_off(*, is_mirror_on: bool) -> None:
    """Raise `SwitchedOff` unless the master switch is on."""
    if not is_mirror_on:
        raise SwitchedOff("the mirror is switched off; nothing was received or written")


async def check_ready(mirror: SqlMirror, clock: Clock) -> None:
    """
    See that events may be applied.

    Raises:
        SqlUnavailable: the database does not answer, or is read-only or full.
        SchemaMismatch: the installed schema is not one that this code works on.
        ClockSkewed: the clocks are over a minute apart.
    """
    before_us = clock.now_us()
    database_us = await mirror.probe()
    skew_us = clock_skew_us(before_us=before_us, database_us=database_us, after_us=clock.now_us())
    if abs(skew_us) > CLOCK_TOLERANCE_US:
        where = "behind" if skew_us > 0 else "ahead of"
        raise ClockSkewed(
            f"this machine's clock is {abs(skew_us) / SECOND_US:.0f} s {where} the database's;"
            " nothing was applied"
        )
    await mirror.verify_schema()
