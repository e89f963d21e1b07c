"""`storemirror schema`: tables and procedures, rendered, installed, compared."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from storemirror.cli.output import JsonOption, print_fields, print_json, say
from storemirror.errors import UsageRefused
from storemirror.sql.port import SchemaStatus
from storemirror.wiring import Parts

app = typer.Typer(no_args_is_help=True, help="Render, install and compare tables and procedures.")


@app.command("render")
def render(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write files there, not to standard output."),
    ] = None,
) -> None:
    """Render the whole deployment as SQL, for a database administrator to read and run."""
    files = Parts(context.obj.settings()).render_schema()
    for name, text in files.items():
        if out is None:
            say(text, ends_line=False)
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text)
        except OSError as exc:
            raise UsageRefused(f"--out: {out / name} cannot be written: {exc.strerror}") from exc
        say(f"wrote {out / name}")


@app.command("apply")
def apply(context: typer.Context, as_json: JsonOption = False) -> None:
    """Install or upgrade tables and procedures.  Idempotent; no table is ever dropped."""

    async def run() -> SchemaStatus:
        async with Parts(context.obj.settings()) as parts:
            return await (await parts.schema()).apply()

    _print_status(asyncio.run(run()), as_json)


@app.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Tell what is installed, and whether a writer may run on it (exit status 1 if not)."""

    async def run() -> SchemaStatus:
        async with Parts(context.obj.settings()) as parts:
            return await (await parts.schema()).status()

    found = asyncio.run(run())
    _print_status(found, as_json)
    if found.differences:
        raise typer.Exit(1)


def _print_status(status: SchemaStatus, as_json: bool) -> None:
    if as_json:
        print_json(asdict(status))
        return
    revisions = (f"{name} {rev or '-'}" for name, rev in status.mapping_revisions.items())
    print_fields(
        {
            "installed version": status.installed_version,
            "expected version": status.expected_version,
            "mirrors": f"project {status.project}, database {status.database}"
            if status.is_installed
            else None,
            "mapping revisions": ", ".join(revisions) or None,
        }
    )
    for difference in status.differences:
        say(f"differs: {difference}")
    if not status.differences:
        say("a writer may run")
