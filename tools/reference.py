"""
What the generated pages of docs/reference say, taken from the code.

Each public function gives the Markdown (or JSON) of one page's generated part; the pages call
them through cog.  `make docs` writes the pages, `make check` sees that they are fresh.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from storemirror import errors, telemetry
from storemirror.config import settings_reference
from storemirror.event.data import DATA_SCHEMA, EventData
from storemirror.event.envelope import Envelope
from storemirror.model.load import load_model
from storemirror.sql.names import procedures_of, snake_case
from storemirror.sql.sqlserver.naming import procedure_name
from storemirror.sql.sqlserver.types import TYPES

#: Exit statuses that stand for no error class.
PLAIN_STATUSES: Final = {
    0: "What was asked for was done; of `check` and `demo`: both sides agree.",
    1: "The command did its work and found something: differences, or something left to do.",
    2: "Wrong usage: an unknown command or option, or a value that cannot be one.",
    70: "A mistake in StoreMirror itself; `--debug` shows the traceback.",
    130: "Stopped by Ctrl-C before it was done.",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table; bars and line breaks in cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(content: object) -> str:
    return re.sub(r"\s*\n\s*", " ", str(content)).replace("|", "\\|").strip()


def first_line(thing: object) -> str:
    """Give the first paragraph of a docstring as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def error_classes() -> Iterator[type[errors.StoreMirrorError]]:
    """Walk the error tree, in the order in which it is written down."""
    for thing in vars(errors).values():
        if isinstance(thing, type) and issubclass(thing, errors.StoreMirrorError):
            yield thing


def has_own_hint(error: type[errors.StoreMirrorError]) -> bool:
    """Tell whether a class says itself what to do next; others say what their parent says."""
    return bool(vars(error).get("hint"))


def runbook_section(error: type[errors.StoreMirrorError]) -> str:
    """Give the class whose section of the runbook is an error's; empty when there is none."""
    return next((c.__name__ for c in error.__mro__ if vars(c).get("hint")), "")


def errors_tree() -> str:
    """Give the tree as it is drawn at the top of `errors.py`."""
    drawn = (errors.__doc__ or "").split("\n\n")[1]
    return f"```\n{inspect.cleandoc(drawn)}\n```"


def errors_table() -> str:
    """List every error: exit status, meaning, and what to do next."""
    rows = []
    for error in error_classes():
        section = runbook_section(error)
        link = f"[{error.hint}](../runbook/errors.md#{section.lower()})" if section else ""
        rows.append([f"`{error.__name__}`", error.exit_status, first_line(error), link])
    return table(("error", "exit status", "meaning", "what to do"), rows)


def exit_statuses() -> str:
    """List every exit status of the command line, with the errors that it stands for."""
    by_status: dict[int, list[str]] = {status: [] for status in PLAIN_STATUSES}
    for error in error_classes():
        names = by_status.setdefault(error.exit_status, [])
        if error is not errors.StoreMirrorError:
            names.append(f"`{error.__name__}`")
    rows = [
        [status, PLAIN_STATUSES.get(status, ", ".join(names))]
        for status, names in sorted(by_status.items())
    ]
    return table(("exit status", "meaning"), rows)


def event_schema() -> str:
    """Give the JSON Schema of an event's `data`, as a file's whole text."""
    schema = msgspec.json.schema(EventData, schema_hook=_any_value)
    data = schema["$defs"].pop("EventData")
    # Python 3.13 strips indentation from docstrings; the page must not depend on the version.
    data["description"] = first_line(EventData)
    for name, comment in comments_of(EventData).items():
        data["properties"][name]["description"] = comment
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": DATA_SCHEMA,
        **data,
        "$defs": schema["$defs"],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _any_value(kind: type) -> dict[str, Any]:
    """Give the schema of what the envelope leaves unchecked."""
    if kind is object:
        return {"description": "The value, in the form of its kind."}
    raise NotImplementedError(kind)


def comments_of(struct: type[msgspec.Struct]) -> Mapping[str, str]:
    """Give the `#:` comment above each field, by the field's name in JSON."""
    encoded = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    comments = _constant_comments(inspect.getsource(struct))
    return {in_json: comments.get(name, "") for name, in_json in encoded}


