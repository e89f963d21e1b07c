"""
Commands of `storemirror` as processes of their own, forked from one that has the program loaded.

To load it takes a second of processor time, which a command's own work seldom does; there are
hundreds of commands in the tests.  What they do not show is the loading itself: tests that start
the program anew (`test_demo`, `test_up`) are for that.

    tests' process ──socket──► server ──fork──► waiter ──fork──► command
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]


class CommandServer:
    """The tests' side: sends commands, and gathers what they print."""

    def __init__(self) -> None:
        """Start the server; it ends when this process, or its end of the socket, is gone."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
            )

        atexit.register(self.close)

    def close(self) -> None:
        """Let the server end."""
        self._socket.close()
        self._server.wait()

    async def run(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        timeout_s: float,
    ) -> tuple[int, bytes, bytes]:
        """
        Run a command to its end.

        Returns:
            Exit status (negative: the signal that killed it), standard output, standard error.

        Raises:
            TimeoutError: it did not end in time, and was killed.
        """
        pipes = [os.pipe() for _ in range(3)]
        with tempfile.TemporaryFile() as told:
            told.write(json.dumps([list(arguments), dict(environment), str(folder)]).encode())
            told.flush()
            socket.send_fds(self._socket, [b"!"], [told.fileno(), *(write for _, write in pipes)])
        for _, write in pipes:
            os.close(write)
        async with contextlib.AsyncExitStack() as stack:
            out, err, status = [await stack.enter_async_context(_reader(read)) for read, _ in pipes]
            process_id = int(await status.readline())
            try:
                async with asyncio.timeout(timeout_s):
                    printed = await asyncio.gather(out.read(), err.read())
                    ended = await status.read()
            except TimeoutError:
                os.kill(process_id, signal.SIGKILL)
                raise
        return os.waitstatus_to_exitcode(int(ended)), *printed


@contextlib.asynccontextmanager
async def _reader(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """Read a pipe in this loop."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=1 << 24)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    with contextlib.closing(transport):
        yield reader


@functools.cache
def command_server() -> CommandServer:
    """Give this process's server; started when first asked for."""
    return CommandServer()


def serve(channel: socket.socket) -> None:
    """Fork a command for each request, until the other side is gone."""
    from storemirror.cli.main import main  # noqa: PLC0415 - what the commands share

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # waiters are nobody's business
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1, 4)
        if not message:
            return
        if os.fork() == 0:
            channel.close()
            _wait_for_command(main, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_for_command(
    main: Callable[[list[str]], None], told: int, out: int, err: int, status: int
) -> None:
    """Fork the command, and say its process id and how it ended.  Returns in the command alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    command = os.fork()
    if command:
        os.close(out)
        os.close(err)
        os.write(status, f"{command}\n".encode())
        _, ended = os.waitpid(command, 0)
        os.write(status, str(ended).encode())
        os._exit(0)
    os.close(status)
    os.dup2(out, sys.stdout.fileno())
    os.dup2(err, sys.stderr.fileno())
    os.close(out)
    os.close(err)
    with os.fdopen(told, "rb") as file:
        file.seek(0)
        arguments, environment, folder = json.load(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    main(arguments)  # ends the process, as it does when it was started anew


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
