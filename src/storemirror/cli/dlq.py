"""`storemirror dlq`: what could not be applied, why, and what to do about it."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from storemirror import loop
from storemirror.apply.dead_letters import PurgeFilter, PurgePlan, plan_purge, purge
from storemirror.bus.port import BusAdmin, DeadLetter
from storemirror.cli.output import JsonOption, counted, print_fields, print_json, say
from storemirror.clock import SECOND_US, rfc3339_from_us
from storemirror.errors import DeadLetterUnknown, UsageRefused
from storemirror.sql.port import UnverifiedDocument
from storemirror.wiring import Parts

app = typer.Typer(
    no_args_is_help=True, help="List, show, resubmit, acknowledge and purge dead letters."
)

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="As `dlq list` shows it.")]
Result = TypeVar("Result")


def _with_admin(
    context: typer.Context, work: Callable[[BusAdmin, str], Awaitable[Result]]
) -> Result:
    """Run one piece of work on the bus, for the writer's subscription."""

    async def run() -> Result:
        async with Parts(context.obj.settings()) as parts:
            return await work(await parts.bus_admin(), parts.subscription)

    return loop.run(run())


@app.command("list")
def list_dead_letters(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most dead letters.")] = 50,
    after: Annotated[int, typer.Option("--after", min=0, help="Only numbers above this.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """
    List dead letters, the oldest first: number, reason, document.

    Least role on Service Bus, here and for `show`: Azure Service Bus Data Receiver.
    """
    letters = _with_admin(
        context,
        lambda admin, subscription: admin.peek_dead_letters(
            subscription, limit=limit, after_sequence_number=after
        ),
    )
    if as_json:
        print_json([_fields(letter) for letter in letters])
        return
    for letter in letters:
        state = " (acknowledged)" if letter.acknowledged_reason is not None else ""
        path = letter.message.properties.get("path", "?")
        say(f"{letter.sequence_number}  {letter.reason}  {path}{state}")
    say(f"{counted(len(letters), 'dead letter')} shown" if letters else "no dead letters")


@app.command("show")
def show(context: typer.Context, number: Number, as_json: JsonOption = False) -> None:
    """Show one dead letter: why, which document, since when.  Not its contents."""
    fields = _fields(_with_admin(context, lambda admin, sub: _find(admin, sub, number)))
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@app.command("resubmit")
def resubmit(context: typer.Context, number: Number, as_json: JsonOption = False) -> None:
    """
    Put a dead letter back on the bus, once its cause is mended.

    Least roles on Service Bus: Azure Service Bus Data Receiver and Data Sender.
    """
    run = f"resubmit-{secrets.token_hex(6)}"
    message_id = _with_admin(
        context, lambda admin, subscription: admin.resubmit(subscription, number, run=run)
    )
    if as_json:
        print_json({"number": number, "message_id": message_id})
    else:
        say(f"dead letter {number} is on the bus again as {message_id}")


@app.command("ack")
def acknowledge(
    context: typer.Context,
    number: Number,
    reason: Annotated[
        str, typer.Option("--reason", help="Why it may stay lost; kept with the dead letter.")
    ],
    as_json: JsonOption = False,
) -> None:
    """
    Accept a dead letter as lost, with a reason.  It stays listed, and no longer blocks.

    Least roles on Service Bus: Azure Service Bus Data Receiver and Data Sender.
    """
    if not reason.strip():
        raise UsageRefused("--reason: say why this dead letter may stay lost; nothing was changed")
    _with_admin(context, lambda admin, sub: _acknowledge(admin, sub, number, reason.strip()))
    if as_json:
        print_json({"number": number, "acknowledged_reason": reason.strip()})
    else:
        say(f"dead letter {number} is acknowledged")


@app.command("purge")
def purge_dead_letters(
    context: typer.Context,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Only those with this reason.")
    ] = None,
    older_than_days: Annotated[
        float | None,
        typer.Option("--older-than-days", min=0.0, help="Only those set aside so long ago."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; needed in scripts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Remove dead letters for good, and mark their documents unverified.

    Such a document is listed by `dlq unverified`, and counted by `bus status` and `check`, until a
    check has shown it to be right or a newer event of it was applied.  Acknowledged dead letters
    go as well.
    """
    if not yes and (as_json or not sys.stdin.isatty()):
        raise UsageRefused("dlq purge removes for good: say --yes; nothing was changed")
    parts = Parts(context.obj.settings())
    parts.require(*parts.bus_settings, "sql.dsn")
    planned_count, removed_count = loop.run(
        _purge(parts, reason, older_than_days, is_asking=not yes)
    )
    if as_json:
        print_json(
            {"purged_count": removed_count, "gone_before_count": planned_count - removed_count}
        )
    else:
        say(f"{counted(removed_count, 'dead letter')} purged")


async def _purge(
    parts: Parts, reason: str | None, older_than_days: float | None, *, is_asking: bool
) -> tuple[int, int]:
    """Plan, ask, and do it; gives how many were planned and how many went."""
    async with parts:
        admin, mirror = await parts.bus_admin(), await parts.mirror()
        await mirror.verify_schema()
        age_us = None if older_than_days is None else round(older_than_days * 86_400 * SECOND_US)
        until_us = None if age_us is None else parts.clock.now_us() - age_us
        plan = await plan_purge(
            admin, parts.subscription, parts.model, PurgeFilter(reason=reason, until_us=until_us)
        )
        if is_asking and plan.marks:
            say(_described(plan))
            typer.confirm("Remove them for good?", abort=True, err=True)
        return len(plan.marks), await purge(plan, admin, parts.subscription, mirror)


def _described(plan: PurgePlan) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in plan.reasons.items())
    return (
        f"{counted(len(plan.marks), 'dead letter')} ({reasons}): the events are lost then, and "
        "their documents are marked unverified"
    )


@app.command("unverified")
def list_unverified(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most documents.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """
    List documents whose dead letters were purged, and which nothing has shown right since.

    `storemirror check` clears those that it finds equal on both sides.
    """

    async def read() -> tuple[list[UnverifiedDocument], int]:
        async with parts:
            mirror = await parts.mirror()
            await mirror.verify_schema()
            return await mirror.unverified(limit=limit), await mirror.unverified_count()

    parts = Parts(context.obj.settings())
    parts.require("sql.dsn")
    marks, count = loop.run(read())
    if as_json:
        print_json({"unverified_count": count, "unverified": [_mark_fields(m) for m in marks]})
        return
    for mark in marks:
        say(f"{rfc3339_from_us(mark.marked_at_us)}  {mark.reason}  {mark.path or '?'}")
    say(f"{counted(count, 'document')} unverified" if count else "no document is unverified")


def _mark_fields(mark: UnverifiedDocument) -> dict[str, object]:
    return {
        "path": mark.path,
        "entity": mark.entity,
        "version": mark.version,
        "reason": mark.reason,
        "message_id": mark.message_id,
        "marked_at": rfc3339_from_us(mark.marked_at_us),
    }


async def _acknowledge(admin: BusAdmin, subscription: str, number: int, reason: str) -> None:
    """Acknowledge once: the first reason is evidence, and stays."""
    known = (await _find(admin, subscription, number)).acknowledged_reason
    if known is not None:
        raise UsageRefused(f"dead letter {number} was acknowledged before: {known}")
    await admin.acknowledge(subscription, number, reason=reason)


async def _find(admin: BusAdmin, subscription: str, number: int) -> DeadLetter:
    letters = await admin.peek_dead_letters(subscription, limit=1, after_sequence_number=number - 1)
    if not letters or letters[0].sequence_number != number:
        raise DeadLetterUnknown(f"no dead letter has the number {number}; nothing was changed")
    return letters[0]


def _fields(letter: DeadLetter) -> dict[str, object]:
    """Give a dead letter without its body: that holds the document."""
    properties, set_aside_at_us = letter.message.properties, letter.dead_lettered_at_us
    return {
        "number": letter.sequence_number,
        "reason": letter.reason,
        "description": letter.description,
        "path": properties.get("path"),
        "entity": properties.get("entity"),
        "type": properties.get("type"),
        "origin": properties.get("origin"),
        "version": properties.get("version"),
        "message_id": letter.message.message_id,
        "size_bytes": len(letter.message.body),
        "delivery_count": letter.delivery_count,
        "first_seen": rfc3339_from_us(letter.first_enqueued_at_us),
        "last_seen": None if set_aside_at_us is None else rfc3339_from_us(set_aside_at_us),
        "acknowledged_reason": letter.acknowledged_reason,
    }
