"""Functions as Cloud Run has them: each in the functions framework, a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storemirror.clock import wait_until
from tests.acceptance.conftest import clean_environment
from tests.integration.receiver.hosted import HOST, Answer, call
from tests.support.deliveries import HEADERS
from tests.support.emulator_process import end_with_parent, free_port

ROOT = Path(__file__).parents[3]
#: What is installed there is functions/requirements.txt, and nothing else.
PYTHON = ROOT / ".venv-functions" / "bin" / "python"
SCHEDULE = "drainRealtimeMirrorQueue"
#: As Cloud Scheduler sends them.
SCHEDULER_HEADERS = {
    "X-CloudScheduler": "true",
    "X-CloudScheduler-JobName": "firebase-schedule-drainRealtimeMirrorQueue-us-central1",
    "X-CloudScheduler-ScheduleTime": "2026-11-25T12:00:00Z",
    "Content-Type": "application/octet-stream",
    "User-Agent": "Google-Cloud-Scheduler",
}
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 120.0


def built_folder(folder: Path) -> Path:
    """Build what would be uploaded."""
    if not PYTHON.exists():
        pytest.skip("needs the functions' environment: make test-deps")
    subprocess.run(["sh", str(ROOT / "tools" / "functions.sh"), str(folder)], check=True)
    return folder


@dataclass(frozen=True)
class Function:
    """One function that takes requests."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    async def post(self, body: bytes, headers: Mapping[str, str] = HEADERS) -> int:
        """Deliver; gives the answer's status."""
        return (await call(self.port, "POST", "/", headers, body)).status

    async def counts(self) -> dict[str, Any]:
        """Ask for the counts; those of zero are left out."""
        counts = json.loads((await call(self.port, "GET", "/", {}, b"")).body)
        return {name: count for name, count in counts.items() if count}

    async def is_scheduled(self) -> Answer:
        """Call it as Cloud Scheduler does."""
        return await call(self.port, "POST", "/", SCHEDULER_HEADERS, b"")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Give the log lines of one event."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line.get("event") == event]


@contextlib.contextmanager
def running_functions(
    folder: Path, names: Sequence[str], environment: Mapping[str, str], logs: Path
) -> Iterator[Mapping[str, Function]]:
    """Start functions, each in a server of its own, and stop them as Cloud Run does."""
    started = {name: _started(folder, name, environment, logs / f"{name}.log") for name in names}
    try:
        for function in started.values():
            wait_until(
                lambda f=function: _is_listening(f.port) or f.process.poll() is not None,  # type: ignore[misc]
                _START_TIMEOUT_S,
            )
            if not _is_listening(function.port):
                pytest.fail(f"{function.name} did not start: {function.log.read_text()[-2000:]}")
        yield started
        for function in started.values():
            function.process.terminate()
        for function in started.values():
            assert function.process.wait(_STOP_TIMEOUT_S) == 0, function.log.read_text()[-2000:]
    finally:
        for function in started.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(function.process.pid, signal.SIGKILL)
            function.process.wait()


def _started(folder: Path, name: str, environment: Mapping[str, str], log: Path) -> Function:
    port = free_port()
    command = [str(PYTHON), "-m", "functions_framework", f"--target={name}"]
    command += [f"--host={HOST}", f"--port={port}"]
    # What Google sets by the trigger's kind; our functions say themselves what they take.
    kind = "http" if name == SCHEDULE else "cloudevent"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment({**environment, "FUNCTION_SIGNATURE_TYPE": kind}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    return Function(name, port, process, log)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=5.0).close()
    except OSError:
        return False
    return True
