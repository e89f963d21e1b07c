"""`storemirror up`: triggers, writer, drainer and gateway in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import typer

from storemirror import loop
from storemirror.apply.drain import DrainStats
from storemirror.apply.put_back import DeadLetterRound
from storemirror.apply.readiness import refuse_if_off
from storemirror.apply.retry import first_of
from storemirror.apply.schedule import drain_on_schedule
from storemirror.cli.gateway import gateway_wiring
from storemirror.cli.output import print_json, say, stop_on_signals
from storemirror.collector import calm_collector
from storemirror.errors import ConfigError
from storemirror.source.relay import TriggerRelay
from storemirror.supervision import Part, run_together
from storemirror.wiring import Parts


def up(context: typer.Context) -> None:
    """
    Take triggers, apply their events and drain what is left, in one process, until stopped.

    Where documents are in Firestore it listens as `storemirror triggers` does; with the embedded
    store it relays that store's changes instead.  Prints one line of figures a drain, and one at
    the end.  Ctrl-C or SIGTERM: deliveries under way are answered, then what is in hand is applied
    or given back, within up.shutdown_timeout_s.  With up.with_gateway it answers the app's
    callables as well.  Needs USE_SQL_DM_WRITE_MIRROR=true.
    """
    calm_collector()
    print_json(loop.run(_run(Parts(context.obj.settings()))))


async def _run(parts: Parts) -> Mapping[str, object]:
    refuse_if_off(is_mirror_on=parts.settings.is_mirror_on)
    _check_settings(parts)
    intake = _Intake(parts)
    async with parts:
        await intake.open()
        writer = await parts.writer()
        drain = await parts.drainer(DeadLetterRound())
        drains = _Drains()

        async def write(stop: asyncio.Event) -> None:
            """Receive only once the triggers do: a port that is taken costs no delivery."""
            await first_of(intake.is_open.wait(), stop.wait())
            if not stop.is_set():
                await writer.run(stop)

        async def drain_often(stop: asyncio.Event) -> None:
            await first_of(intake.is_open.wait(), stop.wait())
            await drain_on_schedule(
                drain,
                stop,
                clock=parts.clock,
                interval_s=parts.settings.up.drain_interval_s,
                on_drained=drains.note,
            )

        ordered = [
            Part("triggers", intake.run),
            Part("writer", write),
            Part("drainer", drain_often),
        ]
        calls: dict[str, object] = {}
        if parts.settings.up.with_gateway:
            ordered.append(Part("gateway", partial(_answer_calls, parts, calls)))
        with stop_on_signals() as stop:
            timeout_s = parts.settings.up.shutdown_timeout_s
            await run_together(ordered, stop, clock=parts.clock, timeout_s=timeout_s)
    return {
        "triggers": intake.counts,
        "writer": writer.stats.snapshot(),
        "drain_count": drains.count,
        **({"gateway": calls} if parts.settings.up.with_gateway else {}),
    }


async def _answer_calls(parts: Parts, calls: dict[str, object], stop: asyncio.Event) -> None:
    """Answer the app's callables until `stop` is set."""
    host = parts.settings.gateway.host
    calls.update(
        await gateway_wiring().serve_gateway(
            parts, stop, on_listening=lambda port: say(f"answering calls on {host}:{port}")
        )
    )


def _check_settings(parts: Parts) -> None:
    """See, before anything is opened, that the settings of all parts are whole.

    Raises:
        ConfigError: they are not; lists everything that is wrong.
    """
    checks: list[Callable[[], object]] = [
        lambda: parts.require(*parts.applying_settings),
        parts.render_schema,
    ]
    if parts.settings.documents.kind != "embedded":
        checks.append(parts.caller_rules)
    if parts.settings.up.with_gateway:
        checks.append(lambda: gateway_wiring().check_gateway(parts))
    problems = []
    for check in checks:
        try:
            check()
        except ConfigError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigError("\n".join(problems))


@dataclass(slots=True)
class _Drains:
    """Says what each drain did, and counts them."""

    count: int = 0

    def note(self, drained: DrainStats) -> None:
        self.count += 1
        print_json(drained.as_line())


@dataclass(slots=True)
class _Intake:
    """Where events come from: deliveries over HTTP, or the embedded store's outbox."""

    parts: Parts
    #: Set when events are taken in.
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    counts: Mapping[str, object] = field(default_factory=dict)
    relay: TriggerRelay | None = None

    async def open(self) -> None:
        """Open the embedded store, where that is the source."""
        if self.parts.settings.documents.kind == "embedded":
            self.relay = await self.parts.relay()

    async def run(self, stop: asyncio.Event) -> None:
        """Take events in until `stop` is set."""
        if self.relay is None:
            self.counts = await self.parts.serve_triggers(stop, on_listening=self._listening)
            return
        say("relaying the embedded store's changes")
        self.is_open.set()
        await self.relay.run(stop)
        self.counts = {
            "published_count": self.relay.counts.published_count,
            "undeclared_count": self.relay.counts.undeclared_count,
            "unmirrored_count": self.relay.counts.unmirrored_count,
        }

    def _listening(self, port: int) -> None:
        say(f"listening on {self.parts.settings.triggers.host}:{port}")
        self.is_open.set()
