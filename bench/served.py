"""A server in a process of its own, for as long as it is measured."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.verify import ResultsWrong

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0


@contextlib.asynccontextmanager
async def served(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[int, int]]:
    """
    Start a server, and give its port and its process id; it is ended by SIGTERM.

    Args:
        command: prints a line that ends in "listening on HOST:PORT".
        log: where its other words go.
        environment: of the process; None for this one's.

    Raises:
        ResultsWrong: it did not start.
    """
    with log.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            env=None if environment is None else dict(environment),
        )
    try:
        yield await _port_of(process, log), process.pid
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _port_of(process: asyncio.subprocess.Process, log: Path) -> int:
    """Wait until it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(_START_TIMEOUT_S):
        line = (await process.stdout.readline()).decode()
    if "listening on" not in line:
        raise ResultsWrong(f"the server did not start: {line}{_last_words(log)}")
    return int(line.rpartition(":")[2])


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-2_000:]
