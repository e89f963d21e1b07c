"""`storemirror triggers`: takes Firestore's trigger deliveries."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from storemirror import loop
from storemirror.cli.output import print_json, say, stop_on_signals
from storemirror.wiring import Parts


def triggers(context: typer.Context) -> None:
    """
    Take Eventarc deliveries of Firestore triggers and publish them, until stopped.

    A delivery is answered with success only when the bus has its event.  Listens on this machine
    alone unless triggers.audience and triggers.service_accounts say who else may deliver.
    """
    print_json(loop.run(_run(Parts(context.obj.settings()))))


async def _run(parts: Parts) -> Mapping[str, object]:
    parts.require(*parts.publishing_settings)
    host = parts.settings.triggers.host
    async with parts:
        with stop_on_signals() as stop:
            return await parts.serve_triggers(
                stop, on_listening=lambda port: say(f"listening on {host}:{port}")
            )