def metrics() -> str:
    """List every metric, with what it means and its unit."""
    names = {name for name in vars(telemetry) if name.startswith("SQL_MIRROR_")}
    comments = _constant_comments(inspect.getsource(telemetry))
    rows = [
        [f"`{vars(telemetry)[name]}`", comments.get(name, "")]
        for name in sorted(names, key=list(vars(telemetry)).index)
    ]
    return table(("metric", "meaning"), rows)


def log_events() -> str:
    """List every log event, with what it means."""
    comments = _constant_comments(inspect.getsource(telemetry.LogEvent))
    rows = [[f"`{event.value}`", comments.get(event.name, "")] for event in telemetry.LogEvent]
    return table(("log event", "meaning"), rows)


def _constant_comments(source: str) -> Mapping[str, str]:
    """Give the `#:` comment above each assigned name."""
    comments: dict[str, str] = {}
    waiting: list[str] = []
    for line in source.splitlines():
        if comment := re.match(r"\s*#: ?(.*)", line):
            waiting.append(comment[1])
        elif name := re.match(r"\s*(\w+)\s*[:=]", line):
            comments[name[1]] = " ".join(waiting)
            waiting = []
    return comments


def event_attributes() -> str:
    """List the CloudEvents attributes of an event."""
    return _struct_table(Envelope)


def event_data() -> str:
    """List the members of an event's `data`."""
    return _struct_table(EventData)


def _struct_table(struct: type[msgspec.Struct]) -> str:
    comments = comments_of(struct)
    required = {f.encode_name for f in msgspec.structs.fields(struct) if f.required}
    rows = [
        [f"`{name}`", "always" if name in required else "may be absent", comments.get(name, "")]
        for name in struct.__struct_encode_fields__
    ]
    return table(("name", "present", "meaning"), rows)


def settings() -> str:
    """List every setting, with its environment variable and default."""
    rows = [
        [f"`{doc.name}`", f"`{doc.variable}`", f"`{doc.default}`" if doc.default else "", doc.what]
        for doc in settings_reference()
    ]
    return table(("setting", "environment variable", "default", "meaning"), rows)


def procedures() -> str:
    """List the procedures of the built-in entities, with the settings that rename them."""
    rows = [
        [f"`{snake_case(p.name)}`", f"`{procedure_name(p.name)}`", f"`{p.setting}`", p.what]
        for p in procedures_of(load_model())
    ]
    return table(("PostgreSQL", "SQL Server", "renamed by", "what it does"), rows)


def sqlserver_types() -> str:
    """List the column types, with the column that each is on SQL Server."""
    rows = [[f"`{kind.value}`", f"`{made.column}`"] for kind, made in TYPES.items()]
    return table(("column type", "SQL Server"), rows)


def commands() -> str:
    """Describe every command of the command line, from the command line itself."""
    typer = importlib.import_module("typer")
    cli = importlib.import_module("storemirror.cli.main")
    root = typer.main.get_command(cli.app)
    return "\n\n".join(_command_sections(typer.Context(root, info_name="storemirror")))


def command_names() -> list[str]:
    """Give the name of every command, groups left out: ["check", "dlq list", ...]."""
    return re.findall(r"^## `storemirror (.+)`$", commands(), flags=re.MULTILINE)


def _command_sections(context: Any) -> Iterator[str]:
    """Give one section a command; a group is only a name in front of its commands."""
    command = context.command
    if not hasattr(command, "list_commands"):
        yield _command_section(context)
        return
    if context.parent is None:
        yield _command_section(context)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if not inner.hidden:
            yield from _command_sections(
                type(context)(inner, info_name=name, parent=context, resilient_parsing=True)
            )


def _command_section(context: Any) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [
        f"## `{context.command_path}`",
        inspect.cleandoc(command.help or "").replace("\b\n", ""),
        f"```\n{usage}\n```",
    ]
    records = [p.get_help_record(context) for p in command.get_params(context)]
    rows = [[f"`{name}`", text] for name, text in filter(None, records)]
    if rows:
        parts.append(table(("option", "meaning"), rows))
    return "\n\n".join(part for part in parts if part)
