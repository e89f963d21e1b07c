"""`storemirror bus`: the topic and its subscriptions."""

from __future__ import annotations

import typer

from storemirror import loop
from storemirror.cli.output import JsonOption, print_fields, print_json, say
from storemirror.observe.status import Status, read_status
from storemirror.wiring import Parts

app = typer.Typer(no_args_is_help=True, help="Create the topic and its subscriptions; see depth.")


@app.command("provision")
def provision(context: typer.Context) -> None:
    """
    Create topic and subscriptions, or bring existing ones to the settings.  Idempotent.

    What Service Bus lets nobody change afterwards is reported.  Least role there: Azure Service
    Bus Data Owner.
    """

    async def run() -> None:
        async with Parts(context.obj.settings()) as parts:
            topic = parts.topic()
            await (await parts.bus_admin()).provision(topic)
            names = ", ".join(subscription.name for subscription in topic.subscriptions)
            say(f"topic {topic.name} has the subscriptions {names}")

    loop.run(run())


@app.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """
    Show depth, dead letters, age of the oldest message, and unverified documents.

    Least role on Service Bus: Azure Service Bus Data Owner, for the counts.
    """

    async def run() -> Status:
        async with Parts(context.obj.settings()) as parts:
            is_named = parts.settings.sql.dsn is not None
            mirror = await parts.mirror() if is_named else None
            return await read_status(
                await parts.bus_admin(), parts.subscription, parts.clock, mirror=mirror
            )

    found = loop.run(run()).to_json()
    if as_json:
        print_json(found)
    else:
        print_fields(found)
