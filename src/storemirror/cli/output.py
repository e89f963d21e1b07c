"""How commands speak: JSON or text on standard output, and a stop on Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from storemirror.errors import OutputClosed

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def say(text: str, *, ends_line: bool = True) -> None:
    """
    Print on standard output, at once.

    Raises:
        OutputClosed: nobody reads it any more, or the disk is full.  Typer itself would end with
            1, which for `check` means that the sides differ.
    """
    try:
        typer.echo(text, nl=ends_line)
        sys.stdout.flush()
    except OSError as exc:
        # The interpreter flushes once more when it ends, and would complain again.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open to the end
        raise OutputClosed(f"standard output cannot be written: {exc.strerror}") from exc


def counted(count: int, noun: str) -> str:
    """
    Give a count with its noun.

    >>> counted(1, "dead letter"), counted(2, "mismatch")
    ('1 dead letter', '2 mismatches')
    """
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def print_json(value: object) -> None:
    """Print one JSON value on one line."""
    say(json.dumps(value, ensure_ascii=False))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, a line each, values in one column."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        say(f"{name:<{width}}  {'-' if value is None else value}")


@contextlib.contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """Lend an event that Ctrl-C, SIGTERM or a closed terminal sets; a second Ctrl-C ends all."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, ask_to_stop)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(ending, stop.set)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGHUP)
