"""`storemirror purge`: tombstones that have done their work are removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from storemirror import loop
from storemirror.cli.backfill import ChecksOption, names_in
from storemirror.cli.output import JsonOption, counted, print_json, say
from storemirror.clock import Clock
from storemirror.errors import UsageRefused
from storemirror.model.entity import Entity
from storemirror.source.backfill import chosen_entities
from storemirror.sql.port import SqlMirror
from storemirror.wiring import Parts

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhdw])")
#: The procedures refuse less: documents that are being read again must be newer than the horizon.
_LEAST_AGE_S: Final = 600
#: Rows that one call takes about: writers wait no longer than that.
_CALL_MAX_COUNT: Final = 2_000
#: Between two tries while writers are at work.
_RETRY_AFTER_S: Final = 0.05


def seconds_of(text: str) -> int:
    """
    Read an age such as "90d".

    Raises:
        UsageRefused: it is none, or too short.

    >>> seconds_of("90d"), seconds_of("12h")
    (7776000, 43200)
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageRefused(f"--older-than: {text!r} is no age; write 90d, 12h or 30m")
    age_s = int(found[1]) * _UNITS_S[found[2]]
    if age_s < _LEAST_AGE_S:
        raise UsageRefused(f"--older-than: {text} is less than 10m, the least there is")
    return age_s


def purge(
    context: typer.Context,
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="AGE", help="Age since the delete: 90d, 12h, 30m."),
    ] = "90d",
    checks: ChecksOption = "",
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", min=1.0, help="Begin nothing more after so long.")
    ] = 50.0,
    as_json: JsonOption = False,
) -> None:
    """
    Remove the rows of documents that were deleted long ago.

    What arrives about such a document afterwards is not believed: the document is read again,
    one read each.  Made to be run every day.  Exit status: 0 all that was old enough is gone, 1
    time was up or writers left no gap; run it again.
    """
    age_s = seconds_of(older_than)
    parts = Parts(context.obj.settings())
    parts.require("sql.dsn")
    entities = chosen_entities(parts.model, names_in(checks))

    async def run() -> tuple[Mapping[str, int], Mapping[str, int]]:
        async with parts:
            mirror = await parts.mirror()
            await mirror.verify_schema()
            until_s = parts.clock.monotonic_s() + max_seconds
            # Children first: a parent goes only when it has no child rows.
            in_order = list(reversed(entities))
            gone = {
                e.check: await purge_entity(mirror, e, parts.clock, age_s=age_s, until_s=until_s)
                for e in in_order
            }
            left = {
                e.check: await mirror.purgeable_count(
                    e, older_than_s=age_s, max_count=_CALL_MAX_COUNT
                )
                for e in in_order
            }
        return gone, left

    gone, left = loop.run(run())
    if as_json:
        print_json({"purged_counts": gone, "is_finished": not any(left.values())})
    else:
        for check, count in gone.items():
            waits = f", {left[check]} or more left" if left[check] else ""
            say(f"{check}: {counted(count, 'row')} removed{waits}")
    raise typer.Exit(1 if any(left.values()) else 0)


async def purge_entity(
    mirror: SqlMirror, entity: Entity, clock: Clock, *, age_s: float, until_s: float
) -> int:
    """Purge one entity until nothing is left or the time is up; gives how many rows went."""
    gone = 0
    while clock.monotonic_s() < until_s:
        count = await mirror.purge(entity, older_than_s=age_s, max_count=_CALL_MAX_COUNT)
        gone += count
        if count:
            continue
        if not await mirror.purgeable_count(entity, older_than_s=age_s, max_count=1):
            break
        await clock.sleep(_RETRY_AFTER_S)  # a writer was at work
    return gone
