"""`storemirror init`, a process of its own, with and without somebody to ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storemirror.config import Settings, load_settings
from tests.acceptance.conftest import Finished, Operator, clean_environment, run_command

WHOLE = (
    *("init", "--yes", "--project", "shop", "--database", "eu", "--documents", "firestore"),
    *("--sql-dsn", "postgresql://db/mirror", "--bus-dsn", "host=db dbname=bus", "--switch-on"),
)


@dataclass
class Dialogue:
    """A person at a terminal: waits for each question, and types an answer."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    async def run(self, *answers: tuple[str, str]) -> tuple[int, str]:
        """Give the exit status and everything the terminal showed."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from storemirror.cli.entry import main; main()",
            "init",
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=clean_environment({**self.environment, "COLUMNS": "500"}),
            cwd=self.folder,
        )
        os.close(theirs)
        screen = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(ours, "rb", buffering=0)
        )
        shown = ""
        try:
            async with asyncio.timeout(180):
                for question, answer in answers:
                    while question not in shown:
                        shown += await piece_of(screen, shown)
                    shown = shown.partition(question)[2]
                    os.write(ours, f"{answer}\n".encode())
                with contextlib.suppress(OSError):  # Linux's end of a terminal that all have left
                    while piece := await screen.read(4096):
                        shown += piece.decode()
                return await process.wait(), shown
        finally:
            transport.close()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def piece_of(screen: asyncio.StreamReader, shown: str) -> str:
    """Give what the terminal shows next; at its end, what it had shown is what went wrong."""
    piece = await screen.read(4096)
    assert piece, shown
    return piece.decode()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def run(folder: Path, *arguments: str, **environment: str) -> Finished:
    return await run_command(*arguments, environment=environment, folder=folder)


def written(folder: Path) -> Settings:
    return load_settings(folder / "storemirror.toml", {})


async def test_options_alone_write_a_file_that_gives_them(tmp_path: Path) -> None:
    """In scripts and images nobody can be asked."""
    ended = await run(tmp_path, *WHOLE)
    assert ended.status == 0, ended.err
    settings = written(tmp_path)
    assert (settings.firestore.project, settings.firestore.database) == ("shop", "eu")
    assert settings.documents.kind == "firestore"
    assert settings.text_of("sql.dsn") == "postgresql://db/mirror"
    assert settings.text_of("bus.dsn") == "host=db dbname=bus"
    assert settings.is_mirror_on
    commands = re.findall(r"^  storemirror (.+)$", ended.out, flags=re.MULTILINE)
    assert commands == ["schema apply", "bus provision", "up", "check"]
    assert "export" not in ended.out


async def test_a_password_is_left_for_the_environment(tmp_path: Path) -> None:
    """The file ends up in a repository; the line for it says which variable to set."""
    dsn = "postgresql://me:geheim@db/mirror"
    ended = await run(tmp_path, "init", "--yes", "--project", "shop", "--sql-dsn", dsn)
    assert ended.status == 0, ended.err
    text = (tmp_path / "storemirror.toml").read_text()
    assert "geheim" not in text + ended.out + ended.err
    assert "# It has a password: set STOREMIRROR_SQL_DSN in the environment." in text
    assert written(tmp_path).sql.dsn is None
    for variable in ("STOREMIRROR_SQL_DSN", "STOREMIRROR_BUS_DSN", "STOREMIRROR_DOCUMENTS_DSN"):
        assert f"  export {variable}=" in ended.out
    assert "  export USE_SQL_DM_WRITE_MIRROR=true" in ended.out


async def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    """Somebody may have spent an afternoon on it."""
    file = tmp_path / "storemirror.toml"
    file.write_text("# mine\n")
    ended = await run(tmp_path, *WHOLE)
    assert ended.status == 2
    assert "--force" in ended.err
    assert file.read_text() == "# mine\n"
    assert (await run(tmp_path, *WHOLE, "--force")).status == 0
    assert written(tmp_path).firestore.project == "shop"


async def test_another_file_may_be_named(tmp_path: Path) -> None:
    """As every other command reads it: by option, or by variable."""
    assert (await run(tmp_path, "--config", "a.toml", *WHOLE)).status == 0
    assert (await run(tmp_path, *WHOLE, STOREMIRROR_CONFIG="b.toml")).status == 0
    assert (tmp_path / "a.toml").read_text() == (tmp_path / "b.toml").read_text()
    assert not (tmp_path / "storemirror.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("init", "--yes"), "--project"),
        (("init",), "--yes"),
        (("init", "--yes", "--project", "p", "--documents", "firebase"), "embedded"),
        (("init", "--yes", "--project", "p", "--sql-dsn", "db:geheim"), "--sql-dsn"),
        (("init", "--yes", "--project", " "), "is blank"),
        (("init", "--yes", "--project", "p", "--bus", "kafka"), "servicebus"),
        (("init", "--yes", "--project", "p", "--bus-namespace", "a=geheim"), "is no host name"),
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """A file that does not load helps nobody."""
    ended = await run(tmp_path, *arguments)
    assert ended.status == 2
    assert told in ended.err
    assert "geheim" not in ended.err
    assert names_in(tmp_path) == []


async def test_it_asks_for_the_rest_and_asks_again(tmp_path: Path) -> None:
    """An answer that does not fit is explained at once; an empty one takes the default."""
    status, shown = await Dialogue(tmp_path).run(
        ("firestore.project", ""),
        ("is blank", "shop"),
        ("firestore.database", ""),
        ("documents.kind", "firebase"),
        ("embedded", "embedded"),
        ("documents.dsn", "postgresql://127.0.0.1/documents"),
        ("sql.dsn", "postgresql://me:geheim@127.0.0.1/mirror"),
        ("bus.kind", ""),
        ("bus.dsn", ""),
        ("is_mirror_on", "y"),
    )
    assert status == 0, shown
    settings = written(tmp_path)
    assert settings.firestore.project == "shop"
    assert settings.text_of("documents.dsn") == "postgresql://127.0.0.1/documents"
    assert settings.sql.dsn is None
    assert settings.bus.dsn is None
    assert settings.is_mirror_on
    assert "export STOREMIRROR_SQL_DSN=..." in shown


async def test_service_bus_is_offered_and_its_secret_stays_out_of_the_file(tmp_path: Path) -> None:
    """Whoever pastes the connection string where the host is asked for must not write it down."""
    status, shown = await Dialogue(tmp_path).run(
        ("firestore.project", "shop"),
        ("firestore.database", ""),
        ("documents.kind", "firestore"),
        ("sql.dsn", "postgresql://127.0.0.1/mirror"),
        ("(PostgreSQL: laptop, small team) or servicebus (Azure Service Bus; an extra)", "azure"),
        ("servicebus", "servicebus"),
        ("bus.namespace", "Endpoint=sb://x/;SharedAccessKeyName=x;SharedAccessKey=geheim"),
        ("is no host name", ""),
        ("is_mirror_on", "y"),
    )
    assert status == 0, shown
    assert written(tmp_path).bus.kind == "servicebus"
    text = (tmp_path / "storemirror.toml").read_text()
    assert "geheim" not in text
    for line in ("# connection_string =", "# namespace =", "# dsn ="):
        assert f"\n{line}" in text, "both kinds have their lines"
    exported = re.findall(r"^  export (\w+)=", shown, flags=re.MULTILINE)
    assert exported == ["SERVICEBUS_CONNECTION_STRING"]


async def test_a_namespace_needs_no_secret(tmp_path: Path) -> None:
    """Azure's identity is found where the process runs."""
    host = "contoso.servicebus.windows.net"
    ended = await run(tmp_path, *WHOLE, "--bus", "servicebus", "--bus-namespace", host)
    assert ended.status == 0, ended.err
    assert (written(tmp_path).bus.kind, written(tmp_path).bus.namespace) == ("servicebus", host)
    assert "export" not in ended.out


@pytest.mark.postgres
async def test_the_commands_it_names_make_a_mirror_that_runs(operator: Operator) -> None:
    """The next commands are to be given as they are printed."""
    answers = {"STOREMIRROR_DOCUMENTS_DSN": "--documents-dsn", "STOREMIRROR_BUS_DSN": "--bus-dsn"}
    answers["STOREMIRROR_SQL_DSN"] = "--sql-dsn"
    options = [part for name, o in answers.items() for part in (o, operator.environment[name])]
    begun = Operator({}, operator.folder)
    ended = await begun.runs("init", "--yes", "--project", "demo", "--switch-on", *options)
    assert ended.status == 0, ended.err
    exported = re.findall(r"^  export (\w+)=", ended.out, flags=re.MULTILINE)
    person = Operator({name: operator.environment[name] for name in exported}, operator.folder)
    for command in ("schema apply", "bus provision", "check"):
        assert f"  storemirror {command}" in ended.out
        finished = await person.runs(*command.split())
        assert finished.status == 0, finished.err
