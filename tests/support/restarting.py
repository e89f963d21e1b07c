"""An embedded PostgreSQL that is stopped, or killed, and started again on the same port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storemirror.clock import wait_until
from storemirror.sql.postgres import server as embedded
from storemirror.sql.postgres.server import EmbeddedServer, ServerSettings, start_server

TIMEOUT_S = 120.0


class RestartableServer:
    """A durable server: what it has committed is there again after a crash."""

    def __init__(self, server: EmbeddedServer) -> None:
        """Hold on to a running server; it is stopped by `close`."""
        self._server = server
        self._process = server._process
        arguments: Any = self._process.args
        self._arguments: list[str] = arguments
        self._data = Path(self._arguments[self._arguments.index("-D") + 1])

    def dsn(self, database: str) -> str:
        """Give the address of one of its databases; the same after every start."""
        return self._server.dsn(database)

    @property
    def port(self) -> int:
        """Give its port on 127.0.0.1."""
        return self._server.port

    def stop(self) -> None:
        """Stop fast: connections are cut, what is committed is on disk."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """Kill the postmaster as if the machine had failed; its children see that, and go."""
        children = _children_of(self._process.pid)
        self._process.kill()
        self._process.wait(TIMEOUT_S)
        assert wait_until(lambda: not any(map(_exists, children)), TIMEOUT_S)
        # Of a start that says "ready" by itself, not by what the killed one left.
        (self._data / "postmaster.pid").unlink()

    def start(self) -> None:
        """
        Start again, recovering what a kill has left.

        To be called from the main thread: the kernel stops the server when the thread is gone that
        started it.
        """
        with (self._data.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data.parent,
                start_new_session=True,
                preexec_fn=embedded._stop_with_parent,  # noqa: PLW1509
                **embedded._identity(),
            )

    def wait_ready(self) -> None:
        """Wait until it takes connections."""
        ready = self._data / "postmaster.pid"
        assert wait_until(lambda: embedded._says_ready(ready), TIMEOUT_S)

    def close(self) -> None:
        """Stop it, whatever state it is in, and remove its data."""
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._server.folder, ignore_errors=True)


@contextlib.contextmanager
def restartable_server() -> Iterator[RestartableServer]:
    """Lend a durable server of its own."""
    named = os.environ.get("STOREMIRROR_TEST_POSTGRES_BIN")
    settings = ServerSettings(bin_dir=Path(named) if named else None, is_durable=True)
    server = RestartableServer(start_server(settings))
    try:
        yield server
    finally:
        server.close()


def _children_of(process_id: int) -> list[int]:
    """Give the processes that a process has started."""
    found = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in found.split()]


def _exists(process_id: int) -> bool:
    """Tell whether a process runs; one that is dead and not yet waited for does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
