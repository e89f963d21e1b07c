"""The command line as an operator has it: processes of their own on three real databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from storemirror.clock import SystemClock
from storemirror.config import load_settings
from storemirror.wiring import Parts
from tests.support.command_server import command_server
from tests.support.databases import Databases
from tests.support.templates import new_documents_dsn

_TIMEOUT_S = 120.0
#: Of commands that go on until they are stopped: the machine may be busy.
_GOING_TIMEOUT_S = 180.0
_OWN_VARIABLES = ("FIRESTORE_", "STOREMIRROR_", "SQL_PROC_", "SERVICEBUS_", "USE_SQL_")
#: `make test WORKERS=3` sets it for every process, and a functions framework would start three.
_OTHERS_VARIABLES = ("WORKERS",)


@dataclass(frozen=True, slots=True)
class Finished:
    """One command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Read standard output as one JSON value."""
        return json.loads(self.out)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of ours, and with `extra`."""
    left_out = (*_OWN_VARIABLES, *_OTHERS_VARIABLES)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return inherited | dict(extra)


async def run_command(*arguments: str, environment: Mapping[str, str], folder: Path) -> Finished:
    """Run `storemirror` in a folder that has no settings file of its own."""
    status, out, err = await command_server().run(
        arguments,
        environment=clean_environment(environment),
        folder=folder,
        timeout_s=_TIMEOUT_S,
    )
    return Finished(status, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def going_command(
    *arguments: str, environment: Mapping[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start `storemirror` anew for as long as a block; it is killed if it has not ended by then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from storemirror.cli.entry import main; main()",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(environment),
        cwd=folder,
    )
    try:
        async with asyncio.timeout(_GOING_TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at a terminal, with the settings of one deployment."""

    environment: Mapping[str, str]
    folder: Path

    async def runs(self, *arguments: str, **variables: str) -> Finished:
        """Run a command; `variables` are added to the settings."""
        return await run_command(
            *arguments, environment={**self.environment, **variables}, folder=self.folder
        )

    async def deploys(self) -> Self:
        """Do what `schema apply` and `bus provision` do, without starting processes for it."""
        async with self.parts() as parts:
            await (await parts.schema()).apply()
            await (await parts.bus_admin()).provision(parts.topic())
        return self

    def parts(self) -> Parts:
        """The same parts that the commands use."""
        return Parts(load_settings(None, self.environment), SystemClock())


def _with_databases(folder: Path, *, documents: str, bus: str, mirror: str) -> Operator:
    environment = {
        "STOREMIRROR_FIRESTORE_PROJECT": "demo",
        "STOREMIRROR_DOCUMENTS_DSN": documents,
        "STOREMIRROR_BUS_DSN": bus,
        "STOREMIRROR_SQL_DSN": mirror,
        "USE_SQL_DM_WRITE_MIRROR": "true",
    }
    return Operator(environment, folder)


@pytest.fixture
async def operator(new_database: Databases, tmp_path: Path) -> Operator:
    """A deployment with empty databases: nothing is installed or provisioned."""
    return _with_databases(
        tmp_path,
        documents=await new_database(),
        bus=await new_database(),
        mirror=await new_database(),
    )


@pytest.fixture
async def deployed(new_database: Databases, tmp_path: Path) -> Operator:
    """A deployment that is ready to run: copies of databases on which `deploys` was done once."""

    async def provision(dsn: str) -> None:
        async with _with_databases(tmp_path, documents="", bus=dsn, mirror="").parts() as parts:
            await (await parts.bus_admin()).provision(parts.topic())

    async def apply(dsn: str) -> None:
        async with _with_databases(tmp_path, documents="", bus="", mirror=dsn).parts() as parts:
            await (await parts.schema()).apply()

    return _with_databases(
        tmp_path,
        documents=await new_documents_dsn(new_database),
        bus=await new_database.filled("deployed bus", provision),
        mirror=await new_database.filled("deployed mirror", apply),
    )
