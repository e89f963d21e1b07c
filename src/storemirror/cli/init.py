"""`storemirror init`: writes a commented settings file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm, InvalidResponse, PromptBase

from storemirror.cli.output import say
from storemirror.config import SettingDoc, settings_reference
from storemirror.config.load import DEFAULT_FILE, FILE_VARIABLE
from storemirror.config.written import problem_of, settings_text, values_of
from storemirror.errors import ConfigError, UsageRefused
from storemirror.sql.dialects import address_of, has_password

#: What is asked for, in this order, and the option that answers.
_OPTIONS: Final[Mapping[str, str]] = {
    "firestore.project": "--project",
    "firestore.database": "--database",
    "documents.kind": "--documents",
    "documents.dsn": "--documents-dsn",
    "sql.dsn": "--sql-dsn",
    "bus.kind": "--bus",
    "bus.dsn": "--bus-dsn",
    "bus.namespace": "--bus-namespace",
}
#: Counts only where another setting has this value.
_ASKED_WHERE: Final[Mapping[str, tuple[str, str]]] = {
    "documents.dsn": ("documents.kind", "embedded"),
    "bus.dsn": ("bus.kind", "postgres"),
    "bus.namespace": ("bus.kind", "servicebus"),
    "bus.connection_string": ("bus.kind", "servicebus"),
}
#: What an answer left empty means, where that is more than "later".
_EMPTY_MEANS: Final[Mapping[str, str]] = {
    "bus.namespace": "; empty: a connection string, which stays in the environment"
}
_SWITCH: Final = "is_mirror_on"


def init(
    context: typer.Context,
    project: Annotated[
        str | None, typer.Option("--project", help="The Firebase project's id.")
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", help="The Firestore database's id.")
    ] = None,
    documents: Annotated[
        str | None, typer.Option("--documents", help="Where documents are: embedded or firestore.")
    ] = None,
    documents_dsn: Annotated[
        str | None, typer.Option("--documents-dsn", help="Database of the embedded documents.")
    ] = None,
    sql_dsn: Annotated[
        str | None, typer.Option("--sql-dsn", help="Database of the mirror.")
    ] = None,
    bus: Annotated[
        str | None, typer.Option("--bus", help="What the bus is: postgres or servicebus.")
    ] = None,
    bus_dsn: Annotated[
        str | None, typer.Option("--bus-dsn", help="Database of the bus on PostgreSQL.")
    ] = None,
    bus_namespace: Annotated[
        str | None,
        typer.Option("--bus-namespace", help="Host name of Service Bus, for Azure's identity."),
    ] = None,
    switch_on: Annotated[
        bool | None,
        typer.Option("--switch-on/--leave-off", help="Whether writer and dual write may run."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: defaults for what no option says.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """
    Write a settings file with every setting in it, commented, and say what to run next.

    Asks for what no option says.  Writes ./storemirror.toml, or the file that --config or
    $STOREMIRROR_CONFIG names.  A DSN with a password, or a connection string of Service Bus, is not
    written: it belongs in the environment.
    """
    path = context.obj.config_file or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    if path.exists() and not force:
        raise UsageRefused(f"{path} is there already; nothing was written. --force overwrites it")
    # In the order of _OPTIONS.
    given = (project, database, documents, documents_dsn, sql_dsn, bus, bus_dsn, bus_namespace)
    told = _told(dict(zip(_OPTIONS, given, strict=True)))
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here; say --yes, and the rest by options")
    answers = _defaults(told) if yes else _asked(told)
    is_on = switch_on
    if is_on is None:
        is_on = False if yes else _confirmed(_docs()[_SWITCH])
    _write(path, {**answers, _SWITCH: is_on})


def _docs() -> Mapping[str, SettingDoc]:
    return {doc.name: doc for doc in settings_reference()}


def _told(given: Mapping[str, str | None]) -> dict[str, str]:
    """Give what options say; UsageRefused when one cannot be."""
    told = {name: text for name, text in given.items() if text is not None}
    for name, text in told.items():
        problem = _problem_of(name, text)
        if problem is not None:
            raise UsageRefused(f"{_OPTIONS[name]}: {problem}")
    return told


def _defaults(told: Mapping[str, str]) -> dict[str, str]:
    """Take what the options say; what they leave out keeps its default."""
    if "firestore.project" not in told:
        raise UsageRefused("--project is missing: there is no default for it")
    return dict(told)


def _asked(told: Mapping[str, str]) -> dict[str, str]:
    """Ask for what the options do not say; an empty answer leaves a setting as it is."""
    answers = dict(told)
    for name in _OPTIONS:
        if name in told or not _is_needed(name, answers):
            continue
        answer = _answer(_docs()[name])
        if answer:
            answers[name] = answer
    return answers


def _is_needed(name: str, answers: Mapping[str, str | bool]) -> bool:
    """Tell whether what was answered before lets this setting count."""
    if name not in _ASKED_WHERE:
        return True
    kind, value = _ASKED_WHERE[name]
    return answers.get(kind, _docs()[kind].default.strip('"')) == value


def _answer(doc: SettingDoc) -> str:
    class Prompt(PromptBase[str]):
        """Asks until the answer fits the setting."""

        def process_response(self, value: str) -> str:
            text = value.strip()
            if not text and doc.name != "firestore.project":
                return text
            problem = _problem_of(doc.name, text)
            if problem is not None:
                raise InvalidResponse(f"[prompt.invalid]{escape(problem)}")
            return text

    default: Any = doc.default.strip('"') or ...
    try:
        answer: str = Prompt.ask(_question(doc), console=_console(), default=default)
    except EOFError:
        raise typer.Abort from None
    return answer


def _confirmed(doc: SettingDoc) -> bool:
    try:
        return Confirm.ask(_question(doc), console=_console(), default=False)
    except EOFError:
        raise typer.Abort from None


def _question(doc: SettingDoc) -> str:
    return escape(f"{doc.name}: {doc.what}{_EMPTY_MEANS.get(doc.name, '')}")


def _console() -> Console:
    return Console(stderr=True, highlight=False)


def _problem_of(name: str, text: str) -> str | None:
    """Say what is wrong with an answer; None when it fits."""
    problem = problem_of(name, text)
    if problem is None and name.endswith(".dsn"):
        try:
            address_of(text)
        except ConfigError as exc:
            return str(exc)
    return problem


def _write(path: Path, answers: Mapping[str, str | bool]) -> None:
    """Write the file, and say what comes next."""
    docs = _docs()
    secret = [n for n, v in answers.items() if n.endswith(".dsn") and has_password(str(v))]
    chosen = {name: value for name, value in answers.items() if name not in secret}
    text = settings_text(chosen, kept_out=secret)
    assert values_of(text) == chosen, "the file would not give the settings that were asked for"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise UsageRefused(f"{path} cannot be written: {exc.strerror}") from exc
    say(f"wrote {path}")
    for name in secret:
        say(
            f"{name} has a password, which is better in the environment: its line is commented "
            f"out, and {docs[name].variable} is to hold it"
        )
    needed = ["documents.dsn", "sql.dsn", "bus.dsn"]
    if answers.get("bus.namespace") is None:
        needed.append("bus.connection_string")
    say("next:")
    for name in needed:
        if _is_needed(name, answers) and (name in secret or name not in answers):
            say(f"  export {docs[name].variable}=...")
    if not answers[_SWITCH]:
        say(f"  export {docs[_SWITCH].variable}=true     # when the mirror is to run")
    for command in ("schema apply", "bus provision", "up", "check"):
        say(f"  storemirror {command}")
