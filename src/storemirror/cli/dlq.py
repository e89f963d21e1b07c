"""`storemirror dlq`: what could not be applied, why, and what to do about it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from storemirror.bus.port import BusAdmin, DeadLetter
from storemirror.cli.output import JsonOption, counted, print_fields, print_json, say
from storemirror.clock import rfc3339_from_us
from storemirror.errors import DeadLetterUnknown, UsageRefused
from storemirror.wiring import Parts

app = typer.Typer(no_args_is_help=True, help="List, show, resubmit and acknowledge dead letters.")

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="As `dlq list` shows it.")]
Result = TypeVar("Result")


def _with_admin(
    context: typer.Context, work: Callable[[BusAdmin, str], Awaitable[Result]]
) -> Result:
    """Run one piece of work on the bus, for the writer's subscription."""

    async def run() -> Result:
        async with Parts(context.obj.settings()) as parts:
            return await work(await parts.bus_admin(), parts.subscription)

    return asyncio.run(run())


@app.command("list")
def list_dead_letters(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most dead letters.")] = 50,
    after: Annotated[int, typer.Option("--after", min=0, help="Only numbers above this.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the oldest first: number, reason, document."""
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
    """Put a dead letter back on the bus, once its cause is mended."""
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
    """Accept a dead letter as lost, with a reason.  It stays listed, and no longer blocks."""
    if not reason.strip():
        raise UsageRefused("--reason: say why this dead letter may stay lost; nothing was changed")
    _with_admin(context, lambda admin, sub: _acknowledge(admin, sub, number, reason.strip()))
    if as_json:
        print_json({"number": number, "acknowledged_reason": reason.strip()})
    else:
        say(f"dead letter {number} is acknowledged")


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
    properties = letter.message.properties
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
        "first_seen": rfc3339_from_us(letter.enqueued_at_us),
        "last_seen": rfc3339_from_us(letter.dead_lettered_at_us),
        "acknowledged_reason": letter.acknowledged_reason,
    }
