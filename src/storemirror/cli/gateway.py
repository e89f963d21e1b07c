"""`storemirror gateway`: answers the app's Firebase callables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from storemirror import loop
from storemirror.cli.output import print_json, say, stop_on_signals
from storemirror.collector import calm_collector
from storemirror.errors import ConfigError
from storemirror.wiring import Parts

if TYPE_CHECKING:
    from types import ModuleType


def gateway(context: typer.Context) -> None:
    """
    Answer the app's callables from SQL and Firestore, until stopped.

    Users sign in with Firebase ID tokens; with FIREBASE_AUTH_EMULATOR_HOST, and a project that
    begins with demo-, with the Auth emulator's.  Whose reads come from where, and whose writes go
    into SQL at once, is told by Remote Config, or by gateway.read_mode and gateway.dual_write.
    Prints calls and latencies at the end.
    """
    parts = Parts(context.obj.settings())
    gateway_wiring()
    calm_collector()
    print_json(loop.run(_run(parts)))


async def _run(parts: Parts) -> Mapping[str, object]:
    wiring = gateway_wiring()
    host = parts.settings.gateway.host
    async with parts:
        with stop_on_signals() as stop:
            found: Mapping[str, object] = await wiring.serve_gateway(
                parts, stop, on_listening=lambda port: say(f"listening on {host}:{port}")
            )
            return found


def gateway_wiring() -> ModuleType:
    """
    Give what puts the gateway together.

    Raises:
        ConfigError: its packages are not installed.
    """
    try:
        from storemirror.wiring import gateway as wiring  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise ConfigError(
            "the gateway's packages are not installed: pip install -e '.[gateway]' in the checkout"
        ) from exc
    return wiring
