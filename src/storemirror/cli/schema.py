"""`storemirror schema`: tables and procedures, rendered, installed, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from storemirror import loop
from storemirror.cli.output import JsonOption, counted, print_fields, print_json, say
from storemirror.errors import SchemaChangeRefused, UsageRefused
from storemirror.sql.dialects import Dialect
from storemirror.sql.grants import Job
from storemirror.sql.plan import SchemaPlan
from storemirror.sql.port import SchemaStatus
from storemirror.wiring import Parts

#: Where counting of outdated rows ends: enough to see a backfill come to its end.
OUTDATED_MAX_COUNT: Final = 10_000

AlterOption = Annotated[
    bool,
    typer.Option(
        "--alter-columns",
        help="Also change columns that are there, where every value is kept: a wider type, ids "
        "compared byte by byte, no NOT NULL.  Tables are locked meanwhile.",
    ),
]

app = typer.Typer(no_args_is_help=True, help="Render, install and compare tables and procedures.")


@app.command("render")
def render(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write files there, not to standard output."),
    ] = None,
    dialect: Annotated[
        Dialect | None,
        typer.Option("--dialect", help="By default that of sql.dsn, else postgresql."),
    ] = None,
    is_drop_create: Annotated[
        bool,
        typer.Option(
            "--drop-create",
            help="For a server that speaks T-SQL and does not know CREATE OR ALTER.",
        ),
    ] = False,
) -> None:
    """Render the whole deployment as SQL, for a database administrator to read and run."""
    parts = Parts(context.obj.settings())
    files = parts.render_schema(dialect=dialect, is_drop_create=is_drop_create)
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


@app.command("grants")
def grants(
    context: typer.Context,
    role: Annotated[str, typer.Option("--role", metavar="NAME", help="The user of the database.")],
    jobs: Annotated[
        list[Job],
        typer.Option("--for", help="What it does; several times for several things."),
    ],
    dialect: Annotated[
        Dialect | None,
        typer.Option("--dialect", help="By default that of sql.dsn, else postgresql."),
    ] = None,
) -> None:
    """
    Render the rights that a user needs as SQL, for a database administrator to read and run.

    Needs no database.  Which command is which of them is told in the script, and in
    docs/howto/database-rights.md.
    """
    parts = Parts(context.obj.settings())
    say(parts.render_grants(role=role, jobs=jobs, dialect=dialect), ends_line=False)


@app.command("diff")
def diff(
    context: typer.Context, may_alter: AlterOption = False, as_json: JsonOption = False
) -> None:
    """
    Show what `schema apply` would do, and change nothing.

    Exit status: 0 nothing to do, 1 there is something to do, 6 `schema apply` would refuse.
    """

    async def run() -> SchemaPlan:
        async with Parts(context.obj.settings()) as parts:
            return await (await parts.schema()).plan(may_alter_columns=may_alter)

    plan = loop.run(run())
    if as_json:
        print_json(plan.to_json())
    else:
        _print_plan(plan)
        if plan.is_refused:
            say("refused as a whole: `storemirror schema apply` would change nothing")
        elif plan.is_empty:
            say("nothing to do")
        else:
            say("`storemirror schema apply` would do this; nothing was changed")
    if plan.is_refused:
        raise typer.Exit(SchemaChangeRefused.exit_status)
    raise typer.Exit(0 if plan.is_empty else 1)


@app.command("apply")
def apply(
    context: typer.Context, may_alter: AlterOption = False, as_json: JsonOption = False
) -> None:
    """
    Install or upgrade tables and procedures, and adopt tables that are there.

    Idempotent; no table and no column is ever dropped.  `storemirror schema diff` shows before
    what would be done.
    """
    done: list[SchemaPlan] = []

    async def run() -> SchemaStatus:
        async with Parts(context.obj.settings()) as parts:
            schema = await parts.schema()
            return await schema.apply(may_alter_columns=may_alter, on_planned=done.append)

    found = loop.run(run())
    if as_json:
        print_json(asdict(found) | {"done": done[0].to_json()})
        return
    _print_plan(done[0])
    say("nothing was to do" if done[0].is_empty else "all of this was done")
    _print_status(found)


@app.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Tell what is installed, and whether a writer may run on it (exit status 1 if not)."""

    async def run() -> tuple[SchemaStatus, Mapping[str, int]]:
        async with Parts(context.obj.settings()) as parts:
            schema = await parts.schema()
            return await schema.status(), await schema.outdated_counts(max_count=OUTDATED_MAX_COUNT)

    found, outdated = loop.run(run())
    if as_json:
        counts = {"outdated_counts": outdated, "outdated_max_count": OUTDATED_MAX_COUNT}
        print_json(asdict(found) | counts)
    else:
        _print_status(found)
        _print_outdated(outdated)
    if found.differences:
        raise typer.Exit(1)


def _print_plan(plan: SchemaPlan) -> None:
    """Print what is done, or would be; the same words before and after."""
    for change in plan.changes:
        say(str(change))
    for name in plan.kept:
        say(f"keep column {name}, which no declaration has")
    for note in plan.notes:
        say(f"note: {note}")
    for backfill in plan.backfills:
        say(f"next: {backfill}")
    for refusal in plan.refusals:
        word = "; `--alter-columns` does it" if refusal.alteration is not None else ""
        say(f"refused: {refusal}{word}")


def _print_status(status: SchemaStatus) -> None:
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
    for sentence in status.under_way:
        say(f"under way: {sentence}")
    for difference in status.differences:
        say(f"differs: {difference}")
    if not status.differences:
        say("a writer may run")


def _print_outdated(counts: Mapping[str, int]) -> None:
    """Say how many rows wait for a backfill."""
    for name, count in counts.items():
        if count:
            most = "at least " if count == OUTDATED_MAX_COUNT else ""
            say(
                f"{name}: {most}{counted(count, 'row')} mapped by an earlier declaration; a "
                "backfill maps them anew"
            )
