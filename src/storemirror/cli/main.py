"""The command `storemirror`: its options, and how every error is shown."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer

from storemirror.cli import (
    backfill,
    bus,
    check,
    demo,
    dlq,
    gateway,
    init,
    purge,
    rebase,
    schema,
    triggers,
    up,
    writer,
)
from storemirror.cli.output import say
from storemirror.config import Settings, load_settings
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import configure_logging

INTERNAL_STATUS: Final = 70
WRONG_USAGE_STATUS: Final = 2
#: 128 + SIGINT, as shells have it.
INTERRUPTED_STATUS: Final = 130

app = typer.Typer(
    name="storemirror",
    help="Mirror Firestore collections into SQL in real time, and prove that both sides agree.\n\n"
    "New here?  `storemirror demo` shows the whole path on this machine, with no account.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(slots=True)
class Invocation:
    """The options before the command; `settings` reads the file only when a command needs it."""

    config_file: Path | None

    def settings(self) -> Settings:
        """Load the settings; ConfigError lists all that is wrong."""
        settings = load_settings(self.config_file, os.environ)
        configure_logging(settings.log.level)
        return settings


def _show_version(is_asked: bool) -> None:
    if is_asked:
        say(f"storemirror {metadata.version('storemirror')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file; else $STOREMIRROR_CONFIG, else ./storemirror.toml if there.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read the options before the command."""
    context.obj = Invocation(config_file=config)


app.command("demo")(demo.demo)
app.command("init")(init.init)
app.add_typer(schema.app, name="schema")
app.add_typer(bus.app, name="bus")
app.command("up")(up.up)
app.command("triggers")(triggers.triggers)
app.command("gateway")(gateway.gateway)
app.command("writer")(writer.writer)
app.command("drain")(writer.drain)
app.command("check")(check.check)
app.command("backfill")(backfill.backfill)
app.command("reconcile")(backfill.reconcile)
app.command("rebase")(rebase.rebase)
app.command("purge")(purge.purge)
app.add_typer(dlq.app, name="dlq")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its status."""
    given = sys.argv[1:] if arguments is None else arguments
    configure_logging("warning")
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """
    Run one command.

    Returns:
        The exit status; docs/reference/exit-statuses.md lists them.
    """
    command = typer.main.get_command(app)
    try:
        status = command.main(arguments, prog_name="storemirror", standalone_mode=False)
    except typer.exceptions.TyperException as exc:
        if not exc.format_message():
            return WRONG_USAGE_STATUS  # help was shown instead
        _show(exc.format_message(), "Run `storemirror --help`, or a command's own --help.", False)
        return WRONG_USAGE_STATUS
    except typer.Abort:
        status = INTERRUPTED_STATUS
    except StoreMirrorError as exc:
        _show(str(exc), exc.hint, "--debug" in arguments)
        return exc.exit_status
    except Exception as exc:
        hint = "This is a fault of ours.  Run again with --debug, and report what it prints."
        _show(f"internal error: {type(exc).__name__}", hint, "--debug" in arguments)
        return INTERNAL_STATUS
    if status == INTERRUPTED_STATUS:
        print("stopped", file=sys.stderr)  # noqa: T201 - the command line speaks
    return status if isinstance(status, int) else 0


def _show(message: str, hint: str, with_traceback: bool) -> None:
    """Show an error as a person reads it: what, then what next."""
    if with_traceback:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the command line speaks
    if hint:
        print(f"next:  {hint}", file=sys.stderr)  # noqa: T201 - the command line speaks
